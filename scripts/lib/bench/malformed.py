"""The measurement with malformed messages among the good ones: what the dead letters cost those that are stored."""

import asyncio
import statistics
import time
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from scripts.lib.bench.load import Chunk, Shape, prepared, publish
from scripts.lib.stack.path import HOST, TELEMETRY, Stack, StackError
from scripts.lib.stack.usage import difference

_RECEIVED: Final = "sens_telemetry_messages_received_total"
_STORED: Final = "sens_telemetry_messages_stored_total"
_DEAD_LETTERED: Final = "sens_telemetry_messages_dead_lettered_total"
_POLL_SECONDS: Final = 0.05
_DRAIN_SECONDS: Final = 900


class Malformed(NamedTuple):
    """What the path does when some of the messages are no JSON.

    Attributes:
        messages: How many, all in all.
        malformed: How many of them are malformed.
        stored_per_second: Good messages in the database, from the first publish to the last commit.
        settled_per_second: Good and malformed ones, to the last commit or dead letter.
        cpu_microseconds: Of each process, a message.
    """

    messages: int
    malformed: int
    stored_per_second: float
    settled_per_second: float
    cpu_microseconds: Mapping[str, float]


def malformed(stack: Stack, shape: Shape, share: float) -> Malformed:
    """Publish good and malformed messages as fast as they are acknowledged, and wait until all are stored or dead letters.

    Raises:
        StackError: A good message was not stored, or a malformed one is no dead letter.
    """
    now = time.time_ns() // 1_000_000
    spoilt = [_spoilt(prepared(shape, number, now), share) for number in range(shape.connections)]
    count = sum(number for _, number in spoilt)
    metrics = (_RECEIVED, _STORED, _DEAD_LETTERED)
    first = {name: stack.metric(TELEMETRY, name) for name in metrics}
    before = stack.usage()
    started = time.perf_counter()
    asyncio.run(publish(HOST, stack.mqtt_port, shape, [chunks for chunks, _ in spoilt]))
    while stack.metric(TELEMETRY, _RECEIVED) < first[_RECEIVED] + shape.messages:
        if time.perf_counter() - started > _DRAIN_SECONDS:
            raise StackError(f"not all of the {shape.messages} messages were settled within {_DRAIN_SECONDS} s")
        time.sleep(_POLL_SECONDS)
    seconds = time.perf_counter() - started
    after = stack.usage()
    stored, dead_lettered = (stack.metric(TELEMETRY, name) - first[name] for name in metrics[1:])
    if (stored, dead_lettered) != (shape.messages - count, count):
        raise StackError(f"of {count} malformed messages, {dead_lettered:g} are dead letters; {stored:g} were stored")
    return Malformed(
        messages=shape.messages,
        malformed=count,
        stored_per_second=stored / seconds,
        settled_per_second=shape.messages / seconds,
        cpu_microseconds=difference(before, after, shape.messages),
    )


def malformed_table(good: Sequence[float], spoilt: Sequence[Malformed]) -> str:
    """Return the medians for people, beside the rate at which messages are stored when all are good."""
    stored = statistics.median(one.stored_per_second for one in spoilt)
    settled = statistics.median(one.settled_per_second for one in spoilt)
    share = spoilt[0].malformed / spoilt[0].messages
    speed = stored / statistics.median(good)
    return f"with {share:.0%} malformed: {settled:,.0f} /s, of which {stored:,.0f} /s stored, {speed:.0%} of the rate without"


def _spoilt(chunks: list[Chunk], share: float) -> tuple[list[Chunk], int]:
    """Return the chunks with a share of the payloads made malformed, evenly spread, and how many those are.

    A brace becomes a bracket, so that a packet's length stays.
    """
    count = 0
    due = 0.0
    changed = []
    for messages, data in chunks:
        first, *others = data.split(b'{"')
        parts = [first]
        for other in others:
            due += share
            count += (bad := due >= 1)
            due -= bad
            parts += (b'["' if bad else b'{"', other)
        changed.append(Chunk(messages, b"".join(parts)))
    return changed, count
