"""Retention in requests and answers."""

from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field

from sens_platform_api.fields import Time
from sens_platform_api.parameters import (
    DEVICE_PATTERN,
    DEVICE_WORDS,
    METRIC_PATTERN,
    METRIC_WORDS,
    Parameters,
    in_words,
    time_text,
)
from sens_platform_api.retention.rules import MAX_DAYS, Kind, Retention, Rule

DAYS_PATTERN: Final = r"^(?:[1-9]\d{0,3}|[12]\d{4}|3[0-5]\d{3}|36[0-4]\d{2}|36500|forever)$"

RetainedKind = Annotated[
    Kind,
    Field(
        description="What is kept: `raw` readings, aggregates of hours (`rollup_1h`) and of days (`rollup_1d`), `dead_letters`.",
        examples=["raw"],
    ),
]


class RuleSelection(Parameters):
    """Selects a rule."""

    kind: RetainedKind
    device: Annotated[
        str | None,
        Field(
            description="Of this device. Without it, of all devices that have no rule of their own.",
            max_length=63,
            examples=["sensor-0001"],
            json_schema_extra={"pattern": DEVICE_PATTERN},
        ),
        in_words(DEVICE_PATTERN, DEVICE_WORDS),
    ] = None
    metric: Annotated[
        str | None,
        Field(
            description="Of this metric. Without it, of all metrics that have no rule of their own.",
            max_length=255,
            examples=["battery.voltage"],
            json_schema_extra={"pattern": METRIC_PATTERN},
        ),
        in_words(METRIC_PATTERN, METRIC_WORDS),
    ] = None

    def rule(self, days: int | None) -> Rule:
        """Return the rule with a number of days."""
        return Rule(self.kind, self.device, self.metric, days)


class RuleChange(RuleSelection):
    """Selects a rule, and says for how long."""

    days: Annotated[
        str,
        Field(
            description=f"For how many days at least, 1 to {MAX_DAYS}; `forever` where a wider rule says otherwise.",
            max_length=7,
            examples=["90"],
            json_schema_extra={"pattern": DAYS_PATTERN},
        ),
        in_words(DAYS_PATTERN, f"a number from 1 to {MAX_DAYS} is needed, or forever"),
    ]


class RetentionRule(BaseModel):
    """How long something is kept at least."""

    model_config = ConfigDict(extra="forbid")

    kind: RetainedKind
    device: Annotated[str | None, Field(description="Of this device, null for all.", examples=[None])]
    metric: Annotated[str | None, Field(description="Of this metric, null for all.", examples=[None])]
    days: Annotated[int | None, Field(description="For how many days at least, null for ever.", examples=[90])]


class RetentionProgress(BaseModel):
    """How far the deletion of what is older is."""

    model_config = ConfigDict(extra="forbid")

    started_at: Annotated[Time | None, Field(description="When it last began; every hour, and after a change.")]
    finished_at: Annotated[Time | None, Field(description="When nothing was left to delete; null while there is.")]
    values: Annotated[int, Field(description="Values deleted since ever because of their age.", examples=[0])]
    rollups: Annotated[int, Field(description="Aggregates deleted since ever because of their age.", examples=[0])]
    dead_letters: Annotated[
        int, Field(description="Dead letters deleted since ever because of their age.", examples=[0])
    ]


class StorageSizes(BaseModel):
    """Bytes on disk, about: what is exact of a partition or chunk is divided among the tenants by what their rows in it weigh."""

    model_config = ConfigDict(extra="forbid")

    readings: Annotated[
        int, Field(description="Readings, with their index, and the messages that sources keep.", examples=[1_000_000])
    ]
    rollups: Annotated[int, Field(description="Aggregates of hours and days.", examples=[100_000])]
    dead_letters: Annotated[int, Field(description="Dead letters, exactly: payloads, topics, details.", examples=[0])]
    measured_at: Annotated[
        Time | None, Field(description="When the oldest part of the estimate was made; null before the first.")
    ]


class RetentionDocument(BaseModel):
    """The tenant's rules; what has none is kept for ever."""

    model_config = ConfigDict(extra="forbid")

    rules: list[RetentionRule]
    late_days: Annotated[
        int,
        Field(
            description="How far back a reading may lie, before its receipt; `raw` is at least as long.", examples=[400]
        ),
    ]
    progress: RetentionProgress
    sizes: StorageSizes

    @classmethod
    def of(cls, retention: Retention) -> "RetentionDocument":
        """Return the document of a tenant's rules."""
        progress, sizes = retention.progress, retention.sizes
        measured_at = None if sizes.measured_at is None else time_text(sizes.measured_at)
        return cls(
            rules=[RetentionRule(**rule._asdict()) for rule in retention.rules],
            late_days=retention.late_days,
            progress=RetentionProgress(
                started_at=None if progress.started_at is None else time_text(progress.started_at),
                finished_at=None if progress.finished_at is None else time_text(progress.finished_at),
                values=progress.values,
                rollups=progress.rollups,
                dead_letters=progress.dead_letters,
            ),
            sizes=StorageSizes.model_validate(sizes._asdict() | {"measured_at": measured_at}),
        )
