"""The measurement with malformed messages among the good ones: what the dead letters cost those that are stored."""

import time
from dataclasses import replace
from functools import partial
from typing import Final

from tools.bench.figures import Malformed
from tools.bench.load import Chunk, Shape
from tools.bench.measured_path import SETTLED, STORED, MeasuredPath
from tools.bench.runs import end_to_end, sustained
from tools.stack.path import TELEMETRY, StackError
from tools.stack.usage import difference

_DEAD_LETTERED: Final = (TELEMETRY, "sens_telemetry_messages_dead_lettered_total")


def compare(path: MeasuredPath, shape: Shape, share: float, rounds: int) -> list[Malformed]:
    """Measure with malformed messages and without, in turns, each at the load of which most gets through."""
    without, with_them = path.with_empty_tables(end_to_end), path.with_empty_tables(partial(malformed, share=share))
    good, mixed = sustained(without, shape), sustained(with_them, shape)
    figures = []
    for _ in range(rounds):
        beside = without(good).per_second
        figures.append(replace(with_them(mixed), beside=beside))
    return figures


def malformed(path: MeasuredPath, shape: Shape, share: float) -> Malformed:
    """Publish good and malformed messages, and wait until all are stored or dead letters.

    Raises:
        StackError: A good message was not stored, or a malformed one is no dead letter.
    """
    spoilt = [_spoilt(chunks, share) for chunks in path.prepare(shape)]
    count = sum(number for _, number in spoilt)
    settled, *first = (path.count(counter) for counter in (SETTLED, STORED, _DEAD_LETTERED))
    before = path.usage()
    started = time.perf_counter()
    path.publish(shape, [chunks for chunks, _ in spoilt])
    seconds = path.reach(SETTLED, settled + shape.messages) - started
    after = path.usage()
    stored, dead_lettered = (
        path.count(counter) - base for counter, base in zip((STORED, _DEAD_LETTERED), first, strict=True)
    )
    if (stored, dead_lettered) != (shape.messages - count, count):
        raise StackError(f"of {count} malformed messages, {dead_lettered:g} are dead letters; {stored:g} were stored")
    return Malformed(
        messages=shape.messages,
        per_second=shape.messages / seconds,
        cpu_microseconds=difference(before, after, shape.messages),
        offered_per_second=shape.rate,
        malformed=count,
        stored_per_second=stored / seconds,
    )


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
