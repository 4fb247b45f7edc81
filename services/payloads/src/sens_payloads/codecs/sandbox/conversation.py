"""Asks a child to decode calls, and takes its answers, whose order is that of the calls."""

from collections.abc import Sequence
from typing import Final, NamedTuple

import orjson

from sens_common.dead_letters import Reason
from sens_common.errors import RejectedMessageError
from sens_payloads.codecs.calls import MAX_FRAME_BYTES, Call, Outcome
from sens_payloads.codecs.sandbox import protocol, results
from sens_payloads.codecs.sandbox.child_limits import CALL_SECONDS, LOAD_SECONDS
from sens_payloads.codecs.sandbox.process import Child, ChildEndedError
from sens_payloads.profiles import CodecVersion

_MAX_BATCH_BYTES: Final = 65_536
_RELOAD_SECONDS: Final = 0.05
"""A child may have to make a fresh context between two calls."""
_NONSENSE: Final = "it wrote something that is not an answer"


class LoadFailedError(Exception):
    """A codec can't be loaded; `outcome` says why, for each of its messages."""

    def __init__(self, outcome: RejectedMessageError) -> None:
        super().__init__(str(outcome))
        self.outcome = outcome


class Answer(NamedTuple):
    """What became of the next calls of a batch, at least one, and how many bytes said so."""

    outcomes: list[Outcome]
    size: int


class Batch(NamedTuple):
    """Calls that go to a child together.

    Attributes:
        codec: Of all of them.
        calls: At most `protocol.MAX_BATCH_CALLS`.
        each: Whether each is answered by itself, so that it is known which one ends a child.
    """

    codec: CodecVersion
    calls: Sequence[Call]
    each: bool


def next_batch(codec: CodecVersion, calls: Sequence[Call], start: int, end: int, *, each: bool) -> Batch:
    """Return the calls from `start` that go to the child together: none beyond `end`, and none from the first on whose frame is too large."""
    size = 0
    stop = start
    while stop < min(end, start + protocol.MAX_BATCH_CALLS) and size < _MAX_BATCH_BYTES:
        length = len(calls[stop].frame)
        if length > MAX_FRAME_BYTES:
            break
        size += length
        stop += 1
    return Batch(codec, calls[start:stop], each or stop - start == 1)


def ask(child: Child, batch: Batch) -> None:
    """Send a batch."""
    body = orjson.dumps(
        [
            (list(frame), f_port, received_at // 1000, variables and dict(variables))
            for frame, f_port, received_at, variables in batch.calls
        ],
        default=dict,
    )
    child.send(protocol.RUN, protocol.RUN_HEADER.pack(batch.codec.sha256, batch.each, len(batch.calls)) + body)


async def answer(child: Child, batch: Batch, answered: int) -> Answer:
    """Return what became of the next calls of a batch.

    Args:
        child: That was asked.
        batch: What it was asked.
        answered: How many calls of it have an answer.

    Raises:
        ChildEndedError: The child is gone, or what it says is nonsense.
        LoadFailedError: The codec can't be loaded.
    """
    lines = batch.codec.source.count("\n") + 1
    kind, body = await child.receive(CALL_SECONDS + _RELOAD_SECONDS)
    if kind == protocol.MISSING and answered == 0:
        await load(child, batch.codec)
        ask(child, batch)
        kind, body = await child.receive(CALL_SECONDS + _RELOAD_SECONDS)
    if kind == protocol.RESULTS:
        try:
            return Answer(results.parse(body, len(batch.calls) - answered, lines), len(body))
        except results.NonsenseError:
            raise ChildEndedError(_NONSENSE) from None
    if kind == protocol.LIMIT:
        return Answer([results.limit(body.decode("utf-8", "replace"))], len(body))
    raise ChildEndedError(_NONSENSE)


async def load(child: Child, codec: CodecVersion) -> int:
    """Load a codec into a child, and return its form, an index of `protocol.FORMS`, -1 where it has none of them.

    Raises:
        ChildEndedError: The child is gone.
        LoadFailedError: The codec can't be loaded.
    """
    child.send(protocol.LOAD, codec.sha256 + codec.source.encode("utf-8", "replace"))
    kind, body = await child.receive(LOAD_SECONDS)
    if kind == protocol.LOADED and body in {b"-1", b"0", b"1", b"2"}:
        return int(body)
    if kind == protocol.FAILED:
        raise LoadFailedError(_load_failure(body.decode("utf-8", "replace"), codec))
    raise ChildEndedError(_NONSENSE)


def _load_failure(words: str, codec: CodecVersion) -> RejectedMessageError:
    lines = codec.source.count("\n") + 1
    if words.startswith("["):
        try:
            (failed,) = results.parse(f"[{words}]".encode(), 1, lines)
        except results.NonsenseError:
            failed = None
        if isinstance(failed, RejectedMessageError):
            return failed
    if words.startswith("InternalError: interrupted"):
        return RejectedMessageError(Reason.CODEC_LIMIT, "the codec took too long to load")
    if "out of memory" in words:
        return results.limit(words)
    message, _, stack = words.partition("\n")
    return results.failure("e", message, stack, lines)
