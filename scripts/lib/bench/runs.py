"""The measurements: each gives one figure or a few, on a path that runs."""

import asyncio
import statistics
import time
from collections.abc import Mapping
from typing import Final, NamedTuple

import asyncpg
from scripts.lib.bench.load import Client, Shape, connected, packet, prepared, publish, publish_steadily
from scripts.lib.stack.path import HOST, INGESTION, TELEMETRY, Stack, StackError
from scripts.lib.stack.usage import difference

from sens_common.database import connect

_PUBLISHED: Final = "sens_ingestion_messages_published_total"
_SETTLED: Final = "sens_telemetry_messages_received_total"
_STORED: Final = "sens_telemetry_messages_stored_total"
_POLL_SECONDS: Final = 0.05
_DRAIN_SECONDS: Final = 900
_PROBE_PAUSE_SECONDS: Final = 0.01
_VALUES: Final = 5


class Throughput(NamedTuple):
    """What the path does when messages come as fast as they are acknowledged.

    Attributes:
        messages: How many.
        acknowledged_per_second: Messages acknowledged to the publishers, from the first to the last.
        logged_per_second: Messages that the log has.
        stored_per_second: Messages in the database, from the first publish to the last commit.
        values_per_second: Numbers in the database.
        cpu_microseconds: Of each process, a message.
        megabytes: Memory of each process at the end.
    """

    messages: int
    acknowledged_per_second: float
    logged_per_second: float
    stored_per_second: float
    values_per_second: float
    cpu_microseconds: Mapping[str, float]
    megabytes: Mapping[str, float]


class Latency(NamedTuple):
    """From publishing a message to another database session's seeing it.

    Attributes:
        rate: Messages a second beside the probes.
        probes: How many messages were looked for.
        median_milliseconds: Half of them took no longer.
        p99_milliseconds: 99 of 100 took no longer.
        max_milliseconds: The longest.
    """

    rate: float
    probes: int
    median_milliseconds: float
    p99_milliseconds: float
    max_milliseconds: float


class Backlog(NamedTuple):
    """What happens when the database was away.

    Attributes:
        messages: How many waited in the log.
        drained_per_second: At what rate they were stored.
        megabytes: Each worker's memory: before, and the highest while the backlog was drained.
    """

    messages: int
    drained_per_second: float
    megabytes: Mapping[str, tuple[float, float]]


def throughput(stack: Stack, shape: Shape) -> Throughput:
    """Publish as fast as it is acknowledged, and wait until everything is stored.

    Raises:
        StackError: Not everything was stored, or something twice.
    """
    chunks = [prepared(shape, number, _now()) for number in range(shape.connections)]
    logged, settled, stored = (
        stack.metric(*of) for of in ((INGESTION, _PUBLISHED), (TELEMETRY, _SETTLED), (TELEMETRY, _STORED))
    )
    before = stack.usage()
    started = time.perf_counter()
    published = asyncio.run(publish(HOST, stack.mqtt_port, shape, chunks))
    logged_at = _reach(stack, INGESTION, _PUBLISHED, logged + shape.messages)
    settled_at = _reach(stack, TELEMETRY, _SETTLED, settled + shape.messages)
    after = stack.usage()
    if (now := stack.metric(TELEMETRY, _STORED) - stored) != shape.messages:
        raise StackError(f"{shape.messages} messages were published, and {now:g} counted as stored")
    return Throughput(
        messages=published.messages,
        acknowledged_per_second=published.messages / published.seconds,
        logged_per_second=shape.messages / (logged_at - started),
        stored_per_second=shape.messages / (settled_at - started),
        values_per_second=_VALUES * shape.messages / (settled_at - started),
        cpu_microseconds=difference(before, after, shape.messages),
        megabytes={name: used.resident_megabytes for name, used in after.items()},
    )


def latency(stack: Stack, rate: float, seconds: float, shape: Shape) -> Latency:
    """Publish at a rate, and look one probe after the other up in the database.

    Raises:
        StackError: A probe did not appear.
    """
    return asyncio.run(_latency(stack, rate, seconds, shape))


async def _latency(stack: Stack, rate: float, seconds: float, shape: Shape) -> Latency:
    load = shape._replace(messages=int(rate * seconds))
    database = await connect(stack.database, "bench")
    try:
        async with connected(HOST, stack.mqtt_port, 1, name="probe") as [client]:
            device = await _probe_device(client, database, load)
            background = asyncio.create_task(publish_steadily(HOST, stack.mqtt_port, load, rate))
            times: list[float] = []
            while not background.done():
                times.append(await _probe(client, database, device, load, len(times) + 1))
                await asyncio.sleep(_PROBE_PAUSE_SECONDS)
            await background
    finally:
        await database.close()
    times.sort()
    return Latency(
        rate=rate,
        probes=len(times),
        median_milliseconds=statistics.median(times) * 1e3,
        p99_milliseconds=times[int(len(times) * 0.99)] * 1e3,
        max_milliseconds=times[-1] * 1e3,
    )


_PROBE_NUMBER: Final = 9_999_999  # device-9999999


async def _probe_device(client: Client, database: "asyncpg.Connection[asyncpg.Record]", shape: Shape) -> int:
    """Return the number of the probes' device, which its first message registers."""
    client.write(packet(shape._replace(devices=_PROBE_NUMBER + 1), _PROBE_NUMBER, 0, _now()))
    deadline = time.monotonic() + _DRAIN_SECONDS
    while time.monotonic() < deadline:
        found: int | None = await database.fetchval(
            "SELECT id FROM sens.devices WHERE name = $1", f"device-{_PROBE_NUMBER:07d}"
        )
        if found is not None:
            return found
        await asyncio.sleep(_POLL_SECONDS)
    raise StackError("the probe's device was not registered")


async def _probe(
    client: Client, database: "asyncpg.Connection[asyncpg.Record]", device: int, shape: Shape, index: int
) -> float:
    """Return how many seconds a message took to be seen."""
    moment = _now()
    started = time.perf_counter()
    client.write(packet(shape._replace(devices=_PROBE_NUMBER + 1), _PROBE_NUMBER, index, moment))
    while time.perf_counter() - started < _DRAIN_SECONDS:
        seen = await database.fetchval(
            "SELECT true FROM sens.measurements WHERE device_id = $1 AND ts = to_timestamp($2::float8 / 1000) LIMIT 1",
            device,
            float(moment),
        )
        if seen:
            return time.perf_counter() - started
        await asyncio.sleep(0)
    raise StackError("a probe did not appear")


def backlog(stack: Stack, shape: Shape) -> Backlog:
    """Stop the telemetry worker, let messages wait in the log, start it again and see how it gets through them."""
    chunks = [prepared(shape, number, _now()) for number in range(shape.connections)]
    stack.stop(TELEMETRY)
    logged = stack.metric(INGESTION, _PUBLISHED)
    asyncio.run(publish(HOST, stack.mqtt_port, shape, chunks))
    _reach(stack, INGESTION, _PUBLISHED, logged + shape.messages)
    before = stack.usage()
    stack.start(TELEMETRY)
    first = stack.usage()[TELEMETRY].resident_megabytes
    highest = {INGESTION: before[INGESTION].resident_megabytes, TELEMETRY: first}
    started = time.perf_counter()
    done = stack.metric(TELEMETRY, _SETTLED)
    to_go = shape.messages - done
    while (settled := stack.metric(TELEMETRY, _SETTLED)) < shape.messages:
        used = stack.usage()
        highest = {name: max(most, used[name].resident_megabytes) for name, most in highest.items()}
        if time.perf_counter() - started > _DRAIN_SECONDS:
            raise StackError(f"{shape.messages - settled:g} messages still wait after {_DRAIN_SECONDS} s")
        time.sleep(_POLL_SECONDS)
    seconds = time.perf_counter() - started
    return Backlog(
        messages=shape.messages,
        drained_per_second=to_go / seconds,
        megabytes={
            INGESTION: (before[INGESTION].resident_megabytes, highest[INGESTION]),
            TELEMETRY: (first, highest[TELEMETRY]),
        },
    )


def _reach(stack: Stack, worker: str, metric: str, wanted: float) -> float:
    deadline = time.perf_counter() + _DRAIN_SECONDS
    while stack.metric(worker, metric) < wanted:
        if time.perf_counter() > deadline:
            raise StackError(f"{worker}: {metric} did not reach {wanted:g} within {_DRAIN_SECONDS} s")
        time.sleep(_POLL_SECONDS)
    return time.perf_counter()


def _now() -> int:
    return time.time_ns() // 1_000_000
