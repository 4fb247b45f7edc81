"""``sens retention``: how long what is kept."""

from typing import Annotated, cast

import typer

from sens_common.command_line.options import DataDir, Json, Utc, tenant_name
from sens_platform_api.retention.rules import KINDS, MAX_DAYS, Kind, Retention, Rule

app = typer.Typer(no_args_is_help=True, help="How long readings, aggregates and dead letters are kept.")

_Tenant = Annotated[str, typer.Argument(help="The tenant.", show_default=False, callback=tenant_name)]


def _kind(text: str) -> str:
    kind = text.replace("-", "_")
    if kind not in KINDS:
        raise typer.BadParameter(f"one of {', '.join(KINDS).replace('_', '-')} is needed")
    return kind


def _days(text: str) -> str:
    if text != "forever" and not (text.isascii() and text.isdigit() and 1 <= int(text) <= MAX_DAYS):
        raise typer.BadParameter(f"a number from 1 to {MAX_DAYS} is needed, or forever")
    return text


_KindArgument = Annotated[
    str,
    typer.Argument(
        help="What is kept: raw (readings), rollup-1h and rollup-1d (aggregates), or dead-letters.",
        show_default=False,
        callback=_kind,
    ),
]
_Device = Annotated[str | None, typer.Option(help="Of this device only.", show_default=False)]
_Metric = Annotated[str | None, typer.Option(help="Of this metric only.", show_default=False)]


@app.command("show")
def show_retention(data_dir: DataDir, tenant: _Tenant, utc: Utc = False, as_json: Json = False) -> None:
    """Show how long what of a tenant is kept, and how far the deletion of what is older is.

    \b
    sens retention show demo
    """
    from sens_platform_api.administration import in_transaction
    from sens_platform_api.retention import administration

    found = in_transaction(data_dir, lambda connection: administration.show(connection, tenant))
    _print(found, utc=utc, as_json=as_json)


@app.command("set")
def set_retention(
    data_dir: DataDir,
    tenant: _Tenant,
    kind: _KindArgument,
    days: Annotated[
        str, typer.Argument(help="For how many days at least, or forever.", show_default=False, callback=_days)
    ],
    *,
    device: _Device = None,
    metric: _Metric = None,
    utc: Utc = False,
    as_json: Json = False,
) -> None:
    """Say how long something is kept; what is older is deleted, and can't be brought back.

    \b
    sens retention set demo raw 400
    sens retention set demo raw 30 --metric debug.heap
    sens retention set demo raw forever --device reference-1
    sens retention set demo dead-letters 14
    """
    from sens_platform_api.administration import in_transaction
    from sens_platform_api.retention import administration

    rule = _rule(kind, device, metric, None if days == "forever" else int(days))
    found = in_transaction(data_dir, lambda connection: administration.change(connection, tenant, rule))
    _print(found, utc=utc, as_json=as_json)


@app.command("unset")
def unset_retention(
    data_dir: DataDir,
    tenant: _Tenant,
    kind: _KindArgument,
    *,
    device: _Device = None,
    metric: _Metric = None,
    utc: Utc = False,
    as_json: Json = False,
) -> None:
    """Remove a rule: the next wider one counts; without one, it is kept for ever.

    \b
    sens retention unset demo raw --metric debug.heap
    """
    from sens_platform_api.administration import in_transaction
    from sens_platform_api.retention import administration

    rule = _rule(kind, device, metric, None)
    found = in_transaction(data_dir, lambda connection: administration.change(connection, tenant, rule, forget=True))
    _print(found, utc=utc, as_json=as_json)


def _rule(kind: str, device: str | None, metric: str | None, days: int | None) -> Rule:
    if kind == "dead_letters" and (device is not None or metric is not None):
        raise typer.BadParameter("dead letters have one rule for the whole tenant", param_hint="--device, --metric")
    return Rule(cast("Kind", kind), device, metric, days)


def _print(found: Retention, *, utc: bool, as_json: bool) -> None:
    from sens_common.command_line.output import print_json, print_table, short_time

    progress = found.progress
    if as_json:
        rules = [rule._asdict() for rule in found.rules]
        print_json(
            {
                "rules": rules,
                "late_days": found.late_days,
                "progress": progress._asdict(),
                "sizes": found.sizes._asdict(),
            }
        )
        return
    rows = [
        (rule.kind.replace("_", "-"), rule.device or "all", rule.metric or "all", rule.days or "forever")
        for rule in found.rules
    ]
    print_table(("KEPT", "DEVICE", "METRIC", "DAYS"), rows, empty="everything is kept for ever")
    sizes = found.sizes
    if sizes.measured_at is not None:
        typer.echo(
            f"on disk, about: {sizes.readings:,} bytes of readings, {sizes.rollups:,} of aggregates, {sizes.dead_letters:,} of dead"
            f" letters (estimated {short_time(sizes.measured_at, utc=utc)} or later)"
        )
    if not found.rules:
        return
    if progress.finished_at is not None:
        typer.echo(f"what was older is deleted (looked at {short_time(progress.finished_at, utc=utc)})")
    elif progress.started_at is not None:
        typer.echo(f"what is older is being deleted (since {short_time(progress.started_at, utc=utc)})")
    else:
        typer.echo("what is older will be deleted soon, while the API is running")
    typer.echo(
        f"deleted so far: {progress.values:,} values, {progress.rollups:,} aggregates, {progress.dead_letters:,} dead letters"
    )
