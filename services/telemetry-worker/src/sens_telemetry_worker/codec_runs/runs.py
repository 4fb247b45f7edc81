"""The nouns of a run: what was asked for, how far it is, and the messages of a step."""

from datetime import UTC, datetime, timedelta
from typing import Final, Literal, NamedTuple, Self

import msgspec

from sens_common.dead_letters import Origin
from sens_common.envelope import Message
from sens_payloads.profiles import CodecVersion
from sens_telemetry_worker.codec_runs.judging import Values
from sens_telemetry_worker.codec_runs.report import Report
from sens_telemetry_worker.tenants import Refusal

type Kind = Literal["redecode", "dry_run", "compare"]
Phase = Literal["waiting", "frames", "stream", "letters", "coverage"]

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class RunLostError(Exception):
    """The run was cancelled, or another worker has done the step; nothing of it may be committed."""


class RunFailedError(Exception):
    """The run can't be finished; the text says why."""


class CodecVersionGoneError(Exception):
    """A version that a run needs was deleted, and the run has ended with that; the text is its name."""


class ChangedMeanwhileError(Exception):
    """Names, or the kept messages of the step, have changed; the step has to be done again."""


class Progress(msgspec.Struct):
    """Where a run goes on.

    Attributes:
        phase: What it is at. It waits until all is stored that was in the stream when it began.
        stream: When the stream was made, microseconds since the epoch.
        until: The last sequence that was in the stream then; later messages are not the run's.
        sequence: The next one in the stream.
        index: So many messages of that envelope are done.
        first_sequence: Of a comparison: the first one that is looked at.
        reached: Readings before this time are done, microseconds since the epoch; of a comparison, messages received before.
        source_id: Of a comparison: messages of sources with smaller ids are done.
        letter_id: Of a comparison: dead letters up to this one are done; -1 when all are.
        uncovered: Whether the last reading that was looked at is not covered.
    """

    phase: Phase = "waiting"
    stream: int = 0
    until: int = 0
    sequence: int = 0
    index: int = 0
    first_sequence: int = 0
    reached: int = 0
    source_id: int = 0
    letter_id: int = 0
    uncovered: bool = False

    @classmethod
    def of(cls, text: str) -> Self:
        """Return the progress of a JSON text."""
        return msgspec.json.decode(text, type=cls)

    def text(self) -> str:
        """Return it as JSON."""
        return msgspec.json.encode(self).decode()


class Run(NamedTuple):
    """A run that is not finished.

    Attributes:
        id: Its id.
        tenant_id: Whose it is.
        tenant: That tenant's name.
        kind: What it is for.
        device: Whose messages are decoded; None of a comparison.
        first: Readings, of a comparison receipts, from this time on, microseconds since the epoch.
        past: And before this time.
        codec: What decodes.
        other: Of a comparison: the version before.
        source: Of a comparison: whose messages are taken, None: those of all sources.
        candidates: Versions that may have decoded what is stored, the likeliest first.
        progress: How far it is.
        report: What was found.
        written_progress: How far it is, as the database says it.
    """

    id: int
    tenant_id: int
    tenant: str
    kind: Kind
    device: str | None
    first: int
    past: int
    codec: CodecVersion
    other: CodecVersion | None
    source: str | None
    candidates: list[CodecVersion]
    progress: Progress
    report: Report
    written_progress: str


class KeptFrame(NamedTuple):
    """A row of a message that was kept: its reading's time, microseconds since the epoch, its origin, its source, and the message itself.

    The message is None where its payload is gone.
    """

    ts: int
    origin: Origin
    source_id: int
    message: Message | None


class Window(NamedTuple):
    """The kept messages of a device that are decoded in one step.

    Attributes:
        first: The times of their readings, microseconds since the epoch.
        past: All of them lie before it.
        frames: In the order of time, then of their receipt.
    """

    first: int
    past: int
    frames: list[KeptFrame]


class StreamMessage(NamedTuple):
    """A message in the stream, and where it came from first."""

    origin: Origin
    message: Message


class StreamState(NamedTuple):
    """The stream: when it was made, microseconds since the epoch, its first and last sequence, and up to which all is stored."""

    created_at: int
    first: int
    last: int
    settled: int


class DecodedFrame(NamedTuple):
    """What a message says of a device and time.

    Attributes:
        ts: Microseconds since the epoch.
        origin: Of the message.
        received_at: Of the message, microseconds since the epoch.
        values: What it says now, or why it can't be decoded.
        former: What it may have said before, by each candidate; used where it is not known what it had led to.
    """

    ts: int
    origin: Origin
    received_at: int
    values: Values | Refusal
    former: tuple[Values, ...] = ()


def moment(microseconds: int) -> datetime:
    """Return a time of microseconds since the epoch."""
    return EPOCH + timedelta(microseconds=microseconds)


def microseconds(at: datetime) -> int:
    """Return microseconds since the epoch."""
    return (at - EPOCH) // timedelta(microseconds=1)
