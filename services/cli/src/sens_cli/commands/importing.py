"""``sens import``: histories from files, through the stream like everything else."""

from collections.abc import Callable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, TextIO

import typer

from sens_cli.options import ApiKey, ApiUrl
from sens_common.command_line.options import DataDir

if TYPE_CHECKING:
    from sens_cli.importing.files import Line
    from sens_cli.importing.sending import RefusedLine

_SHOWN_REFUSALS: Final = 20
_DRY_LINES: Final = 20


class FileFormat(StrEnum):
    """What a file holds."""

    CSV = "csv"
    JSON_LINES = "jsonl"


_OF_SUFFIX: Final = {".csv": FileFormat.CSV, ".jsonl": FileFormat.JSON_LINES, ".ndjson": FileFormat.JSON_LINES}


def import_file(  # noqa: PLR0917 - typer calls it with keywords
    data_dir: DataDir,
    file: Annotated[
        Path, typer.Argument(help="The file; it may be compressed with gzip.", dir_okay=False, show_default=False)
    ],
    source: Annotated[
        str | None,
        typer.Option(
            help="Each line is a message of this source: line protocol, JSON … It says the format.", show_default=False
        ),
    ] = None,
    topic: Annotated[
        str | None, typer.Option(help="MQTT topic that the source's messages were published to.", show_default=False)
    ] = None,
    form: Annotated[
        FileFormat | None, typer.Option("--format", "-f", help="What the file holds. (default: by its name)")
    ] = None,
    csv: Annotated[bool, typer.Option("--csv", help="The same as --format csv.")] = False,
    device: Annotated[str | None, typer.Option(help="The device of all lines.", show_default=False)] = None,
    device_column: Annotated[
        str, typer.Option(help="Column of CSV, or member of a JSON object, that names the device.")
    ] = "device",
    time_column: Annotated[
        str | None,
        typer.Option(help="Column of CSV with the time. (default: ts, time or timestamp)", show_default=False),
    ] = None,
    mapping: Annotated[
        list[str] | None,
        typer.Option(
            "--map", help="METRIC=COLUMN of CSV; may be repeated. (default: each other column under its name)"
        ),
    ] = None,
    tz: Annotated[str | None, typer.Option(help="Zone of times of CSV that name none: Europe/Vienna, UTC.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the first rows as they would be stored.")] = False,
    state: Annotated[
        Path | None,
        typer.Option(help="Where it is kept how far the import is. (default: FILE.import)", show_default=False),
    ] = None,
    errors: Annotated[
        Path | None, typer.Option(help="Write lines that are not imported here, as JSON lines.", show_default=False)
    ] = None,
    api_url: ApiUrl = None,
    api_key: ApiKey = None,
) -> None:
    """Import a history. It goes on where it was when it is called again.

    Each line tells its own time. Lines that are stored already are duplicates: to import a file twice has no effect.

    \b
    sens import history.csv --csv --device sensor-0001 --map temperature='T [C]' --dry-run
    sens import export.csv.gz --csv
    sens import backlog.jsonl --device-column id
    sens import influx.lp.gz --source influx
    """
    from sens_cli.api import Api
    from sens_cli.importing.files import opened
    from sens_cli.importing.progress import identity_of, read_progress
    from sens_cli.importing.sending import Target, send_lines
    from sens_cli.target import find_target
    from sens_common.command_line.output import progress as told_progress

    if topic is not None and source is None:
        raise typer.BadParameter("--topic is of a source's messages: name the --source")
    kind = _kind(file, FileFormat.CSV if csv else form, source)
    read = _reader(kind, source, device, device_column, time_column, mapping or [], tz)
    api = Api(find_target(data_dir, api_url, api_key))
    target = Target(source, topic)
    if dry_run:
        with opened(file) as text:
            _print_readings(api, read(text), target)
        return
    options = {
        "url": api_url, "source": source, "topic": topic, "kind": kind, "device": device, "device_column": device_column,
        "time": time_column, "map": mapping, "tz": tz,
    }  # fmt: skip
    kept = state or file.with_name(f"{file.name}.import")
    progress = read_progress(kept, identity_of(file, options))
    if progress.complete:
        typer.echo(f"{file} is imported: {_summary(progress)}; delete {kept} to import it again")
        return
    if progress.lines:
        typer.echo(f"going on after {progress.lines:,} lines", err=True)
    told = _Refusals(errors)
    with opened(file) as text, told_progress() as tell:
        rate = _Rate(progress.lines)
        send_lines(
            api, read(text), target, progress, kept, refused=told.add,
            tell=lambda now: tell(f"{_summary(now)}; {rate.of(now.lines):,.0f} lines a second"),
        )  # fmt: skip
    told.end()
    typer.echo(f"{file} is imported: {_summary(progress)}")
    if progress.refused:
        raise typer.Exit(1)


def _kind(file: Path, form: FileFormat | None, source: str | None) -> FileFormat | None:
    """Return what the file holds, None for messages of a source."""
    if source is not None:
        if form is not None:
            raise typer.BadParameter("the source says what the lines are; leave --format and --csv out")
        return None
    by_name = _OF_SUFFIX.get(Path(file.name.removesuffix(".gz")).suffix.lower())
    if form is None and by_name is None:
        raise typer.BadParameter(
            f"what {file} holds is not clear; add --csv, --format jsonl, or the --source whose messages the lines are"
        )
    return form or by_name


def _reader(  # noqa: PLR0917 - as the command has them
    kind: FileFormat | None,
    source: str | None,
    device: str | None,
    device_column: str,
    time_column: str | None,
    mapping: list[str],
    tz: str | None,
) -> "Callable[[TextIO], Iterator[Line]]":
    from functools import partial
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

    from sens_cli.importing.files import Columns, csv_lines, json_lines, message_lines

    if source is not None and (device is not None or mapping):
        raise typer.BadParameter(
            "the source says which device and metrics the lines have; leave --device and --map out"
        )
    if kind is None:
        return message_lines
    if kind is FileFormat.JSON_LINES:
        if mapping:
            raise typer.BadParameter("--map is for CSV; the members of JSON lines are the metrics")
        return partial(json_lines, device=device, device_member=device_column)
    metrics = {}
    for each in mapping:
        metric, equals, column = each.partition("=")
        if not (metric and equals and column):
            raise typer.BadParameter(f"{each!r} is no mapping; write METRIC=COLUMN, for example temperature='T [C]'")
        metrics[metric] = column
    try:
        zone = None if tz is None else ZoneInfo(tz)
    except (ZoneInfoNotFoundError, ValueError):
        raise typer.BadParameter(f"there is no time zone {tz}") from None
    return partial(csv_lines, columns=Columns(time_column, device, device_column, metrics, zone))


def _print_readings(api: Any, lines: "Iterator[Line]", target: Any) -> None:
    """Show the first lines as they would be stored."""
    from itertools import islice

    from sens_cli.importing.sending import document
    from sens_common.command_line.output import print_table, short_time

    first = list(islice(lines, _DRY_LINES))
    for line in first:
        if line.refusal is not None:
            typer.echo(f"line {line.number}: {line.refusal}", err=True)
    readable = [line for line in first if line.refusal is None]
    found = (
        api.post_document("imports", document("dry run", target, readable, dry_run=True))
        if readable
        else {"rows": [], "refused": []}
    )
    for each in found["refused"]:
        typer.echo(f"line {each['line']}: {each['reason']}: {each['detail']}", err=True)
    rows = [
        (row["line"], row["device"], short_time(row["time"], utc=True), row["metric"], row["value"])
        for row in found["rows"]
    ]
    print_table(("LINE", "DEVICE", "TIME", "METRIC", "VALUE"), rows, empty="nothing of the first lines would be stored")
    typer.echo("nothing is stored: this was a dry run", err=True)


class _Rate:
    """How fast an import goes."""

    def __init__(self, lines: int) -> None:
        import time

        self._clock = time.monotonic
        self._began, self._before = time.monotonic(), lines

    def of(self, lines: int) -> float:
        """Return how many lines a second were done since the beginning."""
        return (lines - self._before) / max(self._clock() - self._began, 1e-3)


class _Refusals:
    """Tells lines that are not imported: the first ones on standard error, all of them in a file where there is one."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._count = 0

    def add(self, refused: "RefusedLine") -> None:
        import json

        self._count += 1
        if self._count <= _SHOWN_REFUSALS:
            typer.echo(f"line {refused.line}: {refused.reason}: {refused.detail}", err=True)
        if self._path is not None:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(refused._asdict(), ensure_ascii=False) + "\n")

    def end(self) -> None:
        if self._count > _SHOWN_REFUSALS:
            where = f"; all are in {self._path}" if self._path is not None else "; --errors FILE keeps all of them"
            typer.echo(f"and {self._count - _SHOWN_REFUSALS:,} more lines{where}", err=True)


def _summary(progress: Any) -> str:
    return f"{progress.lines:,} lines, {progress.accepted:,} accepted, {progress.refused:,} refused"
