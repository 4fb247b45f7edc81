"""``sens latest`` and ``tail``: what was measured last, and what is being stored."""

import time
from collections.abc import Iterator
from typing import Annotated, Final

import typer

from sens_cli.options import ApiKey, ApiUrl, Limit
from sens_common.command_line.options import DataDir, Json, Utc

_DEVICES_PAGE: Final = 1000
_QUIET_SECONDS: Final = 10.0


def latest(  # noqa: PLR0917 - typer calls it with keywords
    data_dir: DataDir,
    device: Annotated[
        str | None, typer.Argument(help="Name of the device. (default: all devices)", show_default=False)
    ] = None,
    prefix: Annotated[str | None, typer.Option(help="Only devices whose names begin with this text.")] = None,
    calibration: Annotated[
        str | None, typer.Option(help="none gives values as they are stored, without calibrations.", show_default=False)
    ] = None,
    calibration_as_of: Annotated[
        str | None,
        typer.Option(
            help="With the calibrations that were known at this time. (default: those that hold)", show_default=False
        ),
    ] = None,
    limit: Limit = 1000,
    api_url: ApiUrl = None,
    api_key: ApiKey = None,
    utc: Utc = False,
    as_json: Json = False,
) -> None:
    """Show the latest value of each metric of a device, or of all devices: latest measured, not latest received.

    \b
    sens latest sensor-0001
    sens latest
    sens latest --prefix greenhouse- --json
    """
    from sens_cli.api import Api, segment
    from sens_cli.target import find_target
    from sens_common.command_line.output import print_json, print_table, short_time

    if device is not None and prefix is not None:
        raise typer.BadParameter("a device's name and --prefix exclude each other")
    api = Api(find_target(data_dir, api_url, api_key))
    parameters = {"calibration": calibration, "calibration_as_of": calibration_as_of}
    if device is None:
        parameters["prefix"] = prefix or None
        found = list(api.pages("latest", "devices", parameters, limit=limit, page=_DEVICES_PAGE))
    else:
        found = [api.get(f"devices/{segment(device)}/latest", parameters)]
    if as_json:
        print_json(found if device is None else found[0])
        return
    with_units = any("unit" in one for each in found for one in each["latest"])
    rows = [
        (
            each["device"],
            one["metric"],
            one["value"],
            *([one.get("unit_text")] if with_units else []),
            one["kind"],
            short_time(one["time"], utc=utc),
        )
        for each in found
        for one in each["latest"]
    ]
    columns = ("DEVICE", "METRIC", "VALUE", *(["UNIT"] if with_units else []), "KIND", "MEASURED")
    if device is None:
        print_table(columns, rows, empty="no values")
    else:
        print_table(columns[1:], [row[1:] for row in rows], empty="no values")


def tail(  # noqa: PLR0917 - typer calls it with keywords
    data_dir: DataDir,
    device: Annotated[
        list[str] | None, typer.Option("--device", "-d", help="Only this device; may be repeated.")
    ] = None,
    count: Annotated[int | None, typer.Option("--count", "-n", min=1, help="End after this many readings.")] = None,
    calibration: Annotated[
        str | None, typer.Option(help="none gives values as they are stored, without calibrations.", show_default=False)
    ] = None,
    utc: Utc = False,
    as_json: Json = False,
    api_url: ApiUrl = None,
    api_key: ApiKey = None,
) -> None:
    """Watch readings as they are stored, until Ctrl-C.

    \b
    sens tail
    sens tail --device sensor-0001 --json | jq .value
    sens tail --calibration none
    """
    from sens_cli.api import Api
    from sens_cli.target import find_target

    target = find_target(data_dir, api_url, api_key)
    if not as_json:
        of = f" of {', '.join(device)}" if device else ""
        typer.echo(f"readings{of} as they are stored at {target.api_url}; Ctrl-C ends", err=True)
        typer.echo(f"{'TIME':<23}  DEVICE  METRIC  VALUE", err=True)
    lines = Api(target).lines(
        "live", {"device": device, "calibration": calibration}, accept="text/event-stream", endless=True
    )
    print_readings(lines, count=count, utc=utc, as_json=as_json)


def print_readings(
    lines: Iterator[str],
    *,
    count: int | None = None,
    utc: bool = False,
    as_json: bool = False,
    quiet_seconds: float = _QUIET_SECONDS,
) -> None:
    """Print readings as they come.

    Args:
        lines: Of the API's stream of events.
        count: How many readings to print; None: without end.
        utc: Whether their times are in UTC.
        as_json: Whether to print them as JSON.
        quiet_seconds: Say that there is a connection when no reading has come for longer.

    Raises:
        UnavailableError: The stream has ended.
    """
    from sens_cli.events import events
    from sens_common.command_line.output import print_json_line, short_time, show

    seen = 0
    heard_at = time.monotonic()
    for event in events(lines, idle=True):
        if event.name == "idle":
            # The API sends a comment every few seconds, so that a reader knows that it is connected.
            if not as_json and time.monotonic() - heard_at > quiet_seconds:
                typer.echo(f"connected; no reading for {time.monotonic() - heard_at:.0f} s", err=True)
            continue
        heard_at = time.monotonic()
        if event.name == "dropped":
            typer.echo(f"too slow: {event.data.get('count')} readings were left out", err=True)
        elif event.name == "reading":
            if as_json:
                print_json_line(event.data)
            else:
                parts = [show(event.data[name]) for name in ("device", "metric", "value")]
                parts += [event.data["unit_text"]] if "unit_text" in event.data else []
                typer.echo("  ".join((f"{short_time(event.data['time'], utc=utc):<23}", *parts)))
            seen += 1
            if seen == count:
                return
    from sens_common.errors import UnavailableError

    raise UnavailableError("the API ended the stream: it stops, or the key was revoked")
