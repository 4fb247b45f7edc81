"""Server-sent events (WHATWG HTML, section "Server-sent events") as the API writes them."""

import json
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple


class Event(NamedTuple):
    """One event and its JSON document."""

    name: str
    data: dict[str, Any]


def events(lines: Iterable[str], *, idle: bool = False) -> Iterator[Event]:
    """Yield the events of a stream; what is no JSON object is left out.

    Args:
        lines: Of the stream.
        idle: Yield an event ``idle`` without data for each comment: that is how a server shows that it is there.
    """
    name, data = "message", []
    for line in lines:
        if line:
            field, _separator, value = line.partition(":")
            value = value.removeprefix(" ")
            if not field and idle:
                yield Event("idle", {})
            elif field == "event":
                name = value
            elif field == "data":
                data.append(value)
            continue
        document = _document("\n".join(data))
        if document is not None:
            yield Event(name, document)
        name, data = "message", []


def _document(text: str) -> dict[str, Any] | None:
    try:
        document = json.loads(text)
    except ValueError:
        return None
    return document if isinstance(document, dict) else None
