"""Actility ThingPark (KPN and others): the reports that the network's core (LRC) posts over HTTP, as JSON.

Sources: ThingPark documentation, "LRC to Application Server Tunnel Interface", and the samples in github.com/actility/thingpark-integrations,
``1_tpNS-AS``. The member says which report it is. Numbers may be texts ("JSON untyped").

- ``DevEUI_uplink``: one uplink with the bytes of ``payload_hex``, and where ThingPark X has decoded it with the values of ``payload``. The
  radio values are those of the best gateway, which the network has chosen. Late uplinks (``Late``) have the time at which they were sent.
- ``DevEUI_location``: where the network says that the device is.
- All other reports carry no measurements.

The `Token` in the address, which only who knows the key of the connection can compute, is looked at by the worker that takes the request.
"""

from typing import Final

import msgspec
from msgspec import Raw, Struct, field

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
    hexadecimal,
    instant,
    parse,
)
from sens_payloads.uplinks import Received, Unwrapped, Uplink, WithoutMeasurements

_ADVICE: Final = "let ThingPark send its reports itself, with the content type JSON"
_REPORT_PREFIX: Final = "DevEUI_"


class Settings(NetworkSettings):
    """`decoded_by` decides between ``payload`` and ``payload_hex``."""


class _UplinkReport(Struct, gc=False):
    device: str | None = field(name="DevEUI", default=None)
    time: str | None = field(name="Time", default=None)
    f_port: FPort | None = field(name="FPort", default=None)
    f_cnt: FrameCounter | None = field(name="FCntUp", default=None)
    frame: str | None = field(name="payload_hex", default=None)
    decoded: dict[str, object] | None = field(name="payload", default=None)
    rssi: Decibels | None = field(name="LrrRSSI", default=None)
    snr: Decibels | None = field(name="LrrSNR", default=None)
    spreading_factor: SpreadingFactor | None = field(name="SpFact", default=None)


class _LocationReport(Struct, gc=False):
    latitude: Degrees = field(name="DevLAT")
    longitude: Degrees = field(name="DevLON")
    altitude: Metres | None = field(name="DevAlt", default=None)
    device: str | None = field(name="DevEUI", default=None)
    time: str | None = field(name="Time", default=None)
    located_at: str | None = field(name="DevLocTime", default=None)


class _Report(Struct, gc=False):
    uplink: _UplinkReport | None = field(name="DevEUI_uplink", default=None)
    location: _LocationReport | None = field(name="DevEUI_location", default=None)


_decoder: Final = msgspec.json.Decoder(_Report, strict=False)
_members_decoder: Final = msgspec.json.Decoder(dict[str, Raw])


def unwrap(received: Received, settings: Settings) -> Unwrapped:
    """Return the uplink of a report; see `sens_payloads.uplinks.NetworkFormat.unwrap`."""
    report = parse(_decoder, received.body, _ADVICE)
    if report.uplink is not None:
        return [_uplink(report.uplink, received.received_at, settings)]
    if report.location is not None:
        return [_located(report.location, received.received_at)]
    members = parse(_members_decoder, received.body, _ADVICE)
    if any(name.startswith(_REPORT_PREFIX) for name in members):
        return WithoutMeasurements("event")
    raise RejectedMessageError(
        Reason.MALFORMED_PAYLOAD, f"the message has neither DevEUI_uplink nor another report of ThingPark; {_ADVICE}"
    )


def _uplink(report: _UplinkReport, received_at: int, settings: Settings) -> Uplink:
    name = device(report.device, "DevEUI_uplink.DevEUI")
    measured_at = instant(report.time, received_at, "DevEUI_uplink.Time")
    frame = hexadecimal(report.frame, "DevEUI_uplink.payload_hex") if report.frame else b""
    decoded = report.decoded
    fields = flatten(decoded) if decoded and settings.decoded_by == "network" else None
    radio: dict[str, float | int] = {}
    if report.rssi is not None:
        radio["rssi"] = report.rssi
    if report.snr is not None:
        radio["snr"] = report.snr
    if report.spreading_factor is not None:
        radio["spreading_factor"] = report.spreading_factor
    if report.f_cnt is not None:
        radio["f_cnt"] = report.f_cnt
    return Uplink(name, measured_at, fields, frame, report.f_port or 0, radio)


def _located(report: _LocationReport, received_at: int) -> Uplink:
    name = device(report.device, "DevEUI_location.DevEUI")
    if report.located_at is not None:
        measured_at = instant(report.located_at, received_at, "DevEUI_location.DevLocTime")
    else:
        measured_at = instant(report.time, received_at, "DevEUI_location.Time")
    radio: dict[str, float | int] = {"latitude": report.latitude, "longitude": report.longitude}
    if report.altitude is not None:
        radio["altitude"] = report.altitude
    return Uplink(name, measured_at, {}, radio=radio)
