"""What commands print: tables for people, JSON for scripts."""

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Final

from sens_common.command_line.tables import print_rows

MILLISECOND: Final = 1000
"""Microseconds."""


def print_json(document: object) -> None:
    """Print one JSON document."""
    sys.stdout.write(json_text(document))


def json_text(document: object) -> str:
    """Return a JSON document as `print_json` prints it."""
    return json.dumps(document, indent=2, ensure_ascii=False, default=_time_text) + "\n"


def print_json_line(document: object) -> None:
    """Print a JSON document in one line, at once."""
    sys.stdout.write(json.dumps(document, ensure_ascii=False, separators=(",", ":")) + "\n")
    sys.stdout.flush()


def _time_text(value: object) -> str:
    """Return a time as the API writes it (RFC 3339)."""
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    raise TypeError(f"{type(value).__name__} has no form in JSON")


@contextmanager
def progress() -> Iterator[Callable[[str], None]]:
    """Show how far something is, while the context is open: one line that changes, where standard error is a terminal."""
    if not sys.stderr.isatty():
        yield lambda _text: None
        return
    from rich.console import Console  # noqa: PLC0415 - only where somebody watches

    with Console(stderr=True, highlight=False).status("") as status:
        yield status.update


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, empty: str) -> None:
    """Print a table; the text for when it has no rows says so."""
    shown = [[show(cell) for cell in row] for row in rows]
    if shown:
        print_rows([columns, *shown], bold_header=True)
    elif empty:
        sys.stdout.write(empty + "\n")


def print_pairs(pairs: Iterable[tuple[str, object]]) -> None:
    """Print names and values, one a line."""
    print_rows([(name, show(value)) for name, value in pairs], bold_first_column=True)


def short_time(time: datetime | str | None, *, utc: bool = False) -> str:
    """Return a time as people read it: to the second or, where there are any, to the millisecond.

    Args:
        time: A time, or its text as the API writes it (RFC 3339); None stays a dash.
        utc: In UTC, marked with Z; else in this machine's time zone.
    """
    if time is None:
        return show(None)
    try:
        at = (datetime.fromisoformat(time) if isinstance(time, str) else time).astimezone(UTC if utc else None)
    except ValueError:
        return show(time)
    exact = "seconds" if at.microsecond < MILLISECOND else "milliseconds"
    return at.replace(tzinfo=None).isoformat(" ", exact) + ("Z" if utc else "")


def show(value: object) -> str:
    """Return a value as people read it; control characters of foreign texts are shown, not sent to the terminal."""
    match value:
        case None:
            return "-"
        case bool():
            return "true" if value else "false"
        case float():
            return f"{value:.10g}"
        case str():
            return "".join(character if character.isprintable() else repr(character)[1:-1] for character in value)
        case _:
            return str(value)
