"""The load that comes by HTTP: each message is posted again until it is answered with 2xx, always with the same identity."""

import asyncio
import contextlib
import json
import re
import threading
import time
from collections.abc import Mapping
from contextlib import ExitStack
from types import MappingProxyType, TracebackType
from typing import Final, Self

from sens_common.topics import NATIVE_PATTERN
from tools.stack.path import API, HTTP, Stack
from tools.stack.proxy import Proxy
from tools.stack.server import HOST
from tools.torture.load import Record
from tools.torture.messages import TENANTS, Kind, Message

CLIENTS_EDGE: Final = "http"
"""The proxy between the publishers and the worker."""
NATS_EDGE: Final = "http-nats"
_CONNECTIONS: Final = 8
_ANSWER_SECONDS: Final = 6.0
"""Longer than the worker may take, so that a 503 is seen."""
_LAST_SECONDS: Final = 30.0
"""How long messages are posted again after the end of the load."""
_PAUSE_SECONDS: Final = 0.1
_STORED: Final = 204
_LENGTH: Final = re.compile(rb"\r\ncontent-length: (\d+)\r\n")
_NO_ANSWER: Final = (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError)


def start_http(stack: Stack, proxies: ExitStack) -> Mapping[str, str]:
    """Start the HTTP ingestion worker between two proxies, which the stack gets too; return each tenant's ingest key.

    Raises:
        StackError: Something does not start.
    """
    if API not in stack.names:
        stack.add_api(MappingProxyType({}))  # it tells the worker of the keys
    keys = {
        tenant: json.loads(stack.sens("keys", "create", f"--tenant={tenant}", "--name=posts", "--ingest", "--json"))
        for tenant in TENANTS
    }
    nats_port = int(stack.nats_login["servers"].rpartition(":")[2])
    stack.proxies[NATS_EDGE] = proxies.enter_context(Proxy(nats_port))
    port = stack.add_http({"SENS_NATS__URL": f"nats://{HOST}:{stack.proxies[NATS_EDGE].port}"})
    stack.proxies[CLIENTS_EDGE] = proxies.enter_context(Proxy(port))
    proxies.callback(stack[HTTP].stop)  # while it still has a way to NATS
    return {tenant: key["key"] for tenant, key in keys.items()}


class Poster:
    """Posts in a thread of its own until it is left; what is not answered some time after that stays uncertain.

    Of a message without a device time an ``Idempotency-Key`` says that it is the same one.
    """

    def __init__(self, port: int, record: Record, keys: Mapping[str, str], *, rate: float) -> None:
        self._port = port
        self._record = record
        self._keys = keys
        self._pause = _CONNECTIONS / rate
        self._ended = threading.Event()
        self._deadline = float("inf")
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="posts")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._deadline = time.monotonic() + _LAST_SECONDS
        self._ended.set()
        self._thread.join()

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(_CONNECTIONS):
                group.create_task(self._post_all(), name=f"posts {number}")

    async def _post_all(self) -> None:
        connection = _Connection(self._port)
        while not self._ended.is_set():
            message = self._native()
            while await connection.status_of(self._request(message)) != _STORED:
                if time.monotonic() > self._deadline:
                    self._record.uncertain([message.number])
                    break
                await asyncio.sleep(_PAUSE_SECONDS)
            else:
                self._record.stored(message.number)
            await asyncio.sleep(self._pause)
        connection.close()

    def _native(self) -> Message:
        """Return the next message in SENS' own format."""
        while NATIVE_PATTERN.route((message := self._record.take()).topic) is None:
            pass
        return message

    def _request(self, message: Message) -> bytes:
        identity = "" if message.kind is Kind.TIMED else f"Idempotency-Key: {message.number}\r\n"
        head = (
            f"POST /{message.topic} HTTP/1.1\r\nHost: {HOST}\r\nAuthorization: Bearer {self._keys[message.tenant]}\r\n"
            f"{identity}Content-Length: {len(message.payload)}\r\n\r\n"
        )
        return head.encode() + message.payload


class _Connection:
    """A connection that is made again when it is over."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def status_of(self, request: bytes) -> int:
        """Send a request; return the status of its answer, 0 when there is none."""
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                if self._streams is None:
                    self._streams = await asyncio.open_connection(HOST, self._port)
                reader, writer = self._streams
                writer.write(request)
                head = await reader.readuntil(b"\r\n\r\n")
                if (length := _LENGTH.search(head)) is not None:
                    await reader.readexactly(int(length[1]))
                return int(head.split(None, 2)[1])
        except _NO_ANSWER:
            self.close()
            return 0

    def close(self) -> None:
        """End the connection."""
        if self._streams is not None:
            with contextlib.suppress(OSError):
                self._streams[1].transport.abort()
            self._streams = None
