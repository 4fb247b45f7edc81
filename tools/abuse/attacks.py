"""What a tenant, or somebody without a key, does to the platform by mistake or on purpose. Each is bounded in number and time."""

import asyncio
import contextlib
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Final, NamedTuple

import httpx2

from tools.abuse.target import ATTACKER, Target

HISTORY_DEVICE: Final = "history"
_TOGETHER: Final = 200
_READING_SECONDS: Final = 60
"""Between two readings of the history."""


class Attack(NamedTuple):
    """One mistake.

    Attributes:
        name: For the table.
        play: Plays it, and returns in a few words what came of it.
    """

    name: str
    play: Callable[[Target], Coroutine[object, None, str]]


async def publish_many(target: Target, messages: list[tuple[str, bytes]]) -> str:
    """Publish messages (topic, payload) at QoS 1 as fast as the broker takes them."""
    began = time.monotonic()
    async with target.mqtt() as client:
        for start in range(0, len(messages), _TOGETHER):
            part = messages[start : start + _TOGETHER]
            await asyncio.gather(*(client.publish(topic, payload, qos=1) for topic, payload in part))
    return f"{len(messages):,} taken by the broker in {time.monotonic() - began:.1f} s"


def _topic(device: str, tenant: str = ATTACKER) -> str:
    return f"sens/v1/{tenant}/{device}/telemetry"


async def malformed(target: Target) -> str:
    """2,000 messages of one byte."""
    return await publish_many(target, [(_topic(f"d{number % 10}"), b"x") for number in range(2000)])


async def large(target: Target) -> str:
    """600 payloads of 0.9 MB."""
    payload = b"x" * 900_000
    return await publish_many(target, [(_topic("large"), payload) for _ in range(600)])


async def unknown_tenants(target: Target) -> str:
    """A message of each of 5,000 tenants that there are none of."""
    return await publish_many(target, [(_topic("d", f"nobody-{number}"), b'{"a":1}') for number in range(5000)])


async def history(target: Target) -> str:
    """Publish 200,000 readings of a device, a minute apart, for the readers."""
    newest = int(time.time()) // _READING_SECONDS * _READING_SECONDS
    messages = []
    for part in range(200):
        times = (newest - (part * 1000 + number) * _READING_SECONDS for number in range(1000))
        messages.append((_topic(HISTORY_DEVICE), json.dumps([{"ts": at, "a": at % 97} for at in times]).encode()))
    return await publish_many(target, messages)


@contextlib.asynccontextmanager
async def _connections(target: Target, requests: list[bytes]) -> AsyncIterator[list[asyncio.StreamReader]]:
    """Open a connection for each request, send it, and read nothing while the context is open."""
    opened: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
    try:
        for request in requests:
            with contextlib.suppress(OSError):  # refused: what it is there for
                reader, writer = await asyncio.open_connection(target.instance.host, target.api_port, limit=1024)
                opened.append((reader, writer))
                writer.write(request)
        yield [reader for reader, _ in opened]
    finally:
        for _, writer in opened:
            writer.transport.abort()


def _request(method: str, path: str, key: str | None, more: str = "", body: bytes = b"") -> bytes:
    authorization = f"Authorization: Bearer {key}\r\n" if key is not None else ""
    return f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n{authorization}{more}\r\n".encode() + body


async def _first_lines(readers: list[asyncio.StreamReader]) -> str:
    """Return how often each status was answered, and how many connections have none."""

    async def status(reader: asyncio.StreamReader) -> str:
        try:
            async with asyncio.timeout(0.5):
                line = await reader.readline()
        except (TimeoutError, OSError, ValueError):
            return "open"
        return line.split(b" ")[1].decode() if line.count(b" ") > 1 else "closed"

    counts = Counter(await asyncio.gather(*map(status, readers)))
    return ", ".join(f"{number:,} {name}" for name, number in counts.most_common())


async def unread_streams(target: Target) -> str:
    """Ten answers of a million rows that nobody reads, for 20 s."""
    path = f"/api/v1/devices/{HISTORY_DEVICE}/measurements?limit=1000000&from=2000-01-01T00:00:00Z"
    path = path.replace("2000", str(time.gmtime().tm_year - 1))
    async with _connections(target, [_request("GET", path, target.attacker_key)] * 10) as readers:
        await asyncio.sleep(20)
        return await _first_lines(readers)


async def half_bodies(target: Target) -> str:
    """4,500 bodies of 64 kB of which half is sent, without a key, for 20 s."""
    request = _request("POST", "/api/v1/dead-letters/replay", None, "Content-Length: 64000\r\n", b"x" * 32_000)
    async with _connections(target, [request] * 4500) as readers:
        await asyncio.sleep(20)
        return await _first_lines(readers)


async def unread_live(target: Target) -> str:
    """100 readers of live data that read nothing, while 40,000 readings come."""
    request = _request("GET", "/api/v1/live", target.attacker_key)
    async with _connections(target, [request] * 100) as readers:
        body = json.dumps({f"metric_{number}": 1.5 for number in range(20)}).encode()
        await publish_many(target, [(_topic(f"live-{number % 50}"), body) for number in range(2000)])
        await asyncio.sleep(10)
        return await _first_lines(readers)


async def wide_aggregates(target: Target) -> str:
    """20 aggregates of a year at once, three times."""
    now = time.time()
    parameters = {"from": str(int(now - 365 * 86_400)), "to": str(int(now)), "bucket": "1h", "aggregate": "avg,min,max"}
    counts: Counter[str] = Counter()
    headers = target.headers(target.attacker_key)
    limits = httpx2.Limits(max_connections=20)
    async with httpx2.AsyncClient(
        base_url=target.instance.api_url, headers=headers, timeout=60, trust_env=False, limits=limits
    ) as api:

        async def ask() -> None:
            try:
                answer = await api.get(f"/api/v1/devices/{HISTORY_DEVICE}/measurements", params=parameters)
                counts[str(answer.status_code)] += 1
            except httpx2.HTTPError as error:
                counts[type(error).__name__] += 1

        for _ in range(3):
            await asyncio.gather(*(ask() for _ in range(20)))
    return ", ".join(f"{number} {name}" for name, number in counts.most_common())


ATTACKS: Final = (
    Attack("2,000 malformed messages", malformed),
    Attack("600 payloads of 0.9 MB", large),
    Attack("5,000 unknown tenants", unknown_tenants),
    Attack("ten unread streams", unread_streams),
    Attack("20 aggregates of a year", wide_aggregates),
    Attack("100 unread live readers", unread_live),
    Attack("4,500 half bodies", half_bodies),
)
