"""SenML (RFC 8428), as JSON and as CBOR: ``[{"bn": "urn:dev:ow:10e2073a01080063:", "n": "voltage", "u": "V", "v": 120.1}]``.

Records are resolved first (`senml_records`). Their names have the device in them (RFC 8428, section 4.5.1), and what separates it from the
quantity is not standardised; the settings say what holds here.
"""

from functools import lru_cache
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from sens_common.dead_letters import Reason
from sens_common.device_times import check_plausible
from sens_common.errors import RejectedMessageError
from sens_common.fields import MAX_METRICS, MAX_READINGS, MAX_VALUES, check_name, checked_value
from sens_common.formats import Value
from sens_common.names import shown
from sens_payloads.formats import cbor_values
from sens_payloads.formats.device_names import OtherCharacters, canonical_device
from sens_payloads.formats.json_text import parse_json
from sens_payloads.formats.senml_records import CBOR_LABELS, Reading, resolve
from sens_payloads.formats.topics import topic_template
from sens_payloads.uplinks import Received, Unwrapped, Uplink, WithoutMeasurements

_MAX_REMEMBERED: Final = 4096
_CBOR_ARRAYS: Final = range(0x80, 0xA0)  # RFC 8949, section 3: major type 4; JSON's arrays begin with 0x5b
_URN_DEV: Final = "urn:dev:"
_SEPARATORS: Final = ":/_"


def _is_topic(text: str) -> str:
    if text and "device" not in topic_template(text).variables:
        raise ValueError("the topic has no {device}: give one such as senml/{device}")
    return text


class Settings(BaseModel):
    """How resolved names become devices and metrics.

    ``topic``: A template with ``{device}``: the topic names the device, and a record's whole name is the metric.
    ``device``: The device's name; the same.
    ``other_characters``: What becomes of a name that a device can't have.
    ``metric``: ``name_and_unit``: units are part of metrics' names, for packs with several units under one name.

    Without ``topic`` and ``device`` a name is cut at its last ``:`` or ``/``. Of ``urn:dev:<kind>:<identifier>`` (RFC 9039), which may have
    a part behind ``:``, ``/`` or ``_``, the identifier is the device.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    topic: Annotated[str, Field(max_length=200), AfterValidator(_is_topic)] = ""
    device: Annotated[str, Field(max_length=200)] = ""
    other_characters: OtherCharacters = "refuse"
    metric: Literal["name", "name_and_unit"] = "name"


def unwrap(received: Received, settings: Settings) -> Unwrapped:
    """Return the uplinks of a message; see `sens_payloads.uplinks.NetworkFormat.unwrap`."""
    if not received.body and received.topic:  # a retained message is removed (MQTT 5.0, section 3.3.1.3)
        return WithoutMeasurements("event")
    device = _device_of_source(received.topic, settings)
    uplinks: dict[tuple[str, int | None], Uplink] = {}
    for values, reading in enumerate(readings(received.body), 1):
        try:
            _add(uplinks, reading, received.received_at, device, settings)
        except RejectedMessageError as error:
            raise RejectedMessageError(error.reason, f"record {reading.record}: {error.detail}") from None
        if values > MAX_VALUES or len(uplinks) > MAX_READINGS:
            raise RejectedMessageError(
                Reason.TOO_LARGE,
                f"the pack has more than {MAX_READINGS} readings or {MAX_VALUES} values; send it in several",
            )
    return list(uplinks.values()) or WithoutMeasurements("event")


def readings(body: bytes) -> list[Reading]:
    """Return a pack's readings, resolved.

    Raises:
        RejectedMessageError: It is not SenML, or more of it has to be understood than is.
    """
    if body[:1] and body[0] in _CBOR_ARRAYS:
        return resolve(cbor_values.decode(body), CBOR_LABELS)
    return resolve(parse_json(body), {})


def split(name: str) -> tuple[str, str]:
    """Return the device's and the quantity's part of a resolved name; the latter is empty where the name is a device's.

    Raises:
        RejectedMessageError: Nothing tells where the device ends.

    >>> split("urn:dev:ow:10e2073a01080063:voltage"), split("urn:dev:mac:0024befffe804ff1"), split("plant/press-7/temperature")
    (('10e2073a01080063', 'voltage'), ('0024befffe804ff1', ''), ('plant/press-7', 'temperature'))
    """
    if name.startswith(_URN_DEV):
        kind, _, rest = name[len(_URN_DEV) :].partition(":")
        end = min((at for at in map(rest.find, _SEPARATORS) if at >= 0), default=len(rest))
        if kind and end:
            return rest[:end], rest[end + 1 :].strip(_SEPARATORS)
    at = max(name.rfind(":"), name.rfind("/"))
    if at <= 0:
        raise RejectedMessageError(
            Reason.MALFORMED_PAYLOAD,
            f"the name {shown(name)} has no : or / that tells device and quantity apart; give the source a device, or a topic with {{device}}",
        )
    return name[:at], name[at + 1 :]


@lru_cache(maxsize=_MAX_REMEMBERED)
def _names(name: str, other_characters: OtherCharacters) -> tuple[str, str]:
    device, metric = split(name)
    return canonical_device(device, other_characters), metric


def _device_of_source(topic: str, settings: Settings) -> str | None:
    if settings.device:
        return canonical_device(settings.device, settings.other_characters)
    if not settings.topic:
        return None
    return _device_of_topic(topic, settings.topic, settings.other_characters)


@lru_cache(maxsize=_MAX_REMEMBERED)
def _device_of_topic(topic: str, template: str, other_characters: OtherCharacters) -> str:
    match = topic_template(template).pattern.fullmatch(topic)
    if match is None:
        raise RejectedMessageError(
            Reason.INVALID_TOPIC, f"the topic {shown(topic)} is not one of {shown(template)}, which the source reads"
        )
    return canonical_device(match["device"], other_characters, Reason.INVALID_TOPIC)


def _add(
    uplinks: dict[tuple[str, int | None], Uplink],
    reading: Reading,
    received_at: int,
    device: str | None,
    settings: Settings,
) -> None:
    if device is None:
        device, metric = _names(reading.name, settings.other_characters)
    else:
        metric = reading.name
    unit = reading.unit or ""
    if settings.metric == "name_and_unit" and unit and metric:
        metric = f"{metric}.{unit}"
    metric = (metric or unit or "value") + reading.suffix
    check_name(metric)
    time = None
    if reading.time is not None:
        time = received_at + reading.time if reading.is_relative else reading.time
        check_plausible(time, received_at, "its time", reading.time_text)
    uplink = uplinks.setdefault((device, time), Uplink(device, time, {}, units={}))
    _set(uplink, metric, checked_value(metric, reading.value), unit)


def _set(uplink: Uplink, metric: str, value: Value | int, unit: str) -> None:
    fields, units = uplink.fields, uplink.units
    assert isinstance(fields, dict)  # noqa: S101 - made above
    assert isinstance(units, dict)  # noqa: S101 - made above
    if metric in fields and (fields[metric] != value or type(fields[metric]) is not type(value)):
        raise RejectedMessageError(
            Reason.CONFLICTING_VALUE,
            f"{shown(metric)} of {shown(uplink.device)} has another value for the same time in a record before it; if they have different"
            " units, set metric to name_and_unit",
        )
    fields[metric] = value
    if len(fields) > MAX_METRICS:
        raise RejectedMessageError(Reason.TOO_LARGE, f"one reading has more than {MAX_METRICS} metrics")
    if unit:
        units[metric] = unit
