"""Messages in the formats of others: each of a tenant's devices speaks one of them, and all say the same as SENS' own messages.

The formats are those of `docs/guides/formats.md`. The sources are made over the API, as a tenant makes them.
"""

import base64
import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Final, NamedTuple

import cbor2
import httpx2
import msgspec

from tools.stack.path import API, Stack, StackError
from tools.stack.server import HOST
from tools.torture.messages import (
    DEVICES,
    FIRST_TIME_MILLISECONDS,
    MALFORMED_EVERY,
    POISON,
    POISON_EVERY,
    TENANTS,
    Kind,
    Message,
    NativeMessages,
    values,
)

CODEC: Final = """
function decodeUplink(input) {
  var b = input.bytes, n = b[0] * 16777216 + (b[1] << 16 | b[2] << 8 | b[3]);
  var data = { n: n, half: n / 2, even: n % 2 === 0, name: "message " + n };
  if (input.fPort === 2) { data.poison = -6.66e66; }
  return { data: data };
}
"""
_NAME: Final = re.compile(rb"message (\d+)")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_NO_JSON: Final = b"\xff"
"""What no message in any of the formats begins with."""

type Body = dict[str, object]


class Said(NamedTuple):
    """What a message says.

    Attributes:
        number: Of the message.
        tenant: Whose it is.
        device: Of the tenant's devices, from 0 on.
        time_milliseconds: Since the epoch.
        body: Values by metric.
    """

    number: int
    tenant: str
    device: int
    time_milliseconds: int
    body: Body

    @property
    def plain_name(self) -> str:
        """Return the device's name where it may be any."""
        return f"d{self.device}"

    @property
    def eui(self) -> str:
        """Return the device's EUI-64."""
        return f"0004a30b001c05{self.device:02x}"

    @property
    def moment(self) -> str:
        """Return the time as RFC 3339 has it."""
        return (
            (_EPOCH + timedelta(milliseconds=self.time_milliseconds))
            .isoformat(timespec="milliseconds")
            .replace("+00:00", "Z")
        )

    @property
    def frame(self) -> bytes:
        """Return what the codec decodes."""
        return self.number.to_bytes(4)

    @property
    def port(self) -> int:
        """Return the LoRaWAN port, which tells the codec of a number that the database refuses."""
        return 2 if "poison" in self.body else 1


class Format(NamedTuple):
    """How some devices of each tenant speak.

    Attributes:
        name: Of the source.
        format: Of the source.
        topic: Of a message; its device's level is a ``+`` in the source's filter.
        payload: Of a message.
        settings: Of the source of a tenant.
        has_eui: Whether devices are named by their EUI.
        has_frame: Whether the codec decodes what they send.
    """

    name: str
    format: str
    topic: str
    payload: Callable[[Said], bytes]
    settings: Callable[[str], Body] = lambda _tenant: {}
    has_eui: bool = False
    has_frame: bool = False


def _chirpstack(said: Said, members: Body) -> bytes:
    event = {
        "deduplicationId": f"message {said.number}",
        "time": said.moment,
        "deviceInfo": {"devEui": said.eui},
        "fCnt": said.number,
        "fPort": said.port,
    }
    return json.dumps(event | members).encode()


def _netmore(said: Said) -> bytes:
    uplink = {"devEui": said.eui, "timestamp": said.moment, "payload": said.frame.hex(), "fPort": str(said.port)}
    return json.dumps([uplink | {"messageId": f"message {said.number}"}]).encode()


def _the_things_stack(said: Said) -> bytes:
    uplink = {"f_port": said.port, "received_at": said.moment, "decoded_payload": said.body}
    return json.dumps(
        {"end_device_ids": {"device_id": said.plain_name, "dev_eui": said.eui.upper()}, "uplink_message": uplink}
    ).encode()


def _senml(said: Said) -> bytes:
    kinds = {int: "v", float: "v", bool: "vb", str: "vs"}
    records: list[dict[str, object]] = [{"n": name, kinds[type(value)]: value} for name, value in said.body.items()]
    records[0] |= {"bt": said.time_milliseconds / 1000}
    return json.dumps(records).encode()


def _line(said: Said) -> bytes:
    fields = ",".join(f"{name}={json.dumps(value)}" for name, value in said.body.items())
    return f"reading,host={said.plain_name} {fields} {said.time_milliseconds}".encode()


def _map(said: Said) -> Body:
    return {"at": said.time_milliseconds, "data": said.body}


def _map_settings(root: str) -> Callable[[str], Body]:
    def settings(tenant: str) -> Body:
        return {"rules": [{"topic": f"{root}/{tenant}/{{device}}", "time": "at", "time_unit": "ms", "values": "data"}]}

    return settings


FORMATS: Final = (
    Format(
        "json", "json", "json/{tenant}/{device}", lambda said: json.dumps(_map(said)).encode(), _map_settings("json")
    ),
    Format(
        "object",
        "chirpstack",
        "application/{tenant}/device/{device}/event/up",
        lambda said: _chirpstack(said, {"object": said.body}),
        has_eui=True,
    ),
    Format(
        "bytes",
        "chirpstack",
        "application/{tenant}-bytes/device/{device}/event/up",
        lambda said: _chirpstack(said, {"data": base64.b64encode(said.frame).decode()}),
        has_eui=True,
        has_frame=True,
    ),
    Format("netmore", "netmore", "netmore/{tenant}/{device}", _netmore, has_eui=True, has_frame=True),
    Format("things", "the_things_stack", "v3/{tenant}/devices/{device}/up", _the_things_stack, has_eui=True),
    Format("senml", "senml", "senml/{tenant}/{device}", _senml, lambda tenant: {"topic": f"senml/{tenant}/{{device}}"}),
    Format(
        "line",
        "line_protocol",
        "line/{tenant}/{device}",
        _line,
        lambda _tenant: {"device": "{host}", "metric": "{field}", "precision": "ms"},
    ),
    Format(
        "messagepack",
        "messagepack",
        "messagepack/{tenant}/{device}",
        lambda said: msgspec.msgpack.encode(_map(said)),
        _map_settings("messagepack"),
    ),
    Format("cbor", "cbor", "cbor/{tenant}/{device}", lambda said: cbor2.dumps(_map(said)), _map_settings("cbor")),
)
SOURCES: Final = len(TENANTS) * len(FORMATS)


class MixedMessages:
    """Messages in SENS' own format and in all others, in turn."""

    def __init__(self) -> None:
        self._native = NativeMessages()

    def message(self, number: int) -> Message:
        """Return a message."""
        tenant, device = TENANTS[number % 3], number // 3 % DEVICES
        turn = device % (len(FORMATS) + 1)
        if turn == len(FORMATS):
            return self._native.message(number)
        its_format = FORMATS[turn]
        kind, body = Kind.TIMED, values(number)
        if number % MALFORMED_EVERY and number % POISON_EVERY == 0:
            kind, body = Kind.POISON, body | {"poison": POISON}
        said = Said(number, tenant, device, FIRST_TIME_MILLISECONDS + number, body)
        payload = its_format.payload(said)
        if number % MALFORMED_EVERY == 0:
            kind, payload = Kind.MALFORMED, _NO_JSON + payload
        name = said.eui if its_format.has_eui else said.plain_name
        topic = its_format.topic.format(tenant=tenant, device=name)
        return Message(number, kind, tenant, name, topic, payload, said.time_milliseconds)

    def number_of(self, payload: bytes) -> int:
        """Return the number of the message with this payload; -1 when it is none."""
        found = _NAME.search(payload)
        number = int(found[1]) if found else -1
        return number if number > 0 and self.message(number).payload == payload else -1


def make_sources(stack: Stack) -> None:
    """Make the codec, the profile and the sources of each tenant, which the ingestion workers subscribe to within seconds.

    Raises:
        StackError: One of them is refused.
    """
    stack.add_api(MappingProxyType({}))
    for tenant in TENANTS:
        key = json.loads(stack.sens("keys", "create", f"--tenant={tenant}", "--name=torture", "--json"))["key"]
        with httpx2.Client(
            base_url=f"http://{HOST}:{stack.workers[API].port}/api/v1/", headers={"Authorization": f"Bearer {key}"}
        ) as api:
            _made(api.post("codecs/frame/versions", json={"source": CODEC}))
            _made(api.put("profiles/frame", json={"codec": "frame@1"}))
            for each in FORMATS:
                source = {
                    "topic_filter": each.topic.format(tenant=tenant, device="+"),
                    "format": each.format,
                    "settings": each.settings(tenant),
                    "default_profile": "frame" if each.has_frame else None,
                }
                _made(api.put(f"sources/{each.name}", json=source))


def _made(answer: httpx2.Response) -> None:
    if not answer.is_success:
        raise StackError(f"{answer.request.method} {answer.request.url.path}: {answer.text}")
