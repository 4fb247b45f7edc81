"""The Things Stack v3 (The Things Network): the messages of its MQTT server and its webhooks.

Source: The Things Stack documentation, "Data Formats", and ``v3ApplicationUp`` of its API. Members that are zero, false or empty are left out.
The kind of a message is the member that it has, so that one webhook address can take all of them:

- ``uplink_message``: one uplink with the bytes of ``frm_payload``, and where a payload formatter is set with the values of
  ``decoded_payload``. ``normalized_payload`` repeats these. Its time is that of the network server, ``uplink_message.received_at``. The
  radio values are those of the gateway with the largest ``rssi``.
- ``location_solved``: where a location service says that the device is; its time is that of the application server, ``received_at``.
- All others carry no measurements. Neither does a message that a person has simulated (``simulated``).

A frame that the application server does not decrypt (``app_s_key``) is refused: nothing can be read of it here.
"""

from typing import Final

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from sens_common.dead_letters import Reason
from sens_common.errors import RejectedMessageError
from sens_common.fields import flatten
from sens_payloads.formats.lorawan import (
    Decibels,
    Degrees,
    FPort,
    FrameCounter,
    Metres,
    NetworkSettings,
    SpreadingFactor,
    device,
    instant,
    parse,
)
from sens_payloads.uplinks import Received, Unwrapped, Uplink, WithoutMeasurements

_ADVICE: Final = "let The Things Stack v3 send its messages itself, as JSON"
_WITHOUT_MEASUREMENTS: Final = frozenset(
    {
        "join_accept",
        "downlink_queued",
        "downlink_sent",
        "downlink_ack",
        "downlink_nack",
        "downlink_failed",
        "downlink_queue_invalidated",
        "service_data",
        "uplink_normalized",
    }
)


class Settings(NetworkSettings):
    """`decoded_by` decides between ``decoded_payload`` and ``frm_payload``."""


class _Device(Struct, gc=False):
    device_id: str | None = None
    dev_eui: str | None = None


class _Gateway(Struct, gc=False):
    rssi: Decibels | None = None
    snr: Decibels | None = None


class _Lora(Struct, gc=False):
    spreading_factor: SpreadingFactor | None = None


class _DataRate(Struct, gc=False):
    lora: _Lora | None = None


class _Transmission(Struct, gc=False):
    data_rate: _DataRate | None = None


class _UplinkMessage(Struct, gc=False):
    f_port: FPort = 0
    f_cnt: FrameCounter = 0
    frm_payload: bytes = b""
    decoded_payload: dict[str, object] | None = None
    rx_metadata: list[_Gateway] = []
    settings: _Transmission | None = None
    received_at: str | None = None
    app_s_key: Raw | UnsetType = UNSET


class _Location(Struct, gc=False):
    latitude: Degrees = 0.0
    longitude: Degrees = 0.0
    altitude: Metres = 0.0


class _LocationSolved(Struct, gc=False):
    location: _Location


class _Message(Struct, gc=False):
    end_device_ids: _Device
    received_at: str | None = None
    uplink_message: _UplinkMessage | None = None
    location_solved: _LocationSolved | None = None
    simulated: bool = False


_decoder: Final = msgspec.json.Decoder(_Message)
_members_decoder: Final = msgspec.json.Decoder(dict[str, Raw])


def unwrap(received: Received, settings: Settings) -> Unwrapped:
    """Return the uplink of a message; see `sens_payloads.uplinks.NetworkFormat.unwrap`."""
    message = parse(_decoder, received.body, _ADVICE)
    if message.simulated:
        return WithoutMeasurements("simulated")
    if message.uplink_message is not None:
        return [_uplink(message.end_device_ids, message.uplink_message, received.received_at, settings)]
    if message.location_solved is not None:
        return [_located(message, message.location_solved.location, received.received_at)]
    members = parse(_members_decoder, received.body, _ADVICE)
    if not _WITHOUT_MEASUREMENTS.isdisjoint(members):
        return WithoutMeasurements("event")
    raise RejectedMessageError(
        Reason.MALFORMED_PAYLOAD,
        f"the message has neither uplink_message nor another event of The Things Stack; {_ADVICE}",
    )


def _uplink(ids: _Device, message: _UplinkMessage, received_at: int, settings: Settings) -> Uplink:
    name = _name(ids)
    measured_at = instant(message.received_at, received_at, "uplink_message.received_at")
    if message.app_s_key is not UNSET:
        raise RejectedMessageError(
            Reason.UNSUPPORTED_VALUE,
            "the frame is encrypted (app_s_key); let the application server decrypt it: turn off skip payload crypto",
        )
    decoded = message.decoded_payload
    fields = flatten(decoded) if decoded and settings.decoded_by == "network" else None
    radio: dict[str, float | int] = {"f_cnt": message.f_cnt}
    transmission = message.settings
    lora = transmission.data_rate.lora if transmission is not None and transmission.data_rate is not None else None
    if message.rx_metadata:
        gateway = message.rx_metadata[0] if len(message.rx_metadata) == 1 else max(message.rx_metadata, key=_rssi)
        if gateway.rssi is not None:
            radio["rssi"] = gateway.rssi
        if gateway.snr is not None:
            radio["snr"] = gateway.snr
        elif lora is not None and gateway.rssi is not None:
            radio["snr"] = 0.0
    if lora is not None and lora.spreading_factor is not None:
        radio["spreading_factor"] = lora.spreading_factor
    return Uplink(name, measured_at, fields, message.frm_payload, message.f_port, radio)


def _rssi(gateway: _Gateway) -> float:
    return -1e9 if gateway.rssi is None else gateway.rssi


def _located(message: _Message, location: _Location, received_at: int) -> Uplink:
    radio = {"latitude": location.latitude, "longitude": location.longitude, "altitude": location.altitude}
    measured_at = instant(message.received_at, received_at, "received_at")
    return Uplink(_name(message.end_device_ids), measured_at, {}, radio=radio)


def _name(ids: _Device) -> str:
    """Return the device's name: its EUI, or where it has none, as devices with fixed keys may, its id."""
    if ids.dev_eui is not None:
        return device(ids.dev_eui, "end_device_ids.dev_eui")
    return device(ids.device_id, "end_device_ids.device_id")
