r"""Lines of InfluxDB's line protocol, read strictly.

Source: InfluxDB OSS v2 documentation, "Line protocol": escapes are ``\,``, ``\=`` and ``\ `` in names and tags, ``\"`` and ``\\`` in texts; any
other backslash is one. A text may go over several lines. Numbers are floats, ``1i`` is an integer, ``1u`` one without a sign. What InfluxDB
takes and loses (the second of two equal fields or tags) is refused.
"""

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Final, NamedTuple

from sens_common.dead_letters import Reason
from sens_common.errors import RejectedMessageError
from sens_common.fields import checked_value
from sens_common.formats import Value
from sens_common.names import shown

_BLANK: Final = re.compile(r"(?:[ \t\r\n]+|#[^\n]*(?:\n|$))*")
_MEASUREMENT: Final = r"(?:[^\\, \n]|\\[^\n])+"
_KEY: Final = r"(?:[^\\,= \n]|\\[^\n])+"
_HEAD: Final = re.compile(rf"({_MEASUREMENT}(?:,{_KEY}={_KEY})*)(?:$|(?=[ \n]))")
_TAG: Final = re.compile(rf",({_KEY})=({_KEY})")
_NAME: Final = re.compile(_MEASUREMENT)
_FIELD: Final = re.compile(rf'({_KEY})=(?:"((?:[^"\\]|\\.)*)"|([^", \n]+))', re.DOTALL)
_GAP: Final = re.compile(r" +")
_TIME: Final = re.compile(r"-?\d{1,20}(?=[ \r\n]|$)", re.ASCII)
_END: Final = re.compile(r" *\r?(?:\n|$)")
_ESCAPE: Final = re.compile(r"\\([,= ])")
_MEASUREMENT_ESCAPE: Final = re.compile(r"\\([, ])")
_TEXT_ESCAPE: Final = re.compile(r'\\(["\\])')
_FLOAT: Final = re.compile(r"-?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)
_INTEGER: Final = re.compile(r"(-?\d{1,20})([iu])", re.ASCII)
_BOOLEANS: Final = dict.fromkeys(("t", "T", "true", "True", "TRUE"), True) | dict.fromkeys(
    ("f", "F", "false", "False", "FALSE"), False
)
_MAX_REMEMBERED: Final = 4096
_LONGEST_NUMBER: Final = 400


class Line(NamedTuple):
    """One line.

    Attributes:
        number: In the message, from 1; where it begins.
        measurement: Its name.
        tags: Names and values.
        fields: Values by name, at least one.
        time: As sent, None where there is none.
    """

    number: int
    measurement: str
    tags: tuple[tuple[str, str], ...]
    fields: dict[str, Value | int]
    time: int | None


def lines(body: bytes) -> Iterator[Line]:
    """Yield the lines of a message; comments and empty ones are left out.

    Raises:
        RejectedMessageError: A line can't be read; the sentence names line and column.
    """
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise RejectedMessageError(
            Reason.MALFORMED_PAYLOAD, f"the message is not UTF-8: byte {error.start + 1} is 0x{body[error.start]:02x}"
        ) from None
    position, number, counted = 0, 1, 0
    while True:
        position = _BLANK.match(text, position).end()  # type: ignore[union-attr] # it matches nothing as well
        if position == len(text):
            return
        number, counted = number + text.count("\n", counted, position), position
        line, position = _line(text, position, number)
        yield line


def _line(text: str, start: int, number: int) -> tuple[Line, int]:
    head = _HEAD.match(text, start)
    if head is None:
        raise _error(
            text, _where_head_ends(text, start), "here a measurement or a tag is expected, such as weather,station=roof"
        )
    try:
        measurement, tags = _series(head[1])
    except ValueError as error:
        raise _error(text, start, str(error)) from None
    gap = _GAP.match(text, head.end())
    if gap is None:
        raise _error(text, head.end(), "the line has no field; write one behind a space, such as temperature=21.5")
    fields, position = _fields(text, gap.end())
    gap = _GAP.match(text, position)
    time = _TIME.match(text, gap.end()) if gap is not None else None
    if time is not None:
        position = time.end()
    end = _END.match(text, position)
    if end is None:
        at = gap.end() if gap is not None and time is None else position
        raise _error(text, at, "here a time as a whole number or the end of the line is expected")
    return Line(number, measurement, tags, fields, int(time[0]) if time is not None else None), end.end()


def _fields(text: str, position: int) -> tuple[dict[str, Value | int], int]:
    fields: dict[str, Value | int] = {}
    while True:
        field = _FIELD.match(text, position)
        if field is None:
            raise _error(text, position, 'here a field is expected, such as temperature=21.5 or state="on"')
        key, quoted, bare = field.groups()
        name = _ESCAPE.sub(r"\1", key) if "\\" in key else key
        if name in fields:
            raise _error(text, position, f"the field {shown(name)} is there twice")
        if quoted is not None:
            fields[name] = checked_value(name, _TEXT_ESCAPE.sub(r"\1", quoted) if "\\" in quoted else quoted)
        else:
            fields[name] = _bare_value(text, field.start(3), name, bare)
        position = field.end()
        if not text.startswith(",", position):
            return fields, position
        position += 1


def _bare_value(text: str, position: int, name: str, bare: str) -> Value | int:
    bare = bare.removesuffix("\r") if text.startswith("\n", position + len(bare)) else bare
    if len(bare) <= _LONGEST_NUMBER and _FLOAT.fullmatch(bare):
        return checked_value(name, float(bare))
    integer = _INTEGER.fullmatch(bare)
    if integer is not None and not (integer[2] == "u" and bare.startswith("-")):
        return checked_value(name, int(integer[1]))
    if bare in _BOOLEANS:
        return _BOOLEANS[bare]
    raise _error(
        text,
        position,
        f"{shown(bare)} is not a value; a number is 21.5 or 21i, a boolean t or f, and a text has double quotes",
    )


@lru_cache(maxsize=_MAX_REMEMBERED)
def _series(head: str) -> tuple[str, tuple[tuple[str, str], ...]]:
    """Return a line's measurement and its tags.

    Raises:
        ValueError: A tag is there twice.
    """
    name = _NAME.match(head)
    assert name is not None  # noqa: S101 - the head matched
    tags = tuple((_ESCAPE.sub(r"\1", key), _ESCAPE.sub(r"\1", value)) for key, value in _TAG.findall(head, name.end()))
    seen: set[str] = set()
    for key, _ in tags:
        if key in seen:
            raise ValueError(f"the tag {shown(key)} is there twice")
        seen.add(key)
    return _MEASUREMENT_ESCAPE.sub(r"\1", name[0]), tags


def _where_head_ends(text: str, start: int) -> int:
    """Return where a measurement with its tags can't be read any further."""
    match = _NAME.match(text, start)
    while match is not None:
        start = match.end()
        match = _TAG.match(text, start)
    return start


def _error(text: str, position: int, problem: str) -> RejectedMessageError:
    line = text.count("\n", 0, position) + 1
    column = position - text.rfind("\n", 0, position)
    return RejectedMessageError(Reason.MALFORMED_PAYLOAD, f"line {line} column {column}: {problem}")
