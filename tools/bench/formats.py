"""Messages as networks send them: what the load of a format is, and the source that takes it."""

import base64
import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Final, Literal, NamedTuple

NATIVE: Final = "native"
"""SENS' own messages, among the names of formats."""
JAVASCRIPT: Final = """
function decodeUplink(input) {
  var b = input.bytes;
  return { data: {
    temperature: (b[0] << 8 | b[1]) / 100, humidity: b[2] / 2, pressure: (b[3] << 8 | b[4]) / 10, battery: (b[5] << 8 | b[6]) / 1000, state: b[7]
  } };
}
"""
"""A small codec: five values of eight bytes."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Sent(NamedTuple):
    """One message of the load.

    Attributes:
        number: Makes the values differ.
        device: Of the devices, from 0 on.
        milliseconds: Its time, since the epoch.
    """

    number: int
    device: int
    milliseconds: int

    @property
    def eui(self) -> str:
        """Return the device's EUI-64."""
        return f"0004a30b{self.device:08x}"

    @property
    def moment(self) -> str:
        """Return the time as RFC 3339 has it."""
        return (
            (_EPOCH + timedelta(milliseconds=self.milliseconds))
            .isoformat(timespec="milliseconds")
            .replace("+00:00", "Z")
        )


class ForeignFormat(NamedTuple):
    """A format that the bench measures.

    Attributes:
        title: For people.
        format: Of the source.
        topic: Of a message, with ``{device}``.
        body: Of a message.
        most_microseconds: What a message may cost the telemetry worker and its children: decode and rows.
        codec: Of the devices' profile: one that is built in, or `javascript`; None where the network decodes.
    """

    title: str
    format: str
    topic: str
    body: Callable[[Sent], bytes]
    most_microseconds: float
    codec: Literal["cayenne_lpp", "javascript"] | None = None

    def topic_of(self, sent: Sent) -> str:
        """Return the topic of a message."""
        return self.topic.replace("{device}", sent.eui)

    @property
    def topic_filter(self) -> str:
        """Return what the source subscribes to."""
        return self.topic.replace("{device}", "+")


def _chirpstack(sent: Sent, members: dict[str, object]) -> bytes:
    """Return an event with all that ChirpStack v4 puts into it, heard by one gateway."""
    application = "17c82e96-0000-4000-8000-000000000002"
    event: dict[str, object] = {
        "deduplicationId": f"11111111-2222-4333-8444-{sent.number:012d}",
        "time": sent.moment,
        "deviceInfo": {
            "tenantId": "52f14cd4-0000-4000-8000-000000000001",
            "tenantName": "ChirpStack",
            "applicationId": application,
            "applicationName": "Rooms",
            "deviceProfileId": "14855bf7-0000-4000-8000-000000000003",
            "deviceProfileName": "Room sensor",
            "deviceName": f"Room {sent.device}",
            "devEui": sent.eui,
            "tags": {"floor": "2"},
        },
        "devAddr": "00189440",
        "adr": True,
        "dr": 5,
        "fCnt": sent.number % 65_536,
        "fPort": 2,
        "rxInfo": [
            {
                "gatewayId": "0016c001f153a14c",
                "uplinkId": 4_217_106_255,
                "rssi": -60 - sent.number % 60,
                "snr": 9.5,
                "location": {"latitude": 57.70887, "longitude": 11.97456},
            }
        ],
        "txInfo": {
            "frequency": 868_100_000,
            "modulation": {"lora": {"bandwidth": 125_000, "spreadingFactor": 7, "codeRate": "CR_4_5"}},
        },
    }
    return json.dumps(event | members, separators=(",", ":")).encode()


def _chirpstack_object(sent: Sent) -> bytes:
    number = sent.number
    decoded: dict[str, object] = {
        "temperature": 15 + number % 2000 / 100,
        "humidity": 30 + number % 600 / 10,
        "pressure": 980 + number % 5000 / 100,
        "battery": 3 + number % 700 / 1000,
        "motion": number % 2 == 0,
    }
    return _chirpstack(sent, {"data": base64.b64encode(number.to_bytes(8)).decode(), "object": decoded})


def _chirpstack_bytes(sent: Sent) -> bytes:
    number = sent.number
    frame = (1500 + number % 2000).to_bytes(2) + bytes([number % 200]) + (9800 + number % 500).to_bytes(2)
    frame += (3000 + number % 700).to_bytes(2) + bytes([number % 4])
    return _chirpstack(sent, {"data": base64.b64encode(frame).decode()})


def _netmore(sent: Sent) -> bytes:
    """Return an uplink with all that Netmore's Connect puts into it, heard by one gateway; its frame is Cayenne LPP."""
    number = sent.number
    frame = b"\x01\x67" + (150 + number % 200).to_bytes(2) + b"\x02\x68" + bytes([number % 200])
    frame += b"\x03\x73" + (9800 + number % 500).to_bytes(2) + b"\x04\x02" + (300 + number % 70).to_bytes(2)
    frame += b"\x05\x00" + bytes([number % 2])
    gateway = {"rssi": "-73", "snr": "9.8", "gatewayIdentifier": "12"}
    uplink = {
        "devEui": sent.eui,
        "sensorType": "other",
        "messageType": "payload",
        "timestamp": sent.moment,
        "payload": frame.hex(),
        "fCntUp": number % 65_536,
        "toa": None,
        "freq": 868_300_000,
        "batteryLevel": "255",
        "ack": False,
        "spreadingFactor": "7",
        "dr": 5,
        **gateway,
        "fPort": "2",
        "latitude": 57.70887,
        "longitude": 11.97456,
        "tags": {"building": ["A"]},
        "gateways": [{**gateway, "gwEui": "AA55AA55AA55AA01", "mac": "AA55AA550001", "antenna": 0}],
    }
    return json.dumps([uplink], separators=(",", ":")).encode()


_CHIRPSTACK_TOPIC: Final = "application/17c82e96-0000-4000-8000-00000000000{}/device/{{device}}/event/up"

FORMATS: Final[Mapping[str, ForeignFormat]] = MappingProxyType(
    {
        "chirpstack": ForeignFormat(
            "ChirpStack with object", "chirpstack", _CHIRPSTACK_TOPIC.format(1), _chirpstack_object, 7
        ),
        "netmore": ForeignFormat(
            "Netmore with Cayenne LPP", "netmore", "netmore/{device}/up", _netmore, 7, "cayenne_lpp"
        ),
        "javascript": ForeignFormat(
            "ChirpStack bytes with JavaScript",
            "chirpstack",
            _CHIRPSTACK_TOPIC.format(2),
            _chirpstack_bytes,
            25,
            "javascript",
        ),
    }
)
"""Formats by the names that ``--format`` takes; `NATIVE` is one more."""
