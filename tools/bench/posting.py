"""The measurement of HTTP ingestion: one message a request, each connection sends its next request when it has the answer to the one before."""

import asyncio
import hashlib
import itertools
import statistics
import time
from collections.abc import Iterator, Sequence
from typing import Final, cast

import nats
import uvloop
from nats.js.api import KeyValueConfig

from sens_common import tenant_limits
from sens_common.keys import new_key
from sens_common.tenant_limits import IngestKey, TenantLimits
from tools.bench.figures import GENERATOR, Posted
from tools.stack.path import HTTP, Stack, StackError
from tools.stack.programs import NATS
from tools.stack.server import HOST

_TENANT: Final = "bench"
_STORED: Final = b"HTTP/1.1 204"
_ANSWER_END: Final = b"\r\n\r\n"
_WARM_UP: Final = 2000
_SECONDS: Final = 600


def post(stack: Stack, requests: int, connections: int, rounds: int) -> list[Posted]:
    """Post messages to a worker of a running path.

    Raises:
        StackError: An answer is not 204.
    """
    key = new_key()
    hash_ = hashlib.sha256(key.encode()).hexdigest()
    asyncio.run(_tell(stack, TenantLimits(ingest_keys=(IngestKey(hash_),))))
    port = stack.add_http()
    _round(stack, port, key, _WARM_UP, connections)
    return [_round(stack, port, key, requests, connections) for _ in range(rounds)]


async def _tell(stack: Stack, limits: TenantLimits) -> None:
    client = await nats.connect(**stack.nats_login)
    try:
        bucket = await client.jetstream().create_key_value(KeyValueConfig(bucket=tenant_limits.BUCKET))
        await bucket.put(tenant_limits.key(_TENANT), tenant_limits.encode(limits))
    finally:
        await client.close()


def _round(stack: Stack, port: int, key: str, requests: int, connections: int) -> Posted:
    before, own = stack.usage(), time.process_time()
    started = time.perf_counter()
    seconds = uvloop.run(_post(port, _requests(key, requests), connections))
    took = time.perf_counter() - started
    after = stack.usage()
    cpu = {name: (after[name].cpu_seconds - before[name].cpu_seconds) / requests * 1e6 for name in (HTTP, NATS)}
    cpu[GENERATOR] = (time.process_time() - own) / requests * 1e6
    cuts = statistics.quantiles(seconds, n=100)
    milliseconds = {"50": cuts[49] * 1000, "99": cuts[98] * 1000, "100": max(seconds) * 1000}
    return Posted(requests, requests / took, cpu, connections=connections, milliseconds=milliseconds)


def _requests(key: str, count: int) -> Iterator[bytes]:
    """Yield requests of 1,000 devices; each message has a time of its own."""
    start = time.time_ns() // 1_000_000 - count
    for number in range(count):
        body = b'{"ts":%d,"temperature":21.5,"humidity":40.25,"co2":612,"voltage":3.31,"rssi":-73}' % (start + number)
        head = (
            f"POST /sens/v1/{_TENANT}/d{number % 1000}/telemetry HTTP/1.1\r\nHost: {HOST}\r\nAuthorization: Bearer {key}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        yield head.encode() + body


async def _post(port: int, requests: Iterator[bytes], connections: int) -> Sequence[float]:
    """Send all requests; return how long each waited for its answer, seconds."""
    loop = asyncio.get_running_loop()
    clients = [_Client(requests, loop.create_future()) for _ in range(connections)]
    for client in clients:
        await loop.create_connection(lambda client=client: client, HOST, port)  # type: ignore[misc] # of the loop's variable
    async with asyncio.timeout(_SECONDS):
        await asyncio.gather(*(client.ended for client in clients))
    return list(itertools.chain.from_iterable(client.seconds for client in clients))


class _Client(asyncio.Protocol):
    """One connection."""

    def __init__(self, requests: Iterator[bytes], ended: "asyncio.Future[None]") -> None:
        self._requests = requests
        self._transport: asyncio.Transport
        self._sent_at = 0.0
        self._answer = b""
        self.ended = ended
        self.seconds: list[float] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports do not derive from asyncio's classes.
        self._transport = cast("asyncio.Transport", transport)
        self._send()

    def data_received(self, data: bytes) -> None:
        self._answer += data
        if _ANSWER_END not in self._answer:
            return
        if not self._answer.startswith(_STORED):
            self.ended.set_exception(StackError(f"the worker answers {self._answer[:300]!r}"))
            self._transport.close()
            return
        self.seconds.append(time.perf_counter() - self._sent_at)
        self._answer = b""
        self._send()

    def connection_lost(self, _error: Exception | None) -> None:
        if not self.ended.done():
            self.ended.set_exception(StackError("the worker has closed a connection"))

    def _send(self) -> None:
        request = next(self._requests, None)
        if request is None:
            self.ended.set_result(None)
            self._transport.close()
            return
        self._sent_at = time.perf_counter()
        self._transport.write(request)
