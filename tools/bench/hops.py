"""Each hop by itself: what comes before it waits, and what comes after it does not run."""

import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Final

from tools.bench.figures import Rate
from tools.bench.load import Shape
from tools.bench.rig import PUBLISHED, SETTLED, STORED, Rig
from tools.stack.path import TELEMETRY, StackError
from tools.stack.usage import Usage, difference

BROKER_ALONE: Final = "broker alone"
INTO_THE_LOG: Final = "MQTT to log"
INTO_THE_DATABASE: Final = "log to database"
_WAIT_SECONDS: Final = 300


def broker_alone(rig: Rig, shape: Shape) -> Rate:
    """Publish to a subscriber that acknowledges at once; the workers take no part.

    Raises:
        StackError: The subscriber did not get everything.
    """
    shape = shape._replace(root="bare")
    packets = rig.prepare(shape)
    command = [sys.executable, "-m", "tools.bench.subscriber", str(rig.stack.mqtt_port), "bare/#"]
    with subprocess.Popen([*command, str(shape.messages)], stdout=subprocess.PIPE, text=True) as subscriber:
        if subscriber.stdout is None or subscriber.stdout.readline() != "ready\n":
            raise StackError("the subscriber could not subscribe")
        before = rig.usage()
        started = time.perf_counter()
        rig.publish(shape, packets)
        try:
            output, _ = subscriber.communicate(timeout=_WAIT_SECONDS)
        except subprocess.TimeoutExpired as error:
            subscriber.kill()
            raise StackError(f"the subscriber did not get {shape.messages:,} messages in time") from error
        seconds = time.perf_counter() - started
        after = rig.usage()
    if not output:
        raise StackError("the subscriber lost its connection")
    costs = difference(before, after, shape.messages) | {"subscriber": float(output) / shape.messages * 1e6}
    return Rate(shape.messages, shape.messages / seconds, costs, offered_per_second=shape.rate)


def into_the_log(rig: Rig, shape: Shape) -> Rate:
    """Publish while no telemetry worker runs; the messages stay in the log."""
    packets = rig.prepare(shape)
    rig.stack.stop(TELEMETRY)
    logged = rig.count(PUBLISHED)
    before = rig.usage()
    started = time.perf_counter()
    rig.publish(shape, packets)
    seconds = rig.reach(PUBLISHED, logged + shape.messages) - started
    costs = difference(before, rig.usage(), shape.messages)
    return Rate(shape.messages, shape.messages / seconds, costs, offered_per_second=shape.rate)


def into_the_database(rig: Rig, messages: int) -> Rate:
    """Start the telemetry worker with so many messages in the log, while nobody publishes."""
    started, before = time.perf_counter(), rig.usage()
    rig.stack.start(TELEMETRY)
    return drain(rig, messages, 0, started, before)


def one_after_the_other(stored: list[Rate], rig: Rig, shape: Shape) -> Rate:
    """Measure the way into the log, then that into the database, whose figures are added to `stored`."""
    logged = into_the_log(rig, shape)
    stored.append(into_the_database(rig, shape.messages))
    return logged


def drain(rig: Rig, messages: int, settled: float, started: float, before: Mapping[str, Usage]) -> Rate:
    """Wait until messages of the log are stored. A worker's start does not count, unless everything was stored by then.

    Args:
        rig: The path.
        messages: How many there are to be stored.
        settled: What the worker's counters of settled and stored messages were before the first of them.
        started: When the worker, or what it needs, was started.
        before: What the processes had used then.

    Raises:
        StackError: Some were settled and not stored.
    """
    done = rig.count(SETTLED) - settled
    if done < messages:
        started, before = time.perf_counter(), rig.usage()
    else:
        done = 0
    seconds = rig.reach(SETTLED, settled + messages) - started
    after = rig.usage()
    if (stored := rig.count(STORED) - settled) != messages:
        raise StackError(f"{messages:,} messages waited, and {stored:,.0f} counted as stored")
    counted = int(messages - done)
    costs = difference({name: before.get(name, Usage(0.0, 0.0)) for name in after}, after, counted)
    return Rate(counted, counted / seconds, costs)
