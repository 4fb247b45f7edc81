"""Lines of files that are imported: text or gzip, CSV, JSON lines, or messages of a source."""

import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Final, NamedTuple, TextIO
from zoneinfo import ZoneInfo

from sens_common.errors import SettingsError, words_of

_GZIP: Final = b"\x1f\x8b"  # RFC 1952, section 2.3.1
_TIME_NAMES: Final = ("ts", "time", "timestamp")
_WORDS: Final = {"true": True, "false": False}
MOST_LINE_CHARACTERS: Final = 262_144


class Line(NamedTuple):
    """A line of a file.

    Attributes:
        number: From 1, as editors count; of CSV, the last line of the record.
        device: None for messages of a source.
        payload: What goes to the API.
        refusal: Why it is not sent, None where it is.
    """

    number: int
    device: str | None
    payload: str
    refusal: str | None = None


@contextmanager
def opened(path: Path) -> Iterator[TextIO]:
    """Give the text of a file, which may be compressed with gzip.

    Raises:
        SettingsError: It can't be read.
    """
    try:
        with path.open("rb") as raw:
            is_gzip = raw.read(len(_GZIP)) == _GZIP
            raw.seek(0)
            with gzip.open(raw) if is_gzip else raw as data:
                yield io.TextIOWrapper(data, "utf-8-sig", newline="")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} can't be read: {words_of(error)}") from error


class Columns(NamedTuple):
    """What the columns of CSV are.

    Attributes:
        time: Name of the column with the time; None: ts, time or timestamp.
        device: The device of all rows, or None.
        device_column: Name of the column with the device.
        metrics: Columns by the names of their metrics; empty: all others.
        zone: Of times without a zone, None where there are none.
    """

    time: str | None = None
    device: str | None = None
    device_column: str | None = None
    metrics: Mapping[str, str] = {}
    zone: ZoneInfo | None = None


def csv_lines(text: TextIO, columns: Columns) -> Iterator[Line]:
    """Yield the rows of CSV (RFC 4180) as native payloads. Lines that begin with # are left out.

    A table with the columns metric and value, as ``sens measurements --csv`` writes it, has one value a row.

    Raises:
        SettingsError: A column is missing.
    """
    reader = csv.reader(text)
    header = next(reader, None)
    if header is None:
        raise SettingsError("the file is empty")
    time, device, metrics, is_long = _find_columns(header, columns)
    while True:
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield Line(reader.line_num, columns.device, "", f"it is no CSV: {error}")
            continue
        if not row or row[0].startswith("#"):
            continue
        if len(row) < len(header):
            yield Line(reader.line_num, columns.device, "", f"it has {len(row)} cells, and the header {len(header)}")
            continue
        if is_long:
            values = {row[metrics["metric"]]: _value(row[metrics["value"]])}
        else:
            values = {name: _value(row[index]) for name, index in metrics.items()}
        values = {name: value for name, value in values.items() if value is not None}
        payload = {"ts": _time(row[time], columns.zone)} | values
        yield Line(reader.line_num, columns.device or row[device], json.dumps(payload, ensure_ascii=False))


def _find_columns(header: Sequence[str], columns: Columns) -> tuple[int, int, dict[str, int], bool]:
    """Return the indexes of time, device and metrics, and whether the table has one value a row."""
    index = {name.strip(): position for position, name in enumerate(header)}

    def find(name: str) -> int:
        if name not in index:
            raise SettingsError(f"the file has no column {name}; it has {', '.join(index)}")
        return index[name]

    time_name = columns.time or next((name for name in _TIME_NAMES if name in index), "time")
    time = find(time_name)
    device_name = columns.device_column or "device"
    device = 0 if columns.device else find(device_name)
    if not columns.metrics and {"metric", "value"} <= index.keys():
        return time, device, {"metric": index["metric"], "value": index["value"]}, True
    if columns.metrics:
        return time, device, {metric: find(column) for metric, column in columns.metrics.items()}, False
    return (
        time,
        device,
        {name: at for name, at in index.items() if name not in {time_name, device_name} and name},
        False,
    )


def _value(cell: str) -> float | bool | str | None:
    """Return a cell as a value: a number, true or false, a text; None where it is empty."""
    text = cell.strip()
    if not text:
        return None
    if text in _WORDS:
        return _WORDS[text]
    try:
        number = float(text)
    except ValueError:
        return cell
    # What JSON has no form for stays a text; digits in other scripts, and 1_000, are no numbers to others.
    return number if number - number == 0 and text.isascii() and "_" not in text else cell


def _time(cell: str, zone: ZoneInfo | None) -> float | int | str:
    """Return a time as a native payload tells it: an epoch, or RFC 3339."""
    text = cell.strip()
    try:
        return int(text)
    except ValueError:
        pass
    try:
        return float(text)
    except ValueError:
        pass
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return text  # the API says what is wrong with it
    if moment.tzinfo is None:
        if zone is None:
            return text
        moment = moment.replace(tzinfo=zone)
    return moment.isoformat()


def json_lines(text: TextIO, device: str | None, device_member: str) -> Iterator[Line]:
    """Yield the lines of a file that are native payloads; each names its device in a member, where it is not that of all lines."""
    for number, line in enumerate(text, 1):
        if not line.strip():
            continue
        if len(line) > MOST_LINE_CHARACTERS:
            yield Line(number, device, "", "it is too long")
            continue
        if device is not None:
            yield Line(number, device, line.strip())
            continue
        try:
            members: Any = json.loads(line)
        except ValueError as error:
            yield Line(number, None, "", f"it is no JSON: {error}")
            continue
        name = members.pop(device_member, None) if isinstance(members, dict) else None
        if not isinstance(name, str):
            yield Line(number, None, "", f"it names no device: a member {device_member} is needed, or --device")
            continue
        yield Line(number, name, json.dumps(members, ensure_ascii=False))


def message_lines(text: TextIO) -> Iterator[Line]:
    """Yield the lines of a file that are messages of a source; empty ones, and comments as line protocol has them, are left out."""
    for number, line in enumerate(text, 1):
        message = line.rstrip("\r\n")
        if not message.strip() or message.startswith("#"):
            continue
        if len(message) > MOST_LINE_CHARACTERS:
            yield Line(number, None, "", "it is too long")
            continue
        yield Line(number, None, message)
