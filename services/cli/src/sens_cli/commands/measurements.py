"""``sens measurements``: what is stored, as a table, JSON, CSV, Arrow or Parquet, on the terminal or in a file."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO, Final

import typer

from sens_cli.options import ApiKey, ApiUrl
from sens_common.command_line.options import DataDir, Json, Utc

if TYPE_CHECKING:
    from sens_cli.api import Api, Parameters

_PAGE: Final = 10_000
_CSV_PAGE: Final = 100_000
_DEFAULT_LIMIT: Final = 1000


class Format(StrEnum):
    """What measurements are written as."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"
    ARROW = "arrow"
    PARQUET = "parquet"


class PointsMethod(StrEnum):
    """How the points of a chart are chosen."""

    MINMAX = "minmax"
    LTTB = "lttb"


_OF_SUFFIX: Final = {
    ".json": Format.JSON,
    ".csv": Format.CSV,
    ".arrow": Format.ARROW,
    ".arrows": Format.ARROW,
    ".parquet": Format.PARQUET,
}
_BINARY: Final = {
    Format.ARROW: ("application/vnd.apache.arrow.stream", b"\xff\xff\xff\xff\x00\x00\x00\x00"),
    Format.PARQUET: ("application/vnd.apache.parquet", b"PAR1"),
}
"""The media type of a binary form, and how it ends: in HTTP/1.0 nothing else says that it is complete."""


def measurements(  # noqa: PLR0917 - typer calls it with keywords
    data_dir: DataDir,
    device: Annotated[list[str], typer.Argument(help="Name of the device, or of several.", show_default=False)],
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
    points_method: Annotated[
        PointsMethod | None,
        typer.Option(help="How --points chooses: minmax gives buckets, lttb stored values that keep the line's shape."),
    ] = None,
    newest_first: Annotated[bool, typer.Option("--newest-first", help="Newest first.")] = False,
    limit: Annotated[
        int | None,
        typer.Option(
            min=1, max=10_000_000_000, help="How many rows at most. (default: 1000; of csv, arrow and parquet, all)"
        ),
    ] = None,
    form: Annotated[
        Format | None,
        typer.Option("--format", "-f", help="What to write. (default: by the name of --output, else a table)"),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="Write into this file, which is there once it is complete.", dir_okay=False
        ),
    ] = None,
    csv: Annotated[bool, typer.Option("--csv", help="The same as --format csv.")] = False,
    calibration: Annotated[
        str | None, typer.Option(help="none gives values as they are stored, without calibrations.", show_default=False)
    ] = None,
    calibration_as_of: Annotated[
        str | None,
        typer.Option(
            help="With the calibrations that were known at this time. (default: those that hold)", show_default=False
        ),
    ] = None,
    units: Annotated[bool, typer.Option("--units", help="CSV with a last column that tells the unit.")] = False,
    utc: Utc = False,
    as_json: Json = False,
    api_url: ApiUrl = None,
    api_key: ApiKey = None,
) -> None:
    """Read measurements of a device, or of several.

    \b
    sens measurements sensor-0001 --metric temperature --limit 20 --newest-first
    sens measurements sensor-0001 -m temperature --from 2026-11-01 --bucket 1h --aggregate avg,min,max
    sens measurements sensor-0001 -m energy --from 2026-11-01 --bucket 1d --tz Europe/Vienna --aggregate difference --fill null
    sens measurements sensor-0001 --csv > sensor-0001.csv
    sens measurements sensor-0001 sensor-0002 --from -30d --output both.parquet
    """
    from sens_cli.api import Api, segment
    from sens_cli.target import find_target

    wanted = wanted_format(form, output, csv=csv, as_json=as_json)
    several = len(device) > 1
    path = "measurements" if several else f"devices/{segment(device[0])}/measurements"
    parameters = {
        "device": device if several else None,
        "metric": metric,
        "from": start,
        "to": end,
        "bucket": bucket,
        "aggregate": aggregate,
        "tz": tz,
        "fill": fill,
        "points": points,
        "points_method": points_method,
        "order": "desc" if newest_first else None,
        "calibration": calibration,
        "calibration_as_of": calibration_as_of,
        "units": "true" if units and wanted is Format.CSV else None,
    }
    api = Api(find_target(data_dir, api_url, api_key))
    if wanted in _BINARY:
        _write_binary(api, path, {**parameters, "limit": limit}, wanted, output)
    elif wanted is Format.CSV:
        with _opened(output) as file:
            _write_csv(api, path, parameters, limit, file)
    else:
        shown = limit or _DEFAULT_LIMIT
        pages = list(api.documents(path, "measurements", parameters, limit=shown, page=_PAGE))
        found = [row for page in pages for row in page["measurements"]]
        if wanted is Format.JSON:
            _write_json(found, output)
            return
        stored = points is None or points_method is PointsMethod.LTTB
        default = "avg" if bucket else "value" if stored else "min,max,avg"
        columns = [*(["device"] if several else []), "metric", *(aggregate or default).split(",")]
        told = {(each.get("device"), each["metric"]): each for page in pages for each in page.get("units", ())}
        if told:
            columns.append("unit")
            for row in found:
                row["unit"] = told.get((row.get("device"), row["metric"]), {}).get("unit_text")
        _print_table(found, columns, utc=utc)
        if len(found) == shown:
            typer.echo(f"these are the first {shown}: raise --limit for more, or take all with --csv", err=True)


def wanted_format(form: Format | None, output: Path | None, *, csv: bool, as_json: bool) -> Format:
    """Return what is to be written.

    Raises:
        typer.BadParameter: The options contradict each other, or leave it open; or bytes would go to a terminal.
    """
    if csv and as_json:
        raise typer.BadParameter("--csv and --json exclude each other")
    named = {*([form] if form else []), *([Format.CSV] if csv else []), *([Format.JSON] if as_json else [])}
    if len(named) > 1:
        raise typer.BadParameter(f"--format {form} and --{'csv' if csv else 'json'} exclude each other")
    by_name = _OF_SUFFIX.get(output.suffix.lower()) if output is not None else Format.TABLE
    wanted = next(iter(named), by_name)
    if wanted is None or (wanted is Format.TABLE and output is not None):
        raise typer.BadParameter(
            f"what {output} is to hold is not clear; add --format json, csv, arrow or parquet, or end its name with .csv, .parquet …"
        )
    if wanted in _BINARY and output is None and sys.stdout.isatty():
        raise typer.BadParameter(
            f"{wanted} is not for a terminal: name a file with --output FILE, or send it on with > or |"
        )
    return wanted


@contextmanager
def _opened(output: Path | None) -> Iterator[BinaryIO]:
    """Give what to write to: standard output, or a file."""
    from sens_cli.files import whole_file

    if output is None:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    with whole_file(output) as file:
        yield file


def _print_table(found: "list[dict[str, object]]", columns: list[str], *, utc: bool) -> None:
    from sens_common.command_line.output import print_table, short_time

    rows = [[short_time(str(each["time"]), utc=utc), *(each.get(column) for column in columns)] for each in found]
    print_table(["TIME", *map(str.upper, columns)], rows, empty="no measurements in this time range")


def _write_json(found: object, output: Path | None) -> None:
    from sens_common.command_line.output import json_text

    with _opened(output) as file:
        file.write(json_text(found).encode())


def _write_csv(api: "Api", path: str, parameters: "Parameters", limit: int | None, file: BinaryIO) -> None:
    """Write the API's CSV, page after page as one table; how far it is goes to standard error where that is a terminal."""
    from sens_common.command_line.output import progress

    left = limit
    cursor: str | None = None
    written = 0
    with progress() as tell:
        while True:
            page = _CSV_PAGE if left is None else min(left, _CSV_PAGE)
            lines = api.lines(path, {**parameters, "limit": page, "cursor": cursor}, accept="text/csv")
            header = next(lines, None)
            if cursor is None and header is not None:
                file.write(f"{header}\n".encode())
            cursor = None
            rows = 0
            for line in lines:
                if line.startswith("# next: "):
                    cursor = line.removeprefix("# next: ")
                elif not line.startswith("# "):
                    file.write(f"{line}\n".encode())
                    rows += 1
            written += rows
            tell(f"{written:,} rows")
            if left is not None:
                left -= rows
            if cursor is None:
                return
            if left is not None and left <= 0:
                typer.echo("there are more: raise --limit, or leave it out for all of the range", err=True)
                return


def _write_binary(api: "Api", path: str, parameters: "Parameters", form: Format, output: Path | None) -> None:
    """Write what the API sends, byte by byte.

    Raises:
        UnavailableError: The answer breaks off; a file is not written then.
    """
    from sens_common.command_line.output import progress
    from sens_common.errors import UnavailableError

    accept, end = _BINARY[form]
    last = b""
    size = 0
    with _opened(output) as file, progress() as tell:
        for chunk in api.chunks(path, parameters, accept=accept):
            file.write(chunk)
            size += len(chunk)
            last = (last + chunk)[-len(end) :]
            tell(f"{size / 1e6:,.1f} MB")
        if last != end:
            raise UnavailableError(
                "the answer of the API broke off: its end is missing, so it is not complete. Ask again"
            )
