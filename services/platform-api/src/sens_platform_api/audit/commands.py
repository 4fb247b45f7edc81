"""``sens audit``: who changed what."""

from typing import Annotated

import typer

from sens_common.command_line.options import DataDir, Json, Utc, tenant_name


def audit(  # noqa: PLR0917 - typer calls it with keywords
    data_dir: DataDir,
    tenant: Annotated[
        str | None,
        typer.Option(
            help="Only changes of this tenant, which need not exist any more.", show_default=False, callback=tenant_name
        ),
    ] = None,
    limit: Annotated[int, typer.Option(help="How many at most.", min=1, max=1000)] = 100,
    before: Annotated[
        int | None,
        typer.Option(
            help="Only changes before this number; a list that has more names it.",
            min=1,
            max=2**63 - 1,
            show_default=False,
        ),
    ] = None,
    utc: Utc = False,
    as_json: Json = False,
) -> None:
    """List who changed what, newest first: tenants, keys, limits, deletions.

    \b
    sens audit --tenant demo
    """
    from sens_common.command_line.output import print_json, print_table, short_time
    from sens_platform_api.administration import in_transaction
    from sens_platform_api.audit.repository import list_events

    found = in_transaction(
        data_dir, lambda connection: list_events(connection, before=before, limit=limit + 1, tenant=tenant)
    )
    shown = found[:limit]
    cursor = shown[-1].id if len(found) > len(shown) else None
    if as_json:
        print_json({"events": [event._asdict() for event in shown], "before": cursor})
        return
    rows = [
        (short_time(event.at, utc=utc), event.tenant or "-", event.actor, event.action, event.subject)
        for event in shown
    ]
    print_table(("TIME", "TENANT", "WHO", "WHAT", "TO WHAT"), rows, empty="nothing was changed")
    if cursor is not None:
        typer.echo(f"there are more: sens audit --before {cursor}")
