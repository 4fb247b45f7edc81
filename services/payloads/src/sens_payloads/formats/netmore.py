"""Netmore (LoRaWAN): what its Connect publishes by MQTT and what it posts over HTTP.

Source: github.com/netmoregroup/netmore-mqtt-sample, Readme ("Payload Description", versions 1 and 2), and samples of subscribers. Five
shapes, each alone or in an array:

- an uplink, in full or short: ``devEui``, ``timestamp``, ``payload`` in hexadecimal digits, and radio values as numbers or texts;
- Connect's raw record: ``{"t": …, "n": "raw", "u": "json", "v": <an uplink>}``; with ``"u": "b64"`` the uplink's JSON is in Base64;
- Connect's data points of version 2: ``{"devEui": …, "data": [{"t": …, "n": …, "u": …, "v": …}]}``;
- a data point of version 1, whose device stands in the topic alone: ``…/netmore/dp/evt/<source>/<backend>/<type>/<device>/s/<name>``;
- the result of a downlink (``deliveryStatus``), which carries no measurement.

The time of an uplink is its ``timestamp``; ``t`` of a raw record is when Connect made it. A data point has its own time. The radio values
are those of the message itself, whose gateway the network has chosen. ``batteryLevel`` is that of LoRaWAN's DevStatusAns (1.0.4, section
5.5): 1 to 254 are 0 to 100 %, 0 is an external source, 255 not known.
"""

import binascii
import re
from collections.abc import Sequence
from typing import Annotated, Final

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType
from pydantic import BaseModel, ConfigDict

from sens_common.dead_letters import Reason
from sens_common.device_times import measured_at
from sens_common.errors import RejectedMessageError
from sens_common.fields import MAX_READINGS, flatten
from sens_common.formats import Value
from sens_common.names import shown
from sens_payloads.formats import lorawan_together as together
from sens_payloads.formats.lorawan import (
    Decibels,
    FPort,
    FrameCounter,
    SpreadingFactor,
    device,
    hexadecimal,
    instant,
    parse,
)
from sens_payloads.uplinks import NO_RADIO, Received, Unwrapped, Uplink, WithoutMeasurements

_ADVICE: Final = "is this a message of Netmore, handed on as it came?"
_EXTERNAL_POWER: Final = 0
_NOT_KNOWN: Final = 255
_BATTERY_STEPS: Final = 253
_RAW: Final = "raw"
_UPLINK_TYPES: Final = (None, "payload")
_EPOCH: Final = re.compile(r"\d{1,19}", re.ASCII)
_MAX_LEVELS: Final = 32


class Settings(BaseModel):
    """There is nothing to set."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class _Element(Struct, rename="camel", gc=False):
    """An uplink, a raw record or a data point: what it is shows in the members that it has. Numbers may be texts."""

    dev_eui: str | None = None
    timestamp: str | None = None
    message_type: str | None = None
    payload: str | None = None
    f_port: FPort | None = None
    f_cnt_up: FrameCounter | None = None
    rssi: Decibels | None = None
    snr: Decibels | None = None
    spreading_factor: SpreadingFactor | None = None
    battery_level: Annotated[int, Meta(ge=0, le=255)] | None = None
    t: int | float | str | None = None
    n: str | None = None
    u: str | None = None
    v: Raw | UnsetType = UNSET


class _Message(_Element, gc=False):
    """The same alone, or data points of one device, or the result of a downlink."""

    device_id: str | None = None
    data: list[_Element] | UnsetType = UNSET
    delivery_status: str | UnsetType = UNSET


_decoder: Final = msgspec.json.Decoder(list[_Element] | _Message, strict=False)
_element_decoder: Final = msgspec.json.Decoder(_Element, strict=False)
_NO_UPLINK: Final = _Element()
"""Stands for what is none; names no device."""
_text_decoder: Final = msgspec.json.Decoder(str)
_value_decoder: Final = msgspec.json.Decoder(object)


def unwrap(received: Received, _settings: Settings) -> Unwrapped:
    """Return the uplinks of a message; see `sens_payloads.uplinks.NetworkFormat.unwrap`."""
    message = parse(_decoder, received.body, _ADVICE)
    if type(message) is list:
        if len(message) == 1 and message[0].payload is not None:  # nearly all messages
            return [_uplink(message[0], received.received_at)]
        return _of_elements(message, received)
    if message.delivery_status is not UNSET:
        return WithoutMeasurements("event")
    if message.data is not UNSET:
        return _of_data_points(message.data, _device_of(message), received.received_at)
    return _of_elements([message], received)


def unwrap_usual(received: Sequence[Received], _settings: Settings, /, *, with_radio: bool) -> Sequence[Uplink | None]:
    """Return the uplinks of usual messages; see `sens_payloads.uplinks.UsualUplinks.unwrap_usual`."""
    messages = together.documents(_decoder, received)
    uplinks = [message[0] if type(message) is list and len(message) == 1 else _NO_UPLINK for message in messages]
    names = together.devices([uplink.dev_eui for uplink in uplinks])
    times = together.instants([uplink.timestamp for uplink in uplinks], received)
    frames = together.frames([uplink.payload for uplink in uplinks])
    return [
        Uplink(name, time, None, frame, uplink.f_port or 0, _radio(uplink) if with_radio else NO_RADIO)
        if name is not None and time is not None and frame is not None
        else None
        for uplink, name, time, frame in zip(uplinks, names, times, frames, strict=True)
    ]


def _of_elements(elements: list[_Element] | list[_Message], received: Received) -> Unwrapped:
    if not elements:
        raise RejectedMessageError(Reason.MALFORMED_PAYLOAD, f"the message is an empty array; {_ADVICE}")
    if len(elements) > MAX_READINGS:
        raise RejectedMessageError(
            Reason.TOO_LARGE, f"the message has {len(elements)} elements; at most {MAX_READINGS} are allowed"
        )
    received_at = received.received_at
    uplinks: list[Uplink] = []
    data_points: list[_Element] = []
    for element in elements:
        if element.v is UNSET:
            uplink = element
        elif element.n == _RAW:
            uplink = _recorded(element.v)
        else:
            data_points.append(element)
            continue
        if uplink.payload is not None or uplink.message_type in _UPLINK_TYPES:
            uplinks.append(_uplink(uplink, received_at))
    if data_points:
        uplinks += _of_data_points(data_points, _device_in(received.topic), received_at)
    return uplinks or WithoutMeasurements("event")


def _uplink(element: _Element, received_at: int) -> Uplink:
    name = device(element.dev_eui, "devEui")
    measured_at = instant(element.timestamp, received_at, "timestamp")
    if element.payload is None:
        raise RejectedMessageError(Reason.MALFORMED_PAYLOAD, f"the uplink has no payload; {_ADVICE}")
    frame = hexadecimal(element.payload, "payload")
    return Uplink(name, measured_at, None, frame, element.f_port or 0, _radio(element))


def _radio(element: _Element) -> dict[str, float | int]:
    radio: dict[str, float | int] = {}
    if element.rssi is not None:
        radio["rssi"] = element.rssi
    if element.snr is not None:
        radio["snr"] = element.snr
    if element.spreading_factor is not None:
        radio["spreading_factor"] = element.spreading_factor
    if element.f_cnt_up is not None:
        radio["f_cnt"] = element.f_cnt_up
    level = element.battery_level
    if level is not None and _EXTERNAL_POWER < level < _NOT_KNOWN:
        radio["battery"] = (level - 1) / _BATTERY_STEPS * 100
    return radio


def _recorded(value: Raw) -> _Element:
    """Return the uplink in Connect's raw record."""
    document = bytes(value)
    if document.startswith(b'"'):
        try:
            document = binascii.a2b_base64(parse(_text_decoder, document, _ADVICE), strict_mode=True)
        except ValueError:
            raise RejectedMessageError(Reason.MALFORMED_PAYLOAD, f"the member v is not Base64; {_ADVICE}") from None
    return parse(_element_decoder, document, f"that is the raw record's member v: {_ADVICE}")


def _of_data_points(data_points: list[_Element], device_name: str, received_at: int) -> list[Uplink]:
    """Return data points, those of one time that follow each other together."""
    if not data_points:
        raise RejectedMessageError(Reason.MALFORMED_PAYLOAD, f"the member data is an empty array; {_ADVICE}")
    uplinks: list[Uplink] = []
    values: dict[str, object] = {}
    units: dict[str, str] = {}
    time: object = data_points[0].t
    for point in data_points:
        if not point.n or point.v is UNSET:
            raise RejectedMessageError(
                Reason.MALFORMED_PAYLOAD, f"a data point lacks its name n or its value v; {_ADVICE}"
            )
        if point.t != time or point.n in values:
            uplinks.append(_uplink_of(device_name, time, values, units, received_at))
            values, units, time = {}, {}, point.t
        values[point.n] = parse(_value_decoder, bytes(point.v), _ADVICE)
        if point.u:
            units[point.n] = point.u
    uplinks.append(_uplink_of(device_name, time, values, units, received_at))
    if not any(uplink.fields for uplink in uplinks):
        raise RejectedMessageError(Reason.UNSUPPORTED_VALUE, "all data points are null, so there is no value to store")
    return [uplink for uplink in uplinks if uplink.fields]


def _uplink_of(
    device_name: str, time: object, values: dict[str, object], units: dict[str, str], received_at: int
) -> Uplink:
    fields: dict[str, Value] = flatten(values)
    return Uplink(
        device_name,
        measured_at(int(time) if type(time) is str and _EPOCH.fullmatch(time) else time, received_at, "t"),
        fields,
        units={name: unit for name, unit in units.items() if name in fields},
    )


def _device_of(message: _Message) -> str:
    """Return the device of data points of version 2: ``deviceId`` ends with it."""
    return device(message.dev_eui or (message.device_id or "").rpartition("@")[2], "devEui")


def _device_in(topic: str) -> str:
    """Return the device of data points of version 1."""
    levels = topic.split("/", _MAX_LEVELS)
    # client/<customer>/edge/<group>/netmore/dp/evt/<source>/<backend>/<type>/<device>/s/<name>
    name = levels[10] if len(levels) > 10 and levels[4:7] == ["netmore", "dp", "evt"] else None  # noqa: PLR2004
    if name is None:
        raise RejectedMessageError(
            Reason.MALFORMED_PAYLOAD,
            f"the data points name no device, and the topic {shown(topic)} does not either: that of version 1 of Netmore Connect is"
            " client/…/netmore/dp/evt/…/<device>/s/…; use version 2, or an address of its own for other messages",
        )
    return device(name, "the topic's device")
