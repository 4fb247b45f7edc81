"""``sens latest``, ``measurements`` and ``tail``: what is stored, and what is being stored."""

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Final

import typer

from sens_cli.options import ApiKey, ApiUrl, Device, Limit
from sens_common.command_line.options import DataDir, Json, Utc

if TYPE_CHECKING:
    from sens_cli.api import Api, Parameters

_MEASUREMENTS_PAGE: Final = 10_000
_DEVICES_PAGE: Final = 1000
_CSV_PAGE: Final = 100_000
_DEFAULT_LIMIT: Final = 1000
_QUIET_SECONDS: Final = 10.0


def latest(  # noqa: PLR0917 - typer calls it with keywords
    data_dir: DataDir,
    device: Annotated[
        str | None, typer.Argument(help="Name of the device. (default: all devices)", show_default=False)
    ] = None,
    prefix: Annotated[str | None, typer.Option(help="Only devices whose names begin with this text.")] = None,
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
    if device is None:
        found = list(api.pages("latest", "devices", {"prefix": prefix or None}, limit=limit, page=_DEVICES_PAGE))
    else:
        found = [api.get(f"devices/{segment(device)}/latest")]
    if as_json:
        print_json(found if device is None else found[0])
        return
    rows = [
        (each["device"], one["metric"], one["value"], one["kind"], short_time(one["time"], utc=utc))
        for each in found
        for one in each["latest"]
    ]
    columns = ("DEVICE", "METRIC", "VALUE", "KIND", "MEASURED")
    if device is None:
        print_table(columns, rows, empty="no values")
    else:
        print_table(columns[1:], [row[1:] for row in rows], empty="no values")


def measurements(  # noqa: PLR0917 - typer calls it with keywords
    data_dir: DataDir,
    device: Device,
    metric: Annotated[
        list[str] | None, typer.Option("--metric", "-m", help="Only this metric; may be repeated.")
    ] = None,
    start: Annotated[
        str | None, typer.Option("--from", help="First time: RFC 3339, or an epoch. (default: a day before --to)")
    ] = None,
    end: Annotated[str | None, typer.Option("--to", help="End of the range. (default: now)")] = None,
    bucket: Annotated[str | None, typer.Option(help="Width of buckets to aggregate in: 5m, 1h, 1d …")] = None,
    aggregate: Annotated[
        str | None,
        typer.Option(
            help="Aggregates of each bucket, with commas between: avg, sum, min, max, first, last, count, difference, p50, p95, p99,"
            " time_weighted_avg."
        ),
    ] = None,
    tz: Annotated[
        str | None, typer.Option(help="Time zone whose days buckets, --from and --to go by: Europe/Vienna.")
    ] = None,
    fill: Annotated[
        str | None, typer.Option(help="Give buckets without values as well: null, previous or linear.")
    ] = None,
    points: Annotated[
        int | None,
        typer.Option(help="As many buckets as a chart has points, with min, max and avg; in place of --bucket."),
    ] = None,
    newest_first: Annotated[bool, typer.Option("--newest-first", help="Newest first.")] = False,
    limit: Annotated[
        int | None, typer.Option(min=1, max=10_000_000_000, help="How many at most. (default: 1000; with --csv, all)")
    ] = None,
    csv: Annotated[bool, typer.Option("--csv", help="Print all of the range as CSV, as the API writes it.")] = False,
    utc: Utc = False,
    as_json: Json = False,
    api_url: ApiUrl = None,
    api_key: ApiKey = None,
) -> None:
    """Read measurements of a device.

    \b
    sens measurements sensor-0001 --metric temperature --limit 20 --newest-first
    sens measurements sensor-0001 -m temperature --from 2026-11-01 --bucket 1h --aggregate avg,min,max
    sens measurements sensor-0001 -m energy --from 2026-11-01 --bucket 1d --tz Europe/Vienna --aggregate difference --fill null
    sens measurements sensor-0001 --csv > sensor-0001.csv
    """
    from sens_cli.api import Api, segment
    from sens_cli.target import find_target
    from sens_common.command_line.output import print_json, print_table, short_time

    if csv and as_json:
        raise typer.BadParameter("--csv and --json exclude each other")
    path = f"devices/{segment(device)}/measurements"
    parameters = {
        "metric": metric,
        "from": start,
        "to": end,
        "bucket": bucket,
        "aggregate": aggregate,
        "tz": tz,
        "fill": fill,
        "points": points,
        "order": "desc" if newest_first else None,
    }
    api = Api(find_target(data_dir, api_url, api_key))
    if csv:
        _print_csv(api, path, parameters, limit)
        return
    shown = limit or _DEFAULT_LIMIT
    found = list(api.pages(path, "measurements", parameters, limit=shown, page=_MEASUREMENTS_PAGE))
    if as_json:
        print_json(found)
        return
    default = "avg" if bucket else "min,max,avg" if points else "value"
    columns = ["metric", *(aggregate or default).split(",")]
    rows = [[short_time(each["time"], utc=utc), *(each.get(column) for column in columns)] for each in found]
    print_table(["TIME", *map(str.upper, columns)], rows, empty="no measurements in this time range")
    if len(found) == shown:
        typer.echo(f"these are the first {shown}: raise --limit for more, or take all with --csv", err=True)


def _print_csv(api: "Api", path: str, parameters: "Parameters", limit: int | None) -> None:
    """Print the API's CSV, page after page as one table; how far it is goes to standard error where that is a terminal."""
    from sens_common.command_line.output import progress

    left = limit
    cursor: str | None = None
    printed = 0
    with progress() as tell:
        while True:
            page = _CSV_PAGE if left is None else min(left, _CSV_PAGE)
            lines = api.lines(path, {**parameters, "limit": page, "cursor": cursor}, accept="text/csv")
            header = next(lines, None)
            if cursor is None and header is not None:
                typer.echo(header)
            cursor = None
            rows = 0
            for line in lines:
                if line.startswith("# next: "):
                    cursor = line.removeprefix("# next: ")
                elif not line.startswith("# "):
                    typer.echo(line)
                    rows += 1
            printed += rows
            tell(f"{printed:,} rows")
            if left is not None:
                left -= rows
            if cursor is None:
                return
            if left is not None and left <= 0:
                typer.echo("there are more: raise --limit, or leave it out for all of the range", err=True)
                return


def tail(  # noqa: PLR0917 - typer calls it with keywords
    data_dir: DataDir,
    device: Annotated[
        list[str] | None, typer.Option("--device", "-d", help="Only this device; may be repeated.")
    ] = None,
    count: Annotated[int | None, typer.Option("--count", "-n", min=1, help="End after this many readings.")] = None,
    utc: Utc = False,
    as_json: Json = False,
    api_url: ApiUrl = None,
    api_key: ApiKey = None,
) -> None:
    """Watch readings as they are stored, until Ctrl-C.

    \b
    sens tail
    sens tail --device sensor-0001 --json | jq .value
    """
    from sens_cli.api import Api
    from sens_cli.target import find_target

    target = find_target(data_dir, api_url, api_key)
    if not as_json:
        of = f" of {', '.join(device)}" if device else ""
        typer.echo(f"readings{of} as they are stored at {target.api_url}; Ctrl-C ends", err=True)
        typer.echo(f"{'TIME':<23}  DEVICE  METRIC  VALUE", err=True)
    lines = Api(target).lines("live", {"device": device}, accept="text/event-stream", endless=True)
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
                parts = (show(event.data[name]) for name in ("device", "metric", "value"))
                typer.echo("  ".join((f"{short_time(event.data['time'], utc=utc):<23}", *parts)))
            seen += 1
            if seen == count:
                return
    from sens_common.errors import UnavailableError

    raise UnavailableError("the API ended the stream: it stops, or the key was revoked")
