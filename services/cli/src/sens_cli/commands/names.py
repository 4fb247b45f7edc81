"""``sens devices`` and ``sens metrics``: which there are, and deleting them."""

from typing import Annotated, Final

import typer

from sens_cli.commands.device_details import show_device
from sens_cli.commands.device_profile import give_profile
from sens_cli.options import ApiKey, ApiUrl, Limit
from sens_common.command_line.options import DataDir, Json, Utc

devices = typer.Typer(invoke_without_command=True, help="List devices, or delete some.")
metrics = typer.Typer(invoke_without_command=True, help="List all devices' metrics, or delete some.")

_PAGE: Final = 1000
_MOST: Final = 100_000

Prefix = Annotated[str | None, typer.Option(help="Only names that begin with this text.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]

devices.command("show")(show_device)
devices.command("profile")(give_profile)


@devices.callback()
def list_devices(  # noqa: PLR0917 - typer calls it with keywords
    context: typer.Context,
    data_dir: DataDir,
    api_url: ApiUrl = None,
    api_key: ApiKey = None,
    prefix: Prefix = None,
    limit: Limit = 1000,
    utc: Utc = False,
    as_json: Json = False,
) -> None:
    """List devices, or delete some.

    \b
    sens devices
    sens devices --prefix greenhouse- --json
    sens devices delete greenhouse-7
    """
    if context.invoked_subcommand is not None:
        return
    from sens_cli.api import Api
    from sens_cli.target import find_target
    from sens_common.command_line.output import print_json, print_table, short_time

    api = Api(find_target(data_dir, api_url, api_key))
    found = list(api.pages("devices", "devices", {"prefix": prefix or None}, limit=limit, page=_PAGE))
    if as_json:
        print_json(found)
        return
    rows = [
        (each["device"], short_time(each["created_at"], utc=utc), short_time(each["last_seen"], utc=utc))
        for each in found
    ]
    print_table(("DEVICE", "SINCE", "LAST SEEN"), rows, empty="no devices")


@devices.command("delete")
def delete_devices(  # noqa: PLR0917 - typer calls it with keywords
    data_dir: DataDir,
    names: Annotated[list[str] | None, typer.Argument(help="Names of devices.", show_default=False)] = None,
    prefix: Prefix = None,
    yes: Yes = False,
    as_json: Json = False,
    api_url: ApiUrl = None,
    api_key: ApiKey = None,
) -> None:
    """Delete devices with all their measurements. It can't be undone.

    \b
    sens devices delete greenhouse-7 greenhouse-8
    sens devices delete --prefix test-
    """
    from sens_cli.api import Api, segment
    from sens_cli.target import find_target
    from sens_common.command_line.output import print_json

    api = Api(find_target(data_dir, api_url, api_key))
    chosen = list(names or [])
    if prefix:
        pages = api.pages("devices", "devices", {"prefix": prefix}, limit=_MOST, page=_PAGE)
        chosen += [each["device"] for each in pages]
    _confirm(chosen, "device", yes=yes)
    deleted = []
    for name in dict.fromkeys(chosen):
        deleted.append(api.delete(f"devices/{segment(name)}"))
        if not as_json:
            typer.echo(f"device {name} is deleted; its measurements follow")
    if as_json:
        print_json(deleted)


@devices.command("rename")
def rename_device(  # noqa: PLR0917 - typer calls it with keywords
    data_dir: DataDir,
    name: Annotated[str, typer.Argument(help="Name of the device.", show_default=False)],
    new_name: Annotated[str, typer.Argument(help="Its new name.", show_default=False)],
    as_json: Json = False,
    api_url: ApiUrl = None,
    api_key: ApiKey = None,
) -> None:
    """Give a device another name; it keeps its measurements.

    A device is replaced under its name like this: rename the old one, and let the new one send.

    \b
    sens devices rename greenhouse-7 greenhouse-7-until-2026
    """
    from sens_cli.api import Api, segment
    from sens_cli.target import find_target
    from sens_common.command_line.output import print_json

    answer = Api(find_target(data_dir, api_url, api_key)).post(f"devices/{segment(name)}/rename", {"name": new_name})
    if as_json:
        print_json(answer)
    else:
        typer.echo(f"device {name} is {answer['device']} now; messages for {name} are of a new device")


@devices.command("move")
def move_device(  # noqa: PLR0917 - typer calls it with keywords
    data_dir: DataDir,
    name: Annotated[str, typer.Argument(help="Name of the device.", show_default=False)],
    to_key: Annotated[
        str,
        typer.Option(
            envvar="SENS_TARGET_API_KEY", help="A key of the other tenant that may write.", show_default=False
        ),
    ],
    new_name: Annotated[str | None, typer.Option("--name", help="Its name there. (default: the same)")] = None,
    as_json: Json = False,
    api_url: ApiUrl = None,
    api_key: ApiKey = None,
) -> None:
    """Move a device with its history to another tenant: the one whose key is given.

    \b
    SENS_TARGET_API_KEY=sens_… sens devices move greenhouse-7
    """
    from sens_cli.api import Api, segment
    from sens_cli.target import find_target
    from sens_common.command_line.output import print_json

    api = Api(find_target(data_dir, api_url, api_key))
    answer = api.post(f"devices/{segment(name)}/move", {"name": new_name}, headers={"Sens-Target-Key": to_key})
    if as_json:
        print_json(answer)
    else:
        typer.echo(
            f"device {name} is {answer['device']} of tenant {answer['tenant']} now; its history follows:"
            f" sens devices deletions shows how far deletion {answer['deletion']} is"
        )


@devices.command("delete-readings")
def delete_readings(  # noqa: PLR0917 - typer calls it with keywords
    data_dir: DataDir,
    name: Annotated[str, typer.Argument(help="Name of the device.", show_default=False)],
    first: Annotated[str, typer.Option("--from", help="From this time on.", show_default=False)],
    past: Annotated[str, typer.Option("--to", help="Before this time.", show_default=False)],
    metric: Annotated[str | None, typer.Option(help="Only the values of this metric.", show_default=False)] = None,
    as_json: Json = False,
    api_url: ApiUrl = None,
    api_key: ApiKey = None,
) -> None:
    """Delete the readings of a device in a time range, or the values of one metric. It can't be undone.

    \b
    sens devices delete-readings greenhouse-7 --from 2026-11-24 --to 2026-11-25
    sens devices delete-readings greenhouse-7 --from -2h --to -1h --metric temperature
    """
    from sens_cli.api import Api, segment
    from sens_cli.target import find_target
    from sens_common.command_line.output import print_json

    api = Api(find_target(data_dir, api_url, api_key))
    answer = api.delete(f"devices/{segment(name)}/measurements", {"from": first, "to": past, "metric": metric})
    if as_json:
        print_json(answer)
    else:
        typer.echo(f"deletion {answer['deletion']} is under way; sens devices deletions shows how far it is")
        for kept in answer["kept_aggregates"]:
            what = "hour" if kept["kind"] == "rollup_1h" else "day"
            typer.echo(f"the aggregates of the {what} from {kept['starts_at']} stay: only a part of it is in the range")


@devices.command("deletions")
def list_deletions(  # noqa: PLR0917 - typer calls it with keywords
    data_dir: DataDir,
    limit: Limit = 100,
    utc: Utc = False,
    as_json: Json = False,
    api_url: ApiUrl = None,
    api_key: ApiKey = None,
) -> None:
    """Show how far the deletions of devices, metrics and readings are, the newest first.

    \b
    sens devices deletions
    """
    from sens_cli.api import Api
    from sens_cli.target import find_target
    from sens_common.command_line.output import print_json, print_table, short_time

    api = Api(find_target(data_dir, api_url, api_key))
    found = list(api.pages("deletions", "deletions", {}, limit=limit, page=_PAGE))
    if as_json:
        print_json(found)
        return
    rows = [
        (
            each["id"],
            each["subject"],
            short_time(each["requested_at"], utc=utc),
            short_time(each["finished_at"], utc=utc) if each["finished_at"] else "under way",
            f"{each['readings']:,}",
            f"{each['values']:,}",
            f"{each['dead_letters']:,}",
        )
        for each in found
    ]
    heads = ("ID", "WHAT", "REQUESTED", "FINISHED", "READINGS", "VALUES", "DEAD LETTERS")
    print_table(heads, rows, empty="nothing was deleted")


@devices.command("erase")
def erase_device(  # noqa: PLR0917 - typer calls it with keywords
    data_dir: DataDir,
    name: Annotated[
        str, typer.Argument(help="Name of the device; it may have been deleted before.", show_default=False)
    ],
    yes: Yes = False,
    as_json: Json = False,
    api_url: ApiUrl = None,
    api_key: ApiKey = None,
) -> None:
    """Erase all that is stored of a device, dead letters too, for good: no replay or restore brings it back.

    \b
    sens devices erase greenhouse-7
    """
    from sens_cli.api import Api
    from sens_cli.target import find_target
    from sens_common.command_line.output import print_json

    if not yes:
        typer.confirm(f"Erase all that is stored of the device {name}?", abort=True, err=True)
    receipt = Api(find_target(data_dir, api_url, api_key)).post("erasures", {"device": name})
    if as_json:
        print_json(receipt)
    else:
        typer.echo(f"erasure {receipt['id']} is under way; sens devices receipt {receipt['id']} shows what went")


@devices.command("receipt")
def show_receipt(
    data_dir: DataDir,
    erasure: Annotated[int, typer.Argument(help="Number of the erasure.", min=1, show_default=False)],
    as_json: Json = False,
    api_url: ApiUrl = None,
    api_key: ApiKey = None,
) -> None:
    """Show what an erasure has deleted, and from when on nothing is left elsewhere.

    \b
    sens devices receipt 3
    """
    from sens_cli.api import Api
    from sens_cli.target import find_target
    from sens_common.command_line.output import print_json

    receipt = Api(find_target(data_dir, api_url, api_key)).get(f"erasures/{erasure}")
    if as_json:
        print_json(receipt)
        return
    typer.echo(f"device with the hash  {receipt['device_hash']}")
    typer.echo(f"erased                {receipt['erased_at']}: no message received before is stored again")
    typer.echo(f"database              {receipt['finished_at'] or 'under way'}")
    typer.echo(
        f"deleted               {receipt['readings']:,} readings, {receipt['values']:,} values,"
        f" {receipt['dead_letters']:,} dead letters, {receipt['kept_messages']:,} kept messages"
    )
    typer.echo(f"stream                free of it from {receipt['stream_free_at']} on")
    typer.echo(f"backups               {receipt['backups']}")


@metrics.callback()
def list_metrics(  # noqa: PLR0917 - typer calls it with keywords
    context: typer.Context,
    data_dir: DataDir,
    api_url: ApiUrl = None,
    api_key: ApiKey = None,
    prefix: Prefix = None,
    limit: Limit = 1000,
    utc: Utc = False,
    as_json: Json = False,
) -> None:
    """List all devices' metrics, or delete some.

    \b
    sens metrics
    sens metrics --prefix battery. --json
    sens metrics delete battery.voltage
    """
    if context.invoked_subcommand is not None:
        return
    from sens_cli.api import Api
    from sens_cli.target import find_target
    from sens_common.command_line.output import print_json, print_table, short_time

    api = Api(find_target(data_dir, api_url, api_key))
    found = list(api.pages("metrics", "metrics", {"prefix": prefix or None}, limit=limit, page=_PAGE))
    if as_json:
        print_json(found)
        return
    rows = [(each["metric"], each["kind"], short_time(each["created_at"], utc=utc)) for each in found]
    print_table(("METRIC", "KIND", "SINCE"), rows, empty="no metrics")


@metrics.command("delete")
def delete_metrics(  # noqa: PLR0917 - typer calls it with keywords
    data_dir: DataDir,
    names: Annotated[list[str] | None, typer.Argument(help="Names of metrics.", show_default=False)] = None,
    kind: Annotated[
        str | None, typer.Option(help="Only values of this kind: number, boolean or text. (default: all)")
    ] = None,
    prefix: Prefix = None,
    yes: Yes = False,
    as_json: Json = False,
    api_url: ApiUrl = None,
    api_key: ApiKey = None,
) -> None:
    """Delete metrics of all devices with all their measurements. It can't be undone.

    \b
    sens metrics delete battery.voltage
    sens metrics delete temperature --kind text
    sens metrics delete --prefix counter-
    """
    from sens_cli.api import Api
    from sens_cli.target import find_target
    from sens_common.command_line.output import print_json

    api = Api(find_target(data_dir, api_url, api_key))
    chosen = list(names or [])
    if prefix:
        pages = api.pages("metrics", "metrics", {"prefix": prefix}, limit=_MOST, page=_PAGE)
        chosen += [each["metric"] for each in pages if kind in {None, each["kind"]}]
    _confirm(chosen, "metric", yes=yes)
    deleted = []
    for name in dict.fromkeys(chosen):
        deleted.append(api.delete("metrics", {"metric": name, "kind": kind}))
        if not as_json:
            typer.echo(f"metric {name} is deleted; its measurements follow")
    if as_json:
        print_json(deleted)


def _confirm(names: list[str], what: str, *, yes: bool) -> None:
    """Ask before much is deleted: one name that was given is meant."""
    if not names:
        raise typer.BadParameter(f"name a {what}, or give --prefix; nothing begins like that where it was given")
    if len(names) > 1 and not yes:
        shown = ", ".join(names[:5]) + (f" and {len(names) - 5:,} more" if len(names) > 5 else "")  # noqa: PLR2004 - a line's worth
        typer.confirm(f"Delete {len(names):,} {what}s with all their measurements: {shown}?", abort=True, err=True)
