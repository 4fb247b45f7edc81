"""What a run has found: counts, the first differences and errors, and what it did not cover. It is kept as JSON with the run."""

from typing import Annotated, Final, Self

import msgspec

from sens_common.dead_letters import Origin
from sens_telemetry_worker.codec_runs.judging import Difference
from sens_telemetry_worker.tenants import Refusal

MOST_EXAMPLES: Final = 20
"""Differences, errors and stretches that a report has; the counts count all."""
_MOST_CHARACTERS: Final = 300

type Scalar = float | str | None


class Counts(msgspec.Struct):
    """How many messages and values there were so far.

    Attributes:
        messages: That were decoded again.
        unchanged: Those of which nothing changes.
        changed: Those of which a value is added, changed or removed.
        failed: Those that the codec, or what is stored, refuses; what is stored of them stays.
        added: Values that were not there.
        changed_values: Values that are other ones.
        removed: Values that go.
        uncovered: Readings in the range that no message was found for; they stay.
        failing_before: Of a comparison: messages that the version before alone can't decode.
        failing_after: Of a comparison: messages that the version alone can't decode.
    """

    messages: int = 0
    unchanged: int = 0
    changed: int = 0
    failed: int = 0
    added: int = 0
    changed_values: int = 0
    removed: int = 0
    uncovered: int = 0
    failing_before: int = 0
    failing_after: int = 0


class ChangedValue(msgspec.Struct):
    """A value that changes; its time in microseconds since the epoch, None is no value; of a comparison with its device."""

    time: int
    metric: str
    before: Scalar
    after: Scalar
    device: str | None = None


class FailedMessage(msgspec.Struct):
    """A message that is refused; times in microseconds since the epoch, and where it came from."""

    time: int
    received_at: int
    reason: str
    detail: str
    sequence: int
    index: int


class Stretch(msgspec.Struct):
    """Readings in a row that no message was found for: the times of the first and the last, and how many."""

    first: int
    last: int
    readings: int


class Report(msgspec.Struct):
    """What a run has found.

    Attributes:
        counts: So far.
        differences: The first ones.
        errors: The first ones.
        uncovered: The first stretches without messages.
    """

    counts: Counts = msgspec.field(default_factory=Counts)
    differences: Annotated[list[ChangedValue], msgspec.Meta(max_length=MOST_EXAMPLES)] = msgspec.field(
        default_factory=list
    )
    errors: Annotated[list[FailedMessage], msgspec.Meta(max_length=MOST_EXAMPLES)] = msgspec.field(default_factory=list)
    uncovered: Annotated[list[Stretch], msgspec.Meta(max_length=MOST_EXAMPLES)] = msgspec.field(default_factory=list)

    @classmethod
    def of(cls, text: str) -> Self:
        """Return the report of a JSON text."""
        return msgspec.json.decode(text, type=cls)

    def text(self) -> str:
        """Return it as JSON."""
        return msgspec.json.encode(self).decode()

    def add_difference(self, time: int, difference: Difference, device: str | None = None) -> None:
        """Count a value that differs."""
        if difference.before is None:
            self.counts.added += 1
        elif difference.after is None:
            self.counts.removed += 1
        else:
            self.counts.changed_values += 1
        if len(self.differences) < MOST_EXAMPLES:
            self.differences.append(
                ChangedValue(time, difference.metric[0], _short(difference.before), _short(difference.after), device)
            )

    def add_error(self, time: int, received_at: int, origin: Origin, refusal: Refusal) -> None:
        """Take note of a message that is refused, without counting it."""
        if len(self.errors) < MOST_EXAMPLES:
            detail = refusal.detail[:_MOST_CHARACTERS]
            self.errors.append(
                FailedMessage(time, received_at, str(refusal.reason), detail, origin.sequence, origin.message_index)
            )

    def add_uncovered(self, first: int, last: int, readings: int, *, continues: bool) -> None:
        """Count readings in a row that no message was found for; `continues` says that they follow the last ones."""
        self.counts.uncovered += readings
        if continues and self.uncovered:
            self.uncovered[-1].last = last
            self.uncovered[-1].readings += readings
        elif len(self.uncovered) < MOST_EXAMPLES:
            self.uncovered.append(Stretch(first, last, readings))


def _short(value: Scalar) -> Scalar:
    return value[:_MOST_CHARACTERS] if isinstance(value, str) else value
