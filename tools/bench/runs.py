"""From publishers to rows: as fast as it goes, and how long one message takes."""

import asyncio
import contextlib
import statistics
import time
from collections.abc import Callable
from typing import Final

import asyncpg

from sens_common.database import connect
from tools.bench.figures import EndToEnd, Latency, Rate
from tools.bench.load import Shape, packet, payload, publish_steadily
from tools.bench.measured_path import PUBLISHED, SETTLED, STORED, MeasuredPath
from tools.stack.path import StackError
from tools.stack.server import HOST
from tools.stack.stored import with_stored_values
from tools.stack.usage import difference

_PROBES_PER_SECOND: Final = 100
_POLL_SECONDS: Final = 0.002
_LOST_SECONDS: Final = 60
_STEP: Final = 1.1
_MISSES: Final = 2
# Which of the message's values is looked at makes no difference: they are stored together.
_LOOK: Final = (
    "SELECT (extract(epoch FROM ts) * 1000)::bigint FROM stored_values"
    " WHERE device_id = $1 AND metric = 'temperature' AND ts >= to_timestamp($2::bigint / 1000.0)"
)
_PERCENTILES: Final = ("50", "75", "90", "95", "99", "99.9")


def end_to_end(path: MeasuredPath, shape: Shape) -> EndToEnd:
    """Publish, and wait until everything is stored.

    Raises:
        StackError: Not everything was stored, or something twice.
    """
    packets = path.prepare(shape)
    logged, settled, stored = (path.count(counter) for counter in (PUBLISHED, SETTLED, STORED))
    written = path.written()
    before = path.usage()
    started = time.perf_counter()
    published = path.publish(shape, packets)
    logged_at = path.reach(PUBLISHED, logged + shape.messages)
    settled_at = path.reach(SETTLED, settled + shape.messages)
    after = path.usage()
    if (now := path.count(STORED) - stored) != shape.messages:
        raise StackError(f"{shape.messages:,} messages were published, and {now:,.0f} counted as stored")
    return EndToEnd(
        messages=shape.messages,
        per_second=shape.messages / (settled_at - started),
        cpu_microseconds=difference(before, after, shape.messages),
        acknowledged_per_second=published.messages / published.seconds,
        logged_per_second=shape.messages / (logged_at - started),
        values_per_second=shape.values * shape.messages / (settled_at - started),
        megabytes={name: used.resident_megabytes for name, used in after.items() if used.resident_megabytes},
        offered_per_second=shape.rate,
        **path.written_since(written, shape.messages),
    )


def fastest[R: Rate](measure: Callable[[Shape], R], shape: Shape, rounds: int) -> list[R]:
    """Find the load of which most gets through, as `sustained`, and measure it so many times."""
    load = sustained(measure, shape)
    return [measure(load) for _ in range(rounds)]


def sustained[R: Rate](measure: Callable[[Shape], R], shape: Shape) -> Shape:
    """Return the load of which most gets through.

    A load that is as fast as the broker acknowledges is not sustained: Mosquitto then takes messages in, and passes few on until the
    publishers are done. It tells where to begin; loads of a rate follow, each a tenth more than the last, until two have brought nothing.

    Args:
        measure: Gives the figures of a load.
        shape: The load, whatever its rate.
    """
    offered = measure(shape._replace(rate=0.0)).per_second
    best = measure(shape._replace(rate=offered))
    misses = 0
    while misses < _MISSES:
        offered *= _STEP
        one = measure(shape._replace(rate=offered))
        best, misses = (one, 0) if one.per_second > best.per_second else (best, misses + 1)
    return shape._replace(rate=best.offered_per_second)


def latency(path: MeasuredPath, rate: float, seconds: float, shape: Shape) -> Latency:
    """Publish at a rate. Some messages of the load are probes, and another database session looks for their rows.

    Probes leave on schedule, however long those before them take: a stall counts for each of them. One query every two
    milliseconds, which reads one device's newest rows from the key, looks for all that are under way.

    Raises:
        StackError: A probe did not appear.
    """
    path.warm_up(shape)
    look = with_stored_values(path.stack.value_tables(), _LOOK)
    return asyncio.run(_latency(path, rate, shape._replace(messages=int(rate * seconds)), look))


class _Probes:
    """The probes under way: device time, which names a probe, and when it was sent."""

    def __init__(self) -> None:
        self.sent: dict[int, float] = {}
        self.seconds: list[float] = []
        self.look_seconds: list[float] = []
        self._last = 0

    def send(self) -> int:
        """Note a probe that is sent now; return its device time, which no other one has."""
        self._last = max(time.time_ns() // 1_000_000, self._last + 1)
        self.sent[self._last] = time.perf_counter()
        return self._last

    async def look(self, statement: "asyncpg.prepared_stmt.PreparedStatement[asyncpg.Record]", device: int) -> None:
        """See which are stored."""
        started = time.perf_counter()
        rows = await statement.fetch(device, min(self.sent))
        now = time.perf_counter()
        self.look_seconds.append(now - started)
        for (milliseconds,) in rows:
            if (sent := self.sent.pop(milliseconds, None)) is not None:
                self.seconds.append(now - sent)


async def _latency(path: MeasuredPath, rate: float, shape: Shape, look: str) -> Latency:
    every = max(2, round(rate / _PROBES_PER_SECOND))
    probes = _Probes()

    def make(number: int, index: int) -> bytes:
        if number % every:
            moment = time.time_ns() // 1_000_000
            return packet(shape, number % shape.devices, index, payload(shape, number, moment))
        # The first message of a reading that is split has the metric that is looked at.
        return packet(shape, shape.devices, index, payload(shape, number * shape.parts, probes.send()))

    database = await connect(path.stack.database, "bench")
    async with contextlib.AsyncExitStack() as closing:
        closing.push_async_callback(database.close)
        one = shape._replace(messages=1, connections=1)
        await publish_steadily(HOST, path.stack.mqtt_port, one, rate, lambda _number, index: make(0, index))
        device = await _registered(database, f"device-{shape.devices:07d}")
        statement = await database.prepare(look)
        probes.sent.clear()
        load = asyncio.create_task(publish_steadily(HOST, path.stack.mqtt_port, shape, rate, make))
        while not load.done() or probes.sent:
            if probes.sent:
                await probes.look(statement, device)
                if time.perf_counter() - min(probes.sent.values(), default=time.perf_counter()) > _LOST_SECONDS:
                    load.cancel()
                    raise StackError(f"a probe was not stored after {_LOST_SECONDS} s at {rate:,.0f} messages a second")
            await asyncio.sleep(_POLL_SECONDS)
        await load
    times = sorted(probes.seconds)
    at = {percentile: times[int(len(times) * float(percentile) / 100)] for percentile in _PERCENTILES}
    return Latency(
        rate=rate,
        probes=len(times),
        milliseconds={percentile: seconds * 1e3 for percentile, seconds in [*at.items(), ("100", times[-1])]},
        poll_milliseconds=(_POLL_SECONDS + statistics.median(probes.look_seconds)) * 1e3,
    )


async def _registered(database: "asyncpg.Connection[asyncpg.Record]", name: str) -> int:
    async with asyncio.timeout(_LOST_SECONDS):
        while (found := await database.fetchval("SELECT id FROM sens.devices WHERE name = $1", name)) is None:  # noqa: ASYNC110
            await asyncio.sleep(_POLL_SECONDS)  # another process registers it, which sets no event here
    number: int = found
    return number
