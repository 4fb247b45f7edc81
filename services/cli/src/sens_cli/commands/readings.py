"""``sens devices``, ``latest``, ``measurements`` and ``tail``: what is stored, and what is being stored."""

from collections.abc import Iterable
from typing import Annotated, Final

import typer

from sens_cli.options import ApiKey, ApiUrl, DataDir, Device, Json, Limit

_PAGE: Final = 1000
_MEASUREMENTS_PAGE: Final = 10_000


def devices(  # noqa: PLR0917 - typer calls it with keywords
    data_dir: DataDir,
    api_url: ApiUrl = None,
    api_key: ApiKey = None,
    prefix: Annotated[str, typer.Option(help="Only devices whose names begin like this.")] = "",
    limit: Limit = 1000,
    as_json: Json = False,
) -> None:
    """List devices.

    \b
    sens devices
    sens devices --prefix greenhouse- --json
    """
    from sens_cli.api import Api
    from sens_cli.output import print_json, print_table
    from sens_cli.target import find_target

    with Api(find_target(data_dir, api_url, api_key)) as api:
        found = list(api.pages("devices", "devices", {"prefix": prefix or None}, limit=limit, page=_PAGE))
    if as_json:
        print_json(found)
        return
    print_table(("DEVICE", "SINCE"), [(each["device"], each["created_at"]) for each in found], empty="no devices")


def latest(
    data_dir: DataDir, device: Device, api_url: ApiUrl = None, api_key: ApiKey = None, as_json: Json = False
) -> None:
    """Show the latest value of each metric of a device: latest measured, not latest received.

    \b
    sens latest sensor-0001
    """
    from sens_cli.api import Api, segment
    from sens_cli.output import print_json, print_table
    from sens_cli.target import find_target

    with Api(find_target(data_dir, api_url, api_key)) as api:
        answer = api.get(f"devices/{segment(device)}/latest")
    if as_json:
        print_json(answer)
        return
    rows = [(each["metric"], each["value"], each["kind"], each["time"]) for each in answer["latest"]]
    print_table(("METRIC", "VALUE", "KIND", "MEASURED"), rows, empty="no values")


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
        str | None, typer.Option(help="Aggregates of each bucket: avg, min, max, count, with commas between.")
    ] = None,
    newest_first: Annotated[bool, typer.Option("--newest-first", help="Newest first.")] = False,
    limit: Limit = 1000,
    csv: Annotated[bool, typer.Option("--csv", help="Print CSV, as the API writes it.")] = False,
    as_json: Json = False,
    api_url: ApiUrl = None,
    api_key: ApiKey = None,
) -> None:
    """Read measurements of a device.

    \b
    sens measurements sensor-0001 --metric temperature --limit 20 --newest-first
    sens measurements sensor-0001 -m temperature --from 2026-11-01 --bucket 1h --aggregate avg,min,max
    sens measurements sensor-0001 --csv > sensor-0001.csv
    """
    from sens_cli.api import Api, segment
    from sens_cli.output import print_json, print_table
    from sens_cli.target import find_target

    if csv and as_json:
        raise typer.BadParameter("--csv and --json exclude each other")
    path = f"devices/{segment(device)}/measurements"
    parameters = {
        "metric": metric,
        "from": start,
        "to": end,
        "bucket": bucket,
        "aggregate": aggregate,
        "order": "desc" if newest_first else None,
    }
    with Api(find_target(data_dir, api_url, api_key)) as api:
        if csv:
            _print_csv(api.lines(path, {**parameters, "limit": limit}, accept="text/csv"))
            return
        found = list(api.pages(path, "measurements", parameters, limit=limit, page=_MEASUREMENTS_PAGE))
    if as_json:
        print_json(found)
        return
    columns = ["time", "metric", *((aggregate or "avg").split(",") if bucket else ["value"])]
    rows = [[each.get(column) for column in columns] for each in found]
    print_table([column.upper() for column in columns], rows, empty="no measurements in this time range")


def _print_csv(lines: Iterable[str]) -> None:
    """Print the API's CSV; what says that there is more goes to standard error, so that the file stays a table."""
    for line in lines:
        if line.startswith("# next: "):
            typer.echo("there are more: raise --limit, or choose a later --from", err=True)
        else:
            typer.echo(line)


def tail(  # noqa: PLR0917 - typer calls it with keywords
    data_dir: DataDir,
    device: Annotated[
        list[str] | None, typer.Option("--device", "-d", help="Only this device; may be repeated.")
    ] = None,
    count: Annotated[int | None, typer.Option("--count", "-n", min=1, help="End after so many readings.")] = None,
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
    from sens_cli.events import events
    from sens_cli.output import print_json_line, show
    from sens_cli.target import find_target

    seen = 0
    with Api(find_target(data_dir, api_url, api_key)) as api:
        lines = api.lines("live", {"device": device}, accept="text/event-stream", endless=True)
        for event in events(lines):
            if event.name == "dropped":
                typer.echo(f"too slow: {event.data.get('count')} readings were left out", err=True)
            elif event.name == "reading":
                if as_json:
                    print_json_line(event.data)
                else:
                    parts = (event.data[name] for name in ("time", "device", "metric", "value"))
                    typer.echo("  ".join(show(part) for part in parts))
                seen += 1
                if seen == count:
                    return
    from sens_common.errors import UnavailableError

    raise UnavailableError("the API ended the stream: it stops, or the key was revoked")
