"""A broker of a test's own that answers subscriptions as it is told, whatever a real one would."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from sens_common.brokers import Version
from support.servers import HOST

_CONNECT, _SUBSCRIBE, _PINGREQ = 1, 8, 12  # types of packets (MQTT 5.0, section 2.1.2)


@dataclass
class GrantingBroker:
    """What it answers.

    Attributes:
        code: The reason code of its answers to a SUBSCRIBE with one topic filter.
    """

    version: Version
    code: int
    port: int = 0
    writers: list[asyncio.StreamWriter] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one connection."""
        self.writers.append(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, OSError):
            while True:
                first, length = await reader.readexactly(2)
                body = await reader.readexactly(length)  # short ones only
                writer.write(self._answer(first >> 4, body))
        writer.close()

    def publish(self, topic: str, payload: bytes) -> None:
        """Send a message with QoS 0."""
        end = b"\0" if self.version == "5" else b""
        body = len(topic).to_bytes(2) + topic.encode() + end + payload
        self.writers[-1].write(bytes([0x30, len(body)]) + body)

    def _answer(self, kind: int, body: bytes) -> bytes:
        properties = b"\0" if self.version == "5" else b""
        if kind == _CONNECT:
            return _packet(0x20, b"\0\0" + properties)
        if kind == _SUBSCRIBE:
            return _packet(0x90, body[:2] + properties + bytes([self.code]))
        return _packet(0xD0, b"") if kind == _PINGREQ else b""


def _packet(first: int, body: bytes) -> bytes:
    return bytes([first, len(body)]) + body


@contextlib.asynccontextmanager
async def granting_broker(version: Version, code: int) -> AsyncIterator[GrantingBroker]:
    """Listen until the context ends."""
    broker = GrantingBroker(version, code)
    server = await asyncio.start_server(broker.serve, HOST, 0)
    async with server:
        broker.port = int(server.sockets[0].getsockname()[1])
        yield broker
        for writer in broker.writers:
            writer.close()
