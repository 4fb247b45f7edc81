"""``sens tenants``, ``sens keys``, ``sens migrate``: what is done past the API, with the database's own settings."""

from typing import Annotated

import typer

from sens_cli.options import DataDir, Json, Utc

tenants = typer.Typer(no_args_is_help=True, help="Whom devices, keys and dead letters belong to.")
keys = typer.Typer(no_args_is_help=True, help="API keys.")


@tenants.command("create")
def create_tenant(
    data_dir: DataDir,
    name: Annotated[str, typer.Argument(help="Its name, as in the topics.", show_default=False)],
    if_missing: Annotated[bool, typer.Option("--if-missing", help="Succeed when it exists already.")] = False,
    as_json: Json = False,
) -> None:
    """Make a tenant.

    \b
    sens tenants create greenhouse
    """
    from sens_cli.administration import administer
    from sens_common.command_line.output import print_json

    answer = administer(data_dir, "tenants", "create", *(["--if-missing"] if if_missing else []), "--", name)
    if as_json:
        print_json(answer)
    else:
        typer.echo(f"tenant {name} {'is made' if answer['created'] else 'exists already'}")


@tenants.command("list")
def list_tenants(data_dir: DataDir, utc: Utc = False, as_json: Json = False) -> None:
    """List all tenants."""
    from sens_cli.administration import administer
    from sens_common.command_line.output import print_json, print_table, short_time

    answer = administer(data_dir, "tenants", "list")
    if as_json:
        print_json(answer)
        return
    rows = [(each["name"], short_time(each.get("created_at"), utc=utc), each.get("device_limit")) for each in answer]
    print_table(("TENANT", "CREATED", "DEVICE LIMIT"), rows, empty="no tenants")


@tenants.command("limits")
def tenant_limits(  # noqa: PLR0917 - typer calls it with keywords
    data_dir: DataDir,
    name: Annotated[str, typer.Argument(help="The tenant.", show_default=False)],
    devices: Annotated[str | None, typer.Option(help="Devices.")] = None,
    new_devices_per_hour: Annotated[str | None, typer.Option(help="New devices in an hour of the clock.")] = None,
    metrics: Annotated[str | None, typer.Option(help="Metrics.")] = None,
    new_metrics_per_hour: Annotated[str | None, typer.Option(help="New metrics in an hour of the clock.")] = None,
    messages_per_second: Annotated[
        str | None,
        typer.Option(help="Messages a second, or none for no limit; more are acknowledged and discarded, counted."),
    ] = None,
    late_days: Annotated[str | None, typer.Option(help="Days that a reading may lie before its receipt.")] = None,
    dead_letters: Annotated[str | None, typer.Option(help="Dead letters.")] = None,
    dead_letter_bytes: Annotated[str | None, typer.Option(help="Bytes of dead letters.")] = None,
    as_json: Json = False,
) -> None:
    """Show what a tenant may have and send, and change it; a change holds within ten seconds, without a restart.

    \b
    sens tenants limits demo
    sens tenants limits demo --metrics 20000 --late-days 3650
    sens tenants limits demo --messages-per-second 500
    """
    from sens_cli.administration import administer
    from sens_common.command_line.output import print_json, print_table

    given = {
        "devices": devices,
        "new-devices-per-hour": new_devices_per_hour,
        "metrics": metrics,
        "new-metrics-per-hour": new_metrics_per_hour,
        "messages-per-second": messages_per_second,
        "late-days": late_days,
        "dead-letters": dead_letters,
        "dead-letter-bytes": dead_letter_bytes,
    }
    options = [f"--{option}={value}" for option, value in given.items() if value is not None]
    answer = administer(data_dir, "tenants", "limits", *options, "--", name)
    if as_json:
        print_json(answer)
        return
    used, limits = answer["used"], answer["limits"]
    rows = [
        (
            option.replace("_", "-"),
            "none" if limit is None else f"{limit:,}",
            f"{used[option]:,}" if option in used else "",
        )
        for option, limit in limits.items()
    ]
    print_table(("LIMIT", "AT MOST", "NOW"), rows, empty="no limits")
    if answer["changed"]:
        typer.echo(f"changed: {', '.join(answer['changed']).replace('_', '-')}; this holds within ten seconds")


@keys.command("create")
def create_key(
    data_dir: DataDir,
    tenant: Annotated[str, typer.Option(help="Whose data it reads.", show_default=False)],
    *,
    name: Annotated[str, typer.Option(help="What it is for.")] = "unnamed",
    read_only: Annotated[
        bool, typer.Option("--read-only", help="It may only read: neither replay nor delete, nor change limits.")
    ] = False,
    expires: Annotated[
        str | None, typer.Option(help="When it ends: a time, or a number of days such as 90d.", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """Make a key, and print it: this once, for only its hash is stored.

    \b
    sens keys create --tenant demo --name grafana --read-only
    sens keys create --tenant demo --name visitor --read-only --expires 30d
    export SENS_API_KEY=$(sens keys create --tenant demo)
    """
    from sens_cli.administration import administer
    from sens_common.command_line.output import print_json

    options = (["--read-only"] if read_only else []) + ([f"--expires={expires}"] if expires is not None else [])
    answer = administer(data_dir, "keys", "create", f"--tenant={tenant}", f"--name={name}", *options)
    if as_json:
        print_json(answer)
    else:
        typer.echo(answer["key"])


@keys.command("list")
def list_keys(
    data_dir: DataDir,
    tenant: Annotated[str | None, typer.Option(help="Only this tenant's.")] = None,
    utc: Utc = False,
    as_json: Json = False,
) -> None:
    """List keys, without the keys themselves."""
    from sens_cli.administration import administer
    from sens_common.command_line.output import print_json, print_table, short_time

    answer = administer(data_dir, "keys", "list", *([f"--tenant={tenant}"] if tenant is not None else []))
    if as_json:
        print_json(answer)
        return
    rows = [
        (
            each["id"],
            each["tenant"],
            f"{each['prefix']}…",
            each["name"],
            each["access"].replace("_", "-"),
            each["state"],
            short_time(each["last_used_at"], utc=utc) if each["last_used_at"] else "never",
            short_time(each["expires_at"], utc=utc) if each["expires_at"] else "never",
        )
        for each in answer
    ]
    print_table(("ID", "TENANT", "KEY", "NAME", "ACCESS", "STATE", "LAST USED", "EXPIRES"), rows, empty="no keys")


@keys.command("revoke")
def revoke_key(
    data_dir: DataDir,
    key: Annotated[str, typer.Argument(help="Its number, its first 12 characters, or all of it.", show_default=False)],
    as_json: Json = False,
) -> None:
    """Make a key stop working.

    \b
    sens keys revoke 3
    """
    from sens_cli.administration import administer
    from sens_common.command_line.output import print_json

    answer = administer(data_dir, "keys", "revoke", "--", key)
    if as_json:
        print_json(answer)
    else:
        typer.echo(f"key {answer['id']} ({answer['prefix']}…) of tenant {answer['tenant']} is revoked")


def audit(  # noqa: PLR0917 - typer calls it with keywords
    data_dir: DataDir,
    tenant: Annotated[
        str | None, typer.Option(help="Only what concerns this tenant; it need not exist any more.", show_default=False)
    ] = None,
    limit: Annotated[int, typer.Option(help="How many at most.", min=1, max=1000)] = 100,
    before: Annotated[
        int | None, typer.Option(help="Go on where the last list ended.", min=1, show_default=False)
    ] = None,
    utc: Utc = False,
    as_json: Json = False,
) -> None:
    """List who changed what, newest first: tenants, keys, limits, deletions.

    \b
    sens audit --tenant demo
    """
    from sens_cli.administration import administer
    from sens_common.command_line.output import print_json, print_table, short_time

    options = [f"--limit={limit}"]
    options += [f"--tenant={tenant}"] if tenant is not None else []
    options += [f"--before={before}"] if before is not None else []
    answer = administer(data_dir, "audit", "list", *options)
    if as_json:
        print_json(answer)
        return
    rows = [
        (short_time(each["at"], utc=utc), each["tenant"] or "-", each["actor"], each["action"], each["subject"])
        for each in answer["events"]
    ]
    print_table(("TIME", "TENANT", "WHO", "WHAT", "TO WHAT"), rows, empty="nothing was changed")
    if answer["before"] is not None:
        typer.echo(f"there are more: sens audit --before {answer['before']}")


def migrate(data_dir: DataDir) -> None:
    """Bring the database's schema up to date; safe to run again.

    The database is that of SENS_DATABASE__*, else the running instance's.
    """
    from sens_cli.administration import run_module

    run_module(data_dir, "sens_common.migrations")
    typer.echo("the schema is up to date")
