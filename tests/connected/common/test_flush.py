"""When a NATS server has read what its client was given, as a server sees it that answers PING and notes what it reads."""

import asyncio

from nats.aio.msg import Msg

from sens_common.jetstream import connect, flush_all
from sens_common.settings import NatsSettings
from support.servers import HOST


async def ignore(_message: Msg) -> None:
    """Take a message."""


class NotingServer:
    """A NATS server that does nothing with what it reads (NATS documentation, "Client Protocol")."""

    def __init__(self) -> None:
        self.read: list[str] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'INFO {"server_id":"x","version":"2.15.0","max_payload":1048576,"headers":true}\r\n')
        async for line in reader:
            self.read.append(line.decode().split()[0])
            if line.startswith(b"PING"):
                writer.write(b"PONG\r\n")
        writer.close()


class TestFlushAll:
    async def test_returns_when_the_server_has_read_a_subscription_that_was_made_before(self) -> None:
        noting = NotingServer()
        async with await asyncio.start_server(noting.serve, HOST, 0) as server:
            port = server.sockets[0].getsockname()[1]
            async with connect(NatsSettings(url=f"nats://{HOST}:{port}"), "test") as client:
                before = len(noting.read)
                await client.subscribe("subject", cb=ignore)
                await flush_all(client)
                read = noting.read[before:]
        assert "SUB" in read
        assert read[-1] == "PING"
