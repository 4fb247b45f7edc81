"""Each hop by itself: what comes before it waits, and what comes after it does not run."""

import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

from tools.bench.figures import Rate
from tools.bench.load import Shape
from tools.bench.measured_path import PUBLISHED, SETTLED, STORED, MeasuredPath
from tools.program import Program, ProgramError
from tools.stack.path import TELEMETRY, StackError
from tools.stack.usage import Usage, difference

BROKER_ALONE: Final = "broker alone"
INTO_THE_STREAM: Final = "MQTT to stream"
INTO_THE_DATABASE: Final = "stream to database"
_WAIT_SECONDS: Final = 300


def broker_alone(path: MeasuredPath, shape: Shape) -> Rate:
    """Publish to a subscriber that acknowledges at once; the workers take no part.

    Raises:
        StackError: The subscriber did not get everything.
    """
    shape = shape._replace(root="bare")
    packets = path.prepare(shape)
    command = [sys.executable, "-m", "tools.bench.subscriber", str(path.stack.mqtt_port), "bare/#", str(shape.messages)]
    with tempfile.TemporaryDirectory(prefix="sens-bench-") as folder:
        subscriber = Program(
            "the subscriber", command, Path(folder) / "output", ready=lambda: subscriber.output() == "ready\n"
        )
        try:
            with subscriber.running_until_left():
                before = path.usage()
                started = time.perf_counter()
                path.publish(shape, packets)
                if subscriber.wait(_WAIT_SECONDS) is None:
                    raise StackError(f"the subscriber did not get {shape.messages:,} messages in time")
                seconds = time.perf_counter() - started
                after = path.usage()
        except ProgramError as error:
            raise StackError(str(error)) from error
        _, _, used = subscriber.output().partition("\n")
    if subscriber.stop() != 0:
        raise StackError(f"the subscriber failed: {used}")
    costs = difference(before, after, shape.messages) | {"subscriber": float(used) / shape.messages * 1e6}
    return Rate(shape.messages, shape.messages / seconds, costs, offered_per_second=shape.rate)


def into_the_stream(path: MeasuredPath, shape: Shape) -> Rate:
    """Publish while no telemetry worker runs; the messages stay in the stream."""
    packets = path.prepare(shape)
    path.stack[TELEMETRY].stop()
    logged = path.count(PUBLISHED)
    before = path.usage()
    started = time.perf_counter()
    path.publish(shape, packets)
    seconds = path.reach(PUBLISHED, logged + shape.messages) - started
    costs = difference(before, path.usage(), shape.messages)
    return Rate(shape.messages, shape.messages / seconds, costs, offered_per_second=shape.rate)


def into_the_database(path: MeasuredPath, messages: int) -> Rate:
    """Start the telemetry worker with so many messages in the stream, while nobody publishes."""
    start = Start(0, 0, time.perf_counter(), path.usage())
    path.stack.start(TELEMETRY)
    return drain(path, messages, start)


def one_after_the_other(stored: list[Rate], path: MeasuredPath, shape: Shape) -> Rate:
    """Measure the way into the stream, then that into the database, whose figures are added to `stored`."""
    logged = into_the_stream(path, shape)
    stored.append(into_the_database(path, shape.messages))
    return logged


class Start(NamedTuple):
    """What was known when the telemetry worker, or what it needs, was started.

    Attributes:
        settled: The worker's counter of settled messages, before the first of those that wait.
        stored: Its counter of stored messages then.
        at: When it was started, seconds.
        usage: What the processes had used.
    """

    settled: float
    stored: float
    at: float
    usage: Mapping[str, Usage]


def drain(path: MeasuredPath, messages: int, start: Start) -> Rate:
    """Wait until messages of the stream are stored. A worker's start does not count, unless everything was stored by then.

    Args:
        path: The path.
        messages: How many there are to be stored.
        start: What was before.

    Raises:
        StackError: Some were settled and not stored.
    """
    started, before = start.at, start.usage
    done = path.count(SETTLED) - start.settled
    if done < messages:
        started, before = time.perf_counter(), path.usage()
    else:
        done = 0
    seconds = path.reach(SETTLED, start.settled + messages) - started
    after = path.usage()
    if (stored := path.count(STORED) - start.stored) != messages:
        raise StackError(f"{messages:,} messages waited, and {stored:,.0f} counted as stored")
    counted = int(messages - done)
    costs = difference({name: before.get(name, Usage(0.0, 0.0)) for name in after}, after, counted)
    return Rate(counted, counted / seconds, costs)
