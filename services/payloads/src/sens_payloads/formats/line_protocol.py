"""InfluxDB's line protocol: ``weather,station=roof temperature=21.5,open=f 1788508800000000000``.

Source: InfluxDB OSS v2 documentation, "Line protocol". A line is a measurement, its tags, its fields and a time; lines that begin with ``#``
are comments. Tags say which device it is (a setting), and are not stored. Lines of one device and time become one uplink.
"""

from functools import cached_property, lru_cache
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from sens_common.dead_letters import Reason
from sens_common.device_times import check_plausible
from sens_common.errors import RejectedMessageError
from sens_common.fields import MAX_METRICS, MAX_READINGS, MAX_VALUES, check_name
from sens_common.formats import Value
from sens_common.names import shown
from sens_payloads.formats.device_names import OtherCharacters, canonical_device
from sens_payloads.formats.json_text import check_size
from sens_payloads.formats.line_protocol_text import Line, lines
from sens_payloads.formats.name_templates import name_template
from sens_payloads.uplinks import Received, Unwrapped, Uplink, WithoutMeasurements

_MAX_REMEMBERED: Final = 4096
_TIME_FACTORS: Final = {"ns": (1, 1000), "us": (1, 1), "ms": (1000, 1), "s": (1_000_000, 1)}


def _is_name(text: str) -> str:
    name_template(text)
    return text


NameText = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_is_name)]


class Settings(BaseModel):
    """How lines become readings.

    ``device``: The device's name; in braces the names of tags, or ``measurement``: ``{host}``, ``{site}-{sensor}``.
    ``other_characters``: What becomes of a name that a device can't have.
    ``metric``: The metric's name; in braces ``field``, ``measurement`` and the names of tags: ``{measurement}[.{cpu}].{field}``.
    ``precision``: The unit of times.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    device: NameText
    other_characters: OtherCharacters = "refuse"
    metric: NameText = "{measurement}.{field}"
    precision: Literal["ns", "us", "ms", "s"] = "ns"

    @cached_property
    def names(self) -> "_Names":
        """What gives devices and metrics their names."""
        return _Names(self)


class _Names:
    """Names of devices and metrics by the settings; those of the last lines are remembered."""

    def __init__(self, settings: Settings) -> None:
        self._device = name_template(settings.device)
        self._metric = name_template(settings.metric)
        self._other_characters = settings.other_characters
        self.device = lru_cache(maxsize=_MAX_REMEMBERED)(self._device_of)
        self.metric = lru_cache(maxsize=_MAX_REMEMBERED)(self._metric_of)

    def _device_of(self, measurement: str, tags: tuple[tuple[str, str], ...]) -> str:
        known = dict(tags) | {"measurement": measurement}
        try:
            name = self._device.filled(known.get)
        except KeyError as error:
            raise RejectedMessageError(
                Reason.MALFORMED_PAYLOAD, f"it has no tag {error.args[0]}, which is in the device's name"
            ) from None
        return canonical_device(name, self._other_characters)

    def _metric_of(self, measurement: str, tags: tuple[tuple[str, str], ...], field: str) -> str:
        known = dict(tags) | {"measurement": measurement, "field": field}
        try:
            name = self._metric.filled(known.get)
        except KeyError as error:
            raise RejectedMessageError(
                Reason.MALFORMED_PAYLOAD, f"it has no tag {error.args[0]}, which is in the metric's name"
            ) from None
        check_name(name)
        return name


def unwrap(received: Received, settings: Settings) -> Unwrapped:
    """Return the uplinks of a message; see `sens_payloads.uplinks.NetworkFormat.unwrap`."""
    check_size(received.body)
    if not received.body and received.topic:  # a retained message is removed (MQTT 5.0, section 3.3.1.3)
        return WithoutMeasurements("event")
    names = settings.names
    readings: dict[tuple[str, int | None], dict[str, Value | int]] = {}
    values = 0
    for line in lines(received.body):
        try:
            device = names.device(line.measurement, line.tags)
            fields = readings.setdefault((device, _instant(line, settings.precision, received.received_at)), {})
            for field, value in line.fields.items():
                name = names.metric(line.measurement, line.tags, field)
                if fields.setdefault(name, value) != value or type(fields[name]) is not type(value):
                    raise _conflict(device, name, line)
        except RejectedMessageError as error:
            raise RejectedMessageError(error.reason, f"line {line.number}: {error.detail}") from None
        values += len(line.fields)
        if len(fields) > MAX_METRICS or len(readings) > MAX_READINGS or values > MAX_VALUES:
            raise RejectedMessageError(
                Reason.TOO_LARGE,
                f"the message has more than {MAX_READINGS} readings, {MAX_METRICS} metrics in one or {MAX_VALUES} values; send fewer lines at once",
            )
    if not readings:
        raise RejectedMessageError(Reason.MALFORMED_PAYLOAD, "the message has no line; send one, such as m,host=h1 f=1")
    return [Uplink(device, measured_at, fields) for (device, measured_at), fields in readings.items()]


def _instant(line: Line, precision: str, received_at: int) -> int | None:
    if line.time is None:
        return None
    factor, divisor = _TIME_FACTORS[precision]
    found = line.time * factor // divisor
    check_plausible(found, received_at, "the time", f"{line.time} {precision}")
    return found


def _conflict(device: str, name: str, line: Line) -> RejectedMessageError:
    tags = ", ".join(key for key, _ in line.tags)
    return RejectedMessageError(
        Reason.CONFLICTING_VALUE,
        f"{shown(name)} of {shown(device)} has another value for the same time in a line before it; let metric or device have the tag"
        f" that tells them apart ({tags or 'the line has none'})",
    )
