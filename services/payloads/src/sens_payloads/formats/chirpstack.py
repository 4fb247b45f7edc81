"""ChirpStack v4: the events of its MQTT and HTTP integrations, encoded as JSON.

Sources: ChirpStack documentation, "Event types", and the definitions that it names, ``api/proto/integration/integration.proto`` and
``api/proto/gw/gw.proto``. The JSON is that of Protocol Buffers ("ProtoJSON Format"): members that are zero, false or empty are left out.

The kind of an event is the last level of the topic, ``application/<id>/device/<devEui>/event/up``, or the parameter ``event`` of the address.

- ``up``: one uplink with the bytes of ``data``, and where a codec is set in ChirpStack with the values of ``object``. The radio values are
  those of the gateway with the largest ``rssi``.
- ``status``: ``margin`` in dB and ``batteryLevel`` in %, where the device has a battery and knows its level.
- ``location``: where ChirpStack says that the device is.
- All others carry no measurements.

A frame that ChirpStack itself can't decrypt (``joinServerContext``) is refused: nothing can be read of it here.
"""

from collections.abc import Sequence
from typing import Final

import msgspec
from msgspec import Struct, field

from sens_common.dead_letters import Reason
from sens_common.errors import RejectedMessageError
from sens_common.fields import MAX_PAYLOAD_BYTES, flatten
from sens_common.names import shown
from sens_payloads.formats import lorawan_together as together
from sens_payloads.formats.lorawan import (
    Decibels,
    Degrees,
    FPort,
    FrameCounter,
    Metres,
    NetworkSettings,
    Percent,
    SpreadingFactor,
    device,
    instant,
    parse,
)
from sens_payloads.uplinks import NO_RADIO, Received, Unwrapped, Uplink, WithoutMeasurements

_WITHOUT_MEASUREMENTS: Final = frozenset({"join", "ack", "txack", "log", "integration"})
_ADVICE: Final = "let ChirpStack v4 send its events itself, encoded as JSON"
_OF_VERSION_3: Final = (b'"devEUI"', b'"applicationID"', b'"objectJSON"')


class Settings(NetworkSettings):
    """`decoded_by` decides between ``object`` and ``data``."""


class _DeviceInfo(Struct, rename="camel", gc=False):
    dev_eui: str


class _Gateway(Struct, gc=False):
    rssi: Decibels = 0.0
    snr: Decibels | None = None


class _Lora(Struct, rename="camel", gc=False):
    spreading_factor: SpreadingFactor | None = None


class _Modulation(Struct, gc=False):
    lora: _Lora | None = None


class _TxInfo(Struct, gc=False):
    modulation: _Modulation | None = None


class _JoinServerContext(Struct, gc=False):
    pass


class _Event(Struct, kw_only=True, rename="camel", gc=False):
    device_info: _DeviceInfo
    time: str | None = None


class _UplinkEvent(_Event, rename="camel", gc=False):
    f_cnt: FrameCounter = 0
    f_port: FPort = 0
    data: bytes = b""
    decoded: dict[str, object] | None = field(name="object", default=None)
    rx_info: list[_Gateway] = []
    tx_info: _TxInfo | None = None
    join_server_context: _JoinServerContext | None = None


class _StatusEvent(_Event, rename="camel", gc=False):
    margin: Decibels = 0.0
    external_power_source: bool = False
    battery_level_unavailable: bool = False
    battery_level: Percent = 0.0


class _Location(Struct, gc=False):
    latitude: Degrees = 0.0
    longitude: Degrees = 0.0
    altitude: Metres = 0.0


class _LocationEvent(_Event, kw_only=True, rename="camel", gc=False):
    location: _Location


_uplink_decoder: Final = msgspec.json.Decoder(_UplinkEvent)
_status_decoder: Final = msgspec.json.Decoder(_StatusEvent)
_location_decoder: Final = msgspec.json.Decoder(_LocationEvent)
_NO_EVENT: Final = _UplinkEvent(device_info=_DeviceInfo(""))
"""Stands for what is none; names no device."""


def unwrap(received: Received, settings: Settings) -> Unwrapped:
    """Return the uplink of an event; see `sens_payloads.uplinks.NetworkFormat.unwrap`."""
    kind = _kind(received)
    if kind == "up":
        body = received.body
        try:
            event = _uplink_decoder.decode(body) if len(body) <= MAX_PAYLOAD_BYTES else _parsed(_uplink_decoder, body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            event = _parsed(_uplink_decoder, body)  # which says what is wrong
        return [_uplink(event, received.received_at, settings)]
    if kind == "status":
        return [_status(_parsed(_status_decoder, received.body), received.received_at)]
    if kind == "location":
        return [_located(_parsed(_location_decoder, received.body), received.received_at)]
    if kind in _WITHOUT_MEASUREMENTS:
        return WithoutMeasurements("event")
    where = (
        f"the topic's last level {shown(kind)}" if received.topic else f"the address's parameter event {shown(kind)}"
    )
    raise RejectedMessageError(
        Reason.MALFORMED_PAYLOAD, f"{where} is no event of ChirpStack v4, such as up or status; {_ADVICE}"
    )


def unwrap_usual(received: Sequence[Received], settings: Settings, /, *, with_radio: bool) -> Sequence[Uplink | None]:
    """Return the uplinks of usual messages; see `sens_payloads.uplinks.UsualUplinks.unwrap_usual`."""
    events = [event or _NO_EVENT for event in together.documents(_uplink_decoder, received)]
    names = together.devices([event.device_info.dev_eui for event in events])
    times = together.instants([event.time for event in events], received)
    by_network = settings.decoded_by == "network"
    objects = [event.decoded if by_network else None for event in events]
    columns = zip(received, events, names, times, objects, together.fields(objects), strict=True)
    return [
        Uplink(name, time, fields, event.data, event.f_port, _radio(event) if with_radio else NO_RADIO)
        if name is not None
        and time is not None
        and (fields is not None or not decoded)
        and event.join_server_context is None
        and (each.topic.endswith("/up") or _kind(each) == "up")
        else None
        for each, event, name, time, decoded, fields in columns
    ]


def _parsed[T](decoder: msgspec.json.Decoder[T], body: bytes) -> T:
    try:
        return parse(decoder, body, _ADVICE)
    except RejectedMessageError as rejection:
        if rejection.reason == Reason.MALFORMED_PAYLOAD and any(name in body for name in _OF_VERSION_3):
            raise RejectedMessageError(
                Reason.MALFORMED_PAYLOAD,
                "the event is one of ChirpStack v3, whose members are named otherwise (devEUI, applicationID); update ChirpStack to v4",
            ) from None
        raise


def _kind(received: Received) -> str:
    topic = received.topic
    return topic.rpartition("/")[2] if topic else received.query.get("event", "")


def _uplink(event: _UplinkEvent, received_at: int, settings: Settings) -> Uplink:
    name = device(event.device_info.dev_eui, "deviceInfo.devEui")
    measured_at = instant(event.time, received_at, "time")
    if event.join_server_context is not None:
        raise RejectedMessageError(
            Reason.UNSUPPORTED_VALUE,
            "the frame is encrypted with a key that ChirpStack does not have either (joinServerContext); let the join server hand the"
            " AppSKey to ChirpStack",
        )
    decoded = event.decoded
    fields = flatten(decoded) if decoded and settings.decoded_by == "network" else None
    return Uplink(name, measured_at, fields, event.data, event.f_port, _radio(event))


def _radio(event: _UplinkEvent) -> dict[str, float | int]:
    radio: dict[str, float | int] = {"f_cnt": event.f_cnt}
    modulation = None if event.tx_info is None else event.tx_info.modulation
    lora = None if modulation is None else modulation.lora
    gateways = event.rx_info
    if gateways:
        gateway = gateways[0] if len(gateways) == 1 else max(gateways, key=_rssi)
        radio["rssi"] = gateway.rssi
        if gateway.snr is not None:
            radio["snr"] = gateway.snr
        elif lora is not None:
            radio["snr"] = 0.0
    if lora is not None and lora.spreading_factor is not None:
        radio["spreading_factor"] = lora.spreading_factor
    return radio


def _rssi(gateway: _Gateway) -> float:
    return gateway.rssi


def _status(event: _StatusEvent, received_at: int) -> Uplink:
    radio: dict[str, float | int] = {"margin": event.margin}
    if not event.external_power_source and not event.battery_level_unavailable:
        radio["battery"] = event.battery_level
    return _known(event, received_at, radio)


def _located(event: _LocationEvent, received_at: int) -> Uplink:
    location = event.location
    radio = {"latitude": location.latitude, "longitude": location.longitude, "altitude": location.altitude}
    return _known(event, received_at, radio)


def _known(event: _Event, received_at: int, radio: dict[str, float | int]) -> Uplink:
    """Return what the network knows of a device without a frame of it."""
    name = device(event.device_info.dev_eui, "deviceInfo.devEui")
    return Uplink(name, instant(event.time, received_at, "time"), {}, radio=radio)
