"""SenML records, resolved: base fields are applied, times and values added up (RFC 8428, sections 4.1 to 4.6)."""

import re
from collections.abc import Mapping
from decimal import Decimal
from math import isfinite
from typing import Final, NamedTuple

from sens_common.dead_letters import Reason
from sens_common.errors import RejectedMessageError
from sens_common.fields import MAX_VALUES, type_words
from sens_common.names import shown

VERSION: Final = 10
"""RFC 8428, section 4.4: the version that is understood, and what a pack without one has."""

CBOR_LABELS: Final[Mapping[object, str]] = {
    -1: "bver",
    -2: "bn",
    -3: "bt",
    -4: "bu",
    -5: "bv",
    -6: "bs",
    0: "n",
    1: "u",
    2: "v",
    3: "vs",
    4: "vb",
    5: "s",
    6: "t",
    7: "ut",
    8: "vd",
}
"""RFC 8428, section 6, table 6."""

_RELATIVE_BELOW: Final = 2**28  # section 4.5.3
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9\-:./_]*", re.ASCII)  # section 4.5.1
_MAX_NAME_CHARACTERS: Final = 1024
_MAX_MAGNITUDE: Final = 1e12
_VALUES: Final = ("v", "vs", "vb", "vd")
_TYPES: Final[Mapping[str, tuple[tuple[type, ...], str]]] = {
    "bn": ((str,), "a text"),
    "bu": ((str,), "a text"),
    "n": ((str,), "a text"),
    "u": ((str,), "a text"),
    "vs": ((str,), "a text"),
    "vb": ((bool,), "a boolean"),
    **dict.fromkeys(("bt", "bv", "bs", "v", "s", "t", "ut"), ((int, float), "a number")),
    "bver": ((int,), "a whole number"),
    "vd": ((str, bytes), "bytes"),
}


class Reading(NamedTuple):
    """A resolved value or sum.

    Attributes:
        record: In the pack, from 1.
        name: Resolved.
        suffix: Of the metric: `.sum` for a sum, else empty.
        unit: None where there is none.
        time: Microseconds, since the epoch or relative to the receipt; None: the receipt.
        is_relative: Which of both.
        time_text: For people.
        value: A number, boolean or text.
    """

    record: int
    name: str
    suffix: str
    unit: str | None
    time: int | None
    is_relative: bool
    time_text: str
    value: float | bool | str


class _Base:
    """Base fields: they hold for the record that has them and for all behind it."""

    def __init__(self) -> None:
        self.name = ""
        self.unit: str | None = None
        self.time: float = 0
        self.value: float | None = None
        self.sum: float | None = None
        self.version: int | None = None

    def update(self, record: Mapping[str, object]) -> None:
        """Take what a record says, whose members have the right types."""
        self.name = record.get("bn", self.name)  # type: ignore[assignment] # checked
        self.unit = record.get("bu", self.unit)  # type: ignore[assignment] # checked
        self.time = record.get("bt", self.time)  # type: ignore[assignment] # checked
        self.value = record.get("bv", self.value)  # type: ignore[assignment] # checked
        self.sum = record.get("bs", self.sum)  # type: ignore[assignment] # checked
        version = record.get("bver", VERSION if self.version is None else self.version)
        if self.version not in {None, version}:
            raise _malformed(f"bver is {version}, but {self.version} before it; one pack has one version")
        if not 1 <= version <= VERSION:  # type: ignore[operator] # checked
            raise _malformed(f"bver is {version}; versions up to {VERSION} are understood")
        self.version = version  # type: ignore[assignment] # checked


def resolve(pack: object, labels: Mapping[object, str]) -> list[Reading]:
    """Return the readings of a pack.

    Args:
        pack: As parsed.
        labels: Names of members by what stands for them.

    Raises:
        RejectedMessageError: It is not a pack, or a record can't be read; the sentence says which.
    """
    if not isinstance(pack, list) or not pack:
        what = "an empty array" if pack == [] else type_words(pack)
        raise _malformed(f"the message is {what}, not an array of SenML records")
    if len(pack) > MAX_VALUES:
        raise RejectedMessageError(
            Reason.TOO_LARGE, f"the pack has {len(pack)} records; at most {MAX_VALUES} are allowed"
        )
    base = _Base()
    found: list[Reading] = []
    for number, record in enumerate(pack, 1):
        try:
            if not isinstance(record, dict):
                raise _malformed(f"it is {type_words(record)}, not an object")
            members = _members(record, labels)
            base.update(members)
            found += _readings(number, members, base)
        except RejectedMessageError as error:
            raise RejectedMessageError(error.reason, f"record {number}: {error.detail}") from None
    return found


def _members(record: Mapping[object, object], labels: Mapping[object, str]) -> dict[str, object]:
    """Return the members that SenML knows.

    Raises:
        RejectedMessageError: One has the wrong type, or has to be understood (section 4.4) and is not.
    """
    found: dict[str, object] = {}
    for key, value in record.items():
        name = labels.get(key) if type(key) is int else key
        expected = _TYPES.get(name) if isinstance(name, str) else None
        if expected is None:
            if isinstance(name, str) and name.endswith("_"):
                raise _malformed(f"the member {shown(name)} has to be understood, as its underscore says, and is not")
            continue
        assert isinstance(name, str)  # noqa: S101 - a key of the table
        types, words = expected
        if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
            raise _malformed(f"{name} is {type_words(value)}, not {words}")
        if name in found:
            raise _malformed(f"{name} is there twice, as a text and as a label")
        if isinstance(value, float) and not isfinite(value):
            raise RejectedMessageError(
                Reason.UNSUPPORTED_VALUE, f"{name} is {value}, which is not a number; leave out what has no value"
            )
        found[name] = value
    return found


def _readings(number: int, record: Mapping[str, object], base: _Base) -> list[Reading]:
    present = [name for name in _VALUES if name in record]
    if len(present) > 1:
        raise _malformed(f"it has {' and '.join(present)}; a record has one value")
    if "vd" in record:
        raise RejectedMessageError(
            Reason.UNSUPPORTED_VALUE, "vd is a value of bytes, which is not stored; send numbers, booleans or texts"
        )
    has_value = bool(present) or base.value is not None
    has_sum = "s" in record or base.sum is not None
    if not has_value and not has_sum:
        return []
    name = f"{base.name}{record.get('n', '')}"
    if len(name) > _MAX_NAME_CHARACTERS or not _NAME.fullmatch(name):
        raise _malformed(
            f"its name is {shown(name)}; a name, with the base name before it, has letters, digits and - : . / _ and begins with a letter or digit"
        )
    unit = record.get("u", base.unit)
    assert unit is None or isinstance(unit, str)  # noqa: S101 - checked
    time, is_relative, text = _time(record.get("t", 0), base.time)

    def reading(suffix: str, value: object) -> Reading:
        return Reading(number, name, suffix, unit, time, is_relative, text, value)  # type: ignore[arg-type] # checked

    found = []
    if has_value:
        other = present and present[0] != "v"
        found.append(reading("", record[present[0]] if other else _total(record.get("v", 0), base.value)))
    if has_sum:
        found.append(reading(".sum", _total(record.get("s", 0), base.sum)))
    return found


def _total(value: object, base: float | None) -> float:
    """Return both together, as decimal numbers are added: 20.1 and 1.3 are 21.4."""
    assert isinstance(value, (int, float))  # noqa: S101 - checked
    if not base:
        return value
    if isinstance(value, int) and isinstance(base, int):
        return value + base
    return float(_decimal(value) + _decimal(base))


def _time(time: object, base: float) -> tuple[int | None, bool, str]:
    """Return microseconds, whether they are relative to the receipt, and the seconds for people."""
    assert isinstance(time, (int, float))  # noqa: S101 - checked
    if abs(time) > _MAX_MAGNITUDE or abs(base) > _MAX_MAGNITUDE:
        raise RejectedMessageError(Reason.INVALID_TIME, "its time is not one in seconds: it is far too large")
    if isinstance(time, int) and isinstance(base, int):
        seconds = time + base
        return seconds * 1_000_000 or None, seconds < _RELATIVE_BELOW, f"{seconds} s"
    exact = _decimal(time) + _decimal(base)
    return int(exact * 1_000_000) or None, exact < _RELATIVE_BELOW, f"{exact:f} s"


def _decimal(number: float) -> Decimal:
    # The shortest decimal number that reads as this float: what was sent.
    return Decimal(number) if isinstance(number, int) else Decimal(repr(number))


def _malformed(detail: str) -> RejectedMessageError:
    return RejectedMessageError(Reason.MALFORMED_PAYLOAD, detail)
