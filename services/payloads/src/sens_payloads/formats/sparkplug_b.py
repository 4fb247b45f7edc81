"""Sparkplug B: edge nodes of industrial plants and their devices, over MQTT.

Source: Eclipse Sparkplug 3.0.0; its sections are named where they count.

Topics are ``spBv1.0/<group>/<type>/<edge node>[/<device>]`` (section 4.1). A device's name here is group, edge node and device, joined with
dots: ``plant.line1.press7``; `sparkplug_topics.device_name_of` says what becomes of names that have other characters.

- Births (NBIRTH, DBIRTH) and data (NDATA, DDATA) have measurements: metrics of one time are one uplink. A metric's time is its own, else the
  payload's (both in milliseconds).
- Data may name metrics by alias and leave out their datatypes: then the birth tells them (`sparkplug_births`). Where that has not come, the
  message is refused as `unknown_alias` and can be replayed when it has.
- Deaths and states of hosts carry no measurements; commands (NCMD, DCMD) are no measurements of a device.
- ``bdSeq``, ``Node Control/…`` and ``Device Control/…`` are no measurements (sections 4.2 and 6.4.7), null is no value, and transient metrics
  are not meant to be stored.
- Integers of fewer bits come as two's complement of 32 bits or of their own width: both occur.
- Bytes, files, data sets, templates, and arrays, which are packed bytes, are not stored; `Uplink.skipped` counts them.
"""

import sys
from collections.abc import Mapping
from functools import lru_cache
from typing import Final

from msgspec import Struct
from pydantic import BaseModel, ConfigDict

from sens_common.dead_letters import Reason
from sens_common.device_times import EARLIEST, MAX_AHEAD, time_text
from sens_common.errors import RejectedMessageError
from sens_common.fields import MAX_NAME_CHARACTERS, check_name, checked_value
from sens_common.formats import EXACT_BELOW, Value
from sens_common.names import shown
from sens_payloads.formats.sparkplug_births import (
    BD_SEQUENCE,
    NO_BIRTHS,
    Birth,
    Births,
    Death,
    DefinedMetric,
)
from sens_payloads.formats.sparkplug_payload import (
    HISTORICAL,
    NULL,
    TRANSIENT,
    UNREAD,
    Payload,
    Sent,
    read,
)
from sens_payloads.formats.sparkplug_topics import BIRTHS, COMMANDS, DATA, DEATHS, topic_of
from sens_payloads.uplinks import Received, Unwrapped, Uplink, WithoutMeasurements

_NO_VALUE: Final = NULL | TRANSIENT
_NO_METRICS: Final[Mapping[int | None, DefinedMetric]] = {}
_CONTROL: Final = ("Node Control/", "Device Control/")

# Section 6.4.16 "Data Types": numbers that are not negative lie below the first value, those with two's complement below the second.
_INTEGERS: Final = {
    1: (2**7, 2**8),
    2: (2**15, 2**16),
    3: (2**31, 2**32),
    4: (2**63, 2**64),
    5: (2**8, 2**8),
    6: (2**16, 2**16),
    7: (2**32, 2**32),
    8: (2**64, 2**64),
    13: (2**64, 2**64),
}
_FLOATS: Final = frozenset({0, 9, 10})
_BOOLEANS: Final = frozenset({0, 11})
_TEXTS: Final = frozenset({0, 12, 14, 15})
_NOT_STORED: Final = frozenset({16, 17, 18, 19, *range(22, 35)})
_DATATYPES: Final = (
    *(
        "Unknown",
        "Int8",
        "Int16",
        "Int32",
        "Int64",
        "UInt8",
        "UInt16",
        "UInt32",
        "UInt64",
        "Float",
        "Double",
        "Boolean",
    ),
    *("String", "DateTime", "Text", "UUID", "DataSet", "Bytes", "File", "Template", "PropertySet", "PropertySetList"),
)
_MEMBERS: Final = {float: "a fraction", int: "an integer", bool: "a boolean", str: "a text"}
_WIDTHS: Final = (2**32, 2**64)
_LARGEST: Final = sys.float_info.max

_REBIRTH: Final = "let the edge node send its births again (Node Control/Rebirth); what they explain is replayed then"


class Settings(BaseModel):
    """There is nothing to set."""

    model_config = ConfigDict(extra="forbid", frozen=True)


SETTINGS: Final = Settings()


class _Reading(Struct, gc=False):
    """What a publisher says for one time."""

    time: int | None
    historical: bool
    values: dict[str, Value | int]
    skipped: int = 0


def unwrap(received: Received, _settings: Settings, births: Births = NO_BIRTHS) -> Unwrapped:
    """Return the uplinks of a message; see `sens_payloads.uplinks.NetworkFormat.unwrap`.

    Args:
        received: The message.
        births: Those that precede it.
    """
    topic = topic_of(received.topic)
    if topic is None or topic.kind in DEATHS:
        return WithoutMeasurements("event")
    if topic.kind in COMMANDS:
        return WithoutMeasurements("command")
    payload = read(received.body)
    birth = births.of(topic.publisher) if topic.kind in DATA else None
    readings = _readings(payload, birth)
    uplinks = [
        Uplink(
            topic.device,
            None if reading.time is None else _instant(reading.time, received.received_at),
            reading.values,
            historical=reading.historical,
            skipped=reading.skipped,
        )
        for reading in readings
        if reading.values
    ]
    if not uplinks:
        return WithoutMeasurements("skipped" if any(reading.skipped for reading in readings) else "event")
    return uplinks


def birth_in(received: Received) -> Birth | None:
    """Return the birth that a message is, None where it is another one.

    A birth is known even where its values can't be stored.

    Raises:
        RejectedMessageError: The topic is not one of Sparkplug B, or the message no payload; a birth of which two metrics have one alias.
    """
    topic = topic_of(received.topic)
    if topic is None or topic.kind not in BIRTHS:
        return None
    payload = read(received.body)
    metrics: dict[int, DefinedMetric] = {}
    datatypes: dict[str, int] = {}
    bd_seq: int | None = None
    for name, alias, _, datatype, _, value in payload.metrics:
        if not name:
            continue
        if name == BD_SEQUENCE and type(value) is int:
            bd_seq = value
        datatypes[name] = datatype
        if alias is None:
            continue
        known = metrics.setdefault(alias, DefinedMetric(name, datatype))
        if known.name != name:
            raise RejectedMessageError(
                Reason.MALFORMED_PAYLOAD,
                f"{shown(known.name)} and {shown(name)} have the alias {alias}; an alias is that of one metric of an edge node",
            )
    return Birth(topic.publisher, payload.timestamp, bd_seq, metrics, datatypes)


def announced_in(received: Received) -> Birth | Death | None:
    """Return the birth or the death that a message is, None where it is another one; raises as `birth_in`."""
    topic = topic_of(received.topic)
    if topic is None or topic.kind not in DEATHS:
        return birth_in(received)
    if topic.publisher.device:
        return Death(topic.publisher, None)
    numbers = [value for name, _, _, _, _, value in read(received.body).metrics if name == BD_SEQUENCE]
    return Death(topic.publisher, next((number for number in numbers if type(number) is int), None))


def _readings(payload: Payload, birth: Birth | None) -> list[_Reading]:
    readings = _Readings()
    aliases: Mapping[int | None, DefinedMetric] = birth.metrics if birth is not None else _NO_METRICS  # type: ignore[assignment] # None is none of them
    time = historical = values = None  # of the reading that the metric before was added to
    for sent_name, alias, sent_time, sent_datatype, flags, value in payload.metrics:
        if sent_name and sent_datatype:
            name, datatype = sent_name, sent_datatype
        elif not sent_name and (defined := aliases.get(alias)) is not None:
            name, datatype = defined
            datatype = sent_datatype or datatype
        else:
            name, datatype = _defined(birth, sent_name, alias, sent_datatype)
        if flags & _NO_VALUE or not _is_measured(name):
            continue
        at = payload.timestamp if sent_time is None else sent_time
        if values is None or at != time or flags & HISTORICAL != historical or name in values:
            time, historical = at, flags & HISTORICAL
            values = readings.values_for(name, time, historical)
        if flags & UNREAD or datatype in _NOT_STORED:
            readings.skip()
        elif value is not None:
            values[name] = _value(name, datatype, value)
    return readings.all


class _Readings:
    """The readings of a message, in the order in which their first metrics come."""

    def __init__(self) -> None:
        self.all: list[_Reading] = []
        self._latest: dict[tuple[int | None, int], _Reading] = {}
        self._current = _Reading(None, False, {})

    def values_for(self, name: str, time: int | None, historical: int) -> dict[str, Value | int]:
        """Return where a value of this time belongs. A second value of a name has a reading of its own: storing compares them."""
        key = (time, historical)
        reading = self._latest.get(key)
        if reading is None or name in reading.values:
            reading = self._latest[key] = _Reading(time, historical != 0, {})
            self.all.append(reading)
        self._current = reading
        return reading.values

    def skip(self) -> None:
        """Count a value of the current reading that is not stored."""
        self._current.skipped += 1


@lru_cache(maxsize=16_384)
def _is_measured_name(name: str) -> bool:
    check_name(name)
    return name != BD_SEQUENCE and not name.startswith(_CONTROL)


def _is_measured(name: str) -> bool:
    """Tell whether a metric of this name is a measurement.

    Raises:
        RejectedMessageError: A metric can't have this name.
    """
    if len(name) > MAX_NAME_CHARACTERS:
        check_name(name)
    return _is_measured_name(name)


def _defined(birth: Birth | None, name: str | None, alias: int | None, datatype: int) -> tuple[str, int]:
    """Return name and datatype of a metric of which the birth has to tell one of them."""
    if name:
        return name, birth.datatypes.get(name, 0) if birth is not None else 0
    if alias is None:
        raise RejectedMessageError(
            Reason.MALFORMED_PAYLOAD, "a metric has neither name nor alias; let the edge node send one of them"
        )
    defined = birth.metrics.get(alias) if birth is not None else None
    if defined is None:
        problem = (
            f"whose birth has not come; {_REBIRTH}"
            if birth is None
            else "which is not in the birth before it: the edge node names what it has not announced"
        )
        raise RejectedMessageError(Reason.UNKNOWN_ALIAS, f"a metric is named by the alias {alias} alone, {problem}")
    return defined.name, datatype or defined.datatype


def _value(name: str, datatype: int, value: Sent) -> Value | int:
    """Return a metric's value as its datatype means it."""
    if isinstance(value, float):
        if datatype in _FLOATS:
            return value if -_LARGEST <= value <= _LARGEST else checked_value(name, value)
    elif isinstance(value, bool):
        if datatype in _BOOLEANS:
            return value
    elif isinstance(value, int):
        if (bounds := _INTEGERS.get(datatype)) is not None:
            return _integer(name, datatype, value, *bounds)
        if not datatype:
            raise RejectedMessageError(
                Reason.UNKNOWN_ALIAS,
                f"{shown(name)} is an integer without its datatype, which only its birth tells; {_REBIRTH}",
            )
    elif datatype in _TEXTS:
        return checked_value(name, value)
    kind = _DATATYPES[datatype] if datatype < len(_DATATYPES) else f"number {datatype}"
    raise RejectedMessageError(
        Reason.MALFORMED_PAYLOAD,
        f"{shown(name)} has the datatype {kind}, but its value is {_MEMBERS[type(value)]}; these do not fit each other",
    )


def _integer(name: str, datatype: int, value: int, positive_below: int, below: int) -> Value | int:
    number = value
    if value >= positive_below:
        # Two's complement of the type's own width, of 32 or of 64 bits.
        width = next((width for width in (below, *_WIDTHS) if width - below + positive_below <= value < width), 0)
        if positive_below == below or not width:
            raise RejectedMessageError(
                Reason.MALFORMED_PAYLOAD, f"{shown(name)} is {value}, which no {_DATATYPES[datatype]} can be"
            )
        number = value - width
    return float(number) if -EXACT_BELOW < number < EXACT_BELOW else checked_value(name, number)


def _instant(milliseconds: int, received_at: int) -> int:
    instant = milliseconds * 1000
    if EARLIEST <= instant <= received_at + MAX_AHEAD:
        return instant
    problem = "before 2000" if instant < EARLIEST else f"more than a day after the receipt at {time_text(received_at)}"
    raise RejectedMessageError(
        Reason.IMPLAUSIBLE_TIME,
        f"the time {milliseconds} ms is {time_text(instant)}, {problem}: is the clock of the edge node set?",
    )
