"""Runs of codecs in requests and answers."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from sens_platform_api.codec_runs.repository import Order, Run
from sens_platform_api.fields import NextCursor, Time
from sens_platform_api.parameters import (
    EPOCH,
    NAME_PATTERN,
    NAME_WORDS,
    Parameters,
    cursor_field,
    in_words,
    time_text,
)

CodecVersion = Annotated[
    str,
    Field(description="A version of a codec.", max_length=80, examples=["dragino@3"]),
    in_words(r"^[a-z0-9][a-z0-9._-]{0,62}@[1-9][0-9]{0,8}$", "a version of a codec is needed, for example dragino@3"),
]
When = Annotated[
    str,
    Field(description="RFC 3339, an epoch, or relative to now.", max_length=40, examples=["-7d"]),
]
_Scalar = bool | float | str | None


class NewRun(BaseModel):
    """What a run is to do: decode messages of a device again, or compare two versions of a codec."""

    model_config = ConfigDict(extra="forbid")

    kind: Annotated[
        Literal["redecode", "dry_run", "compare"],
        Field(
            description="`redecode` stores what the messages of a device say now; `dry_run` tells what that would change;"
            " `compare` tells what two versions of a codec make of the messages that were received.",
            examples=["dry_run"],
        ),
    ]
    codec: CodecVersion
    before: Annotated[CodecVersion | None, Field(description="Of a comparison: the version before.")] = None
    device: Annotated[
        str | None,
        Field(description="Whose messages; none of a comparison.", max_length=63, examples=["0004a30b001c0530"]),
    ] = None
    source: Annotated[
        str | None,
        Field(description="Of a comparison: whose messages; without it, those of all sources.", max_length=63),
        in_words(NAME_PATTERN, NAME_WORDS),
    ] = None
    from_: Annotated[When, Field(alias="from", description="Readings from this time on; of a comparison, receipts.")]
    to: Annotated[When | None, Field(description="And before this time; without it, now.")] = None

    @model_validator(mode="after")
    def _fits_its_kind(self) -> Self:
        if self.kind == "compare":
            if self.device is not None or self.before is None:
                raise ValueError("a comparison has before, and no device")
            if self.before.partition("@")[0] != self.codec.partition("@")[0] or self.before == self.codec:
                raise ValueError("codec and before are two versions of one codec")
        elif self.device is None or self.before is not None or self.source is not None:
            raise ValueError("decoding again needs a device, and has neither before nor source")
        return self

    def order(self, first: datetime, past: datetime) -> Order:
        """Return it as an order, with its times."""
        codec, _, number = self.codec.partition("@")
        other = None if self.before is None else int(self.before.partition("@")[2])
        return Order(self.kind, codec, int(number), first, past, self.device, other, self.source)


class RunCounts(BaseModel):
    """How many messages and values there were so far. A message with readings of several times may count several times."""

    model_config = ConfigDict(extra="forbid")

    messages: Annotated[int, Field(description="Messages that were decoded.", examples=[1440])]
    unchanged: Annotated[int, Field(description="Those of which nothing changes.", examples=[0])]
    changed: Annotated[int, Field(description="Those of which a value is added, changed or removed.", examples=[1440])]
    failed: Annotated[
        int, Field(description="Those that can't be decoded or stored; what is stored of them stays.", examples=[0])
    ]
    added: Annotated[int, Field(description="Values that were not there.", examples=[1440])]
    changed_values: Annotated[int, Field(description="Values that are other ones.", examples=[1440])]
    removed: Annotated[int, Field(description="Values that go.", examples=[0])]
    uncovered: Annotated[
        int, Field(description="Readings in the range of which no message is there any more; they stay.", examples=[0])
    ]
    failing_before: Annotated[
        int, Field(description="Of a comparison: messages that the version before alone can't decode.", examples=[0])
    ]
    failing_after: Annotated[
        int, Field(description="Of a comparison: messages that the version alone can't decode.", examples=[0])
    ]


class RunDifference(BaseModel):
    """A value that is another one; null is no value."""

    model_config = ConfigDict(extra="forbid")

    time: Time
    device: Annotated[str | None, Field(description="Of a comparison: which device.", examples=[None])]
    metric: Annotated[str, Field(description="Name of the metric, of a comparison of the field.", examples=["t"])]
    before: Annotated[_Scalar, Field(description="What it is.", examples=[215])]
    after: Annotated[_Scalar, Field(description="What it is then.", examples=[21.5])]


class RunError(BaseModel):
    """A message that can't be decoded or stored."""

    model_config = ConfigDict(extra="forbid")

    time: Annotated[Time, Field(description="Of its reading.")]
    received_at: Annotated[Time, Field(description="When it was received.")]
    reason: Annotated[str, Field(description="As its dead letter would have it.", examples=["codec_error"])]
    detail: Annotated[str, Field(description="What is wrong.")]
    sequence: Annotated[int, Field(description="Of its envelope in the stream.", examples=[1042])]
    index: Annotated[int, Field(description="Of the message in the envelope, from 0.", examples=[0])]


class UncoveredStretch(BaseModel):
    """Readings in a row of which no message is there any more."""

    model_config = ConfigDict(extra="forbid")

    first: Annotated[Time, Field(description="Time of the first one.")]
    last: Annotated[Time, Field(description="Time of the last one.")]
    readings: Annotated[int, Field(description="How many.", examples=[96])]


class CodecRun(BaseModel):
    """A run of a codec over messages that were received before."""

    model_config = ConfigDict(extra="forbid")

    id: Annotated[int, Field(description="Its number.", examples=[17])]
    kind: Annotated[Literal["redecode", "dry_run", "compare"], Field(description="What it does.", examples=["dry_run"])]
    codec: Annotated[str, Field(description="What decodes.", examples=["dragino@3"])]
    before: Annotated[str | None, Field(description="Of a comparison: the version before.", examples=[None])]
    device: Annotated[str | None, Field(description="Whose messages.", examples=["0004a30b001c0530"])]
    source: Annotated[str | None, Field(description="Of a comparison: whose messages.", examples=[None])]
    from_: Annotated[Time, Field(alias="from", description="Readings from this time on; of a comparison, receipts.")]
    to: Annotated[Time, Field(description="And before this time.")]
    state: Annotated[
        Literal["waiting", "running", "finished", "cancelled", "failed"],
        Field(description="It waits until all is stored that was received before it began.", examples=["finished"]),
    ]
    failure: Annotated[str | None, Field(description="Why it has failed.", examples=[None])]
    requested_at: Annotated[Time, Field(description="When somebody asked for it.")]
    requested_by: Annotated[str, Field(description="The actor, as in the audit.", examples=["key 1 (field office)"])]
    finished_at: Annotated[Time | None, Field(description="When it ended, null while it has not.")]
    counts: RunCounts
    differences: Annotated[list[RunDifference], Field(description="The first 20.")]
    errors: Annotated[list[RunError], Field(description="The first 20.")]
    uncovered: Annotated[list[UncoveredStretch], Field(description="The first 20 stretches.")]

    @classmethod
    def of(cls, run: Run) -> Self:
        """Return the document of a run."""
        order, report = run.order, run.report
        counts = dict.fromkeys(RunCounts.model_fields, 0) | report.get("counts", {})
        return cls.model_validate(
            {
                "id": run.id,
                "kind": order.kind,
                "codec": f"{order.codec}@{order.number}",
                "before": None if order.other_number is None else f"{order.codec}@{order.other_number}",
                "device": order.device,
                "source": order.source,
                "from": time_text(order.first),
                "to": time_text(order.past),
                "state": run.outcome or ("waiting" if run.phase == "waiting" else "running"),
                "failure": run.failure,
                "requested_at": time_text(run.requested_at),
                "requested_by": run.requested_by,
                "finished_at": None if run.finished_at is None else time_text(run.finished_at),
                "counts": counts,
                "differences": [_timed(each) for each in report.get("differences", ())],
                "errors": [_timed(each) for each in report.get("errors", ())],
                "uncovered": [_timed(each) for each in report.get("uncovered", ())],
            }
        )


class CodecRunList(BaseModel):
    """A page of runs, the newest first."""

    model_config = ConfigDict(extra="forbid")

    runs: list[CodecRun]
    next: NextCursor


class RunListParameters(Parameters):
    """Selects a page of runs."""

    limit: Annotated[int, Field(description="How many on a page.", ge=1, le=100, examples=[20])] = 20
    cursor: Annotated[str | None, cursor_field("MTc")] = None


_TIMES = {"time", "received_at", "first", "last"}


def _timed(each: dict[str, Any]) -> dict[str, Any]:
    """Return a member of a report with its times as texts."""
    return {
        name: time_text((EPOCH + timedelta(microseconds=value)).astimezone(UTC)) if name in _TIMES else value
        for name, value in each.items()
    }
