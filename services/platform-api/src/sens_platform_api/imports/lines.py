"""Lines of an import: what each would be stored as, or why it can't be. Pure functions."""

from collections.abc import Mapping
from typing import Final, NamedTuple, Protocol

import orjson

from sens_common import strict_json
from sens_common.dead_letters import Reason
from sens_common.device_times import measured_at
from sens_common.errors import RejectedMessageError
from sens_common.fields import MAX_PAYLOAD_BYTES, flatten
from sens_common.formats import Value
from sens_common.names import device_name
from sens_common.topics import NATIVE_PATTERN, SOURCES
from sens_payloads.sources import Source
from sens_payloads.uplinks import Received, Uplink, WithoutMeasurements

_TIME: Final = "ts"
_DAY_MICROSECONDS: Final = 86_400_000_000


class Bounds(NamedTuple):
    """What holds for imports of a tenant.

    Attributes:
        late_days: How many days before their receipt readings may lie.
        messages_per_second: So many messages it may send, None for no limit.
    """

    late_days: int
    messages_per_second: int | None


class Line(NamedTuple):
    """A line of a file.

    Attributes:
        number: From 1, as editors count.
        device: Name of the device of a native payload; None for a line of a source.
        payload: A native payload, or a message of the source.
    """

    number: int
    device: str | None
    payload: bytes


class Reading(NamedTuple):
    """What a device measured at one time.

    Attributes:
        device: Canonical name.
        measured_at: Microseconds since the epoch.
        values: Of a native payload by the names of metrics; of a source by those of fields, None where a codec has to decode them.
    """

    device: str
    measured_at: int
    values: Mapping[str, Value | int] | None


class Message(NamedTuple):
    """A line as it goes into the stream.

    Attributes:
        line: Its number.
        topic: Of the stream.
        payload: Its bytes.
        readings: None of a message that carries no measurements by its nature.
    """

    line: int
    topic: str
    payload: bytes
    readings: list[Reading] | None


class Reader(Protocol):
    """Reads lines."""

    def read(self, line: Line, received_at: int) -> Message:
        """Return a line as it goes into the stream.

        Raises:
            RejectedMessageError: It can't be stored.
        """


class NativeReader:
    """Reads native payloads of one object each, which tell their own time in ``ts``."""

    def __init__(self, tenant: str) -> None:
        self._tenant = tenant

    def read(self, line: Line, received_at: int) -> Message:
        """See `Reader.read`."""
        device = device_name(line.device or "")
        if device is None:
            raise RejectedMessageError(Reason.INVALID_TOPIC, f"no device can be called {line.device!r:.80}")
        if len(line.payload) > MAX_PAYLOAD_BYTES:
            raise RejectedMessageError(
                Reason.TOO_LARGE, f"it has {len(line.payload)} bytes; at most {MAX_PAYLOAD_BYTES} are allowed"
            )
        try:
            members = orjson.loads(line.payload)
        except orjson.JSONDecodeError as error:
            raise strict_json.rejection(line.payload, error) from None
        if type(members) is not dict or _TIME not in members:
            raise RejectedMessageError(
                Reason.INVALID_TIME,
                "a line is a JSON object with its time in ts; without a time, a history can't be stored",
            )
        instant = measured_at(members.pop(_TIME), received_at)
        values = flatten({name: value for name, value in members.items() if value is not None})
        if not values:
            raise RejectedMessageError(Reason.MALFORMED_PAYLOAD, "it has no value beside its time")
        return Message(
            line.number, NATIVE_PATTERN.topic(self._tenant, device), line.payload, [Reading(device, instant, values)]
        )


class SourceReader:
    """Reads messages of a source that tell their own time."""

    def __init__(self, tenant: str, source: Source, published: str | None) -> None:
        """Store whose they are.

        Args:
            tenant: Name of the tenant.
            source: Of the tenant.
            published: The MQTT topic that the messages would have been published to; None for HTTP.
        """
        self._source = source
        self._topic = SOURCES.topic(tenant, source.name, published)
        self._published = published or ""

    def read(self, line: Line, received_at: int) -> Message:
        """See `Reader.read`."""
        unwrapped = self._source.unwrap(Received(line.payload, received_at, self._published))
        if isinstance(unwrapped, WithoutMeasurements):
            return Message(line.number, self._topic, line.payload, None)
        return Message(line.number, self._topic, line.payload, [_reading(uplink) for uplink in unwrapped])


def _reading(uplink: Uplink) -> Reading:
    if uplink.measured_at is None:
        raise RejectedMessageError(
            Reason.INVALID_TIME,
            f"what it says of device {uplink.device} has no time of its own; without one, a history can't be stored",
        )
    return Reading(uplink.device, uplink.measured_at, uplink.fields)


def check_late(message: Message, received_at: int, late_days: int, tenant: str) -> None:
    """Look that a tenant takes readings as old as a line's.

    Raises:
        RejectedMessageError: One is older.
    """
    oldest = min((reading.measured_at for reading in message.readings or ()), default=received_at)
    if received_at - oldest > late_days * _DAY_MICROSECONDS:
        raise RejectedMessageError(
            Reason.TOO_OLD,
            f"its time is more than {late_days:,} days ago, and tenant {tenant} takes nothing older; an operator allows it for the time of an"
            f" import: sens tenants limits {tenant} --import-late-days N",
        )
