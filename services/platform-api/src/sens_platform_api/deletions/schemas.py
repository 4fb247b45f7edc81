"""Deletions in requests and answers."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from sens_platform_api.deletions import repository
from sens_platform_api.deletions.repository import Deletion
from sens_platform_api.fields import NextCursor, Time
from sens_platform_api.parameters import (
    METRIC_PATTERN,
    METRIC_WORDS,
    TIME_PATTERN,
    Parameters,
    cursor_field,
    in_words,
    time_text,
)


class RangeParameters(Parameters):
    """Selects readings to delete."""

    from_: Annotated[
        str,
        Field(
            alias="from",
            description="From this time on: RFC 3339, a date (UTC), or seconds since the epoch.",
            max_length=40,
            examples=["2026-11-24T00:00:00Z"],
            json_schema_extra={"pattern": TIME_PATTERN},
        ),
    ]
    to: Annotated[
        str,
        Field(
            description="Before this time.",
            max_length=40,
            examples=["2026-11-25T00:00:00Z"],
            json_schema_extra={"pattern": TIME_PATTERN},
        ),
    ]
    metric: Annotated[
        str | None,
        Field(
            description="Only the values of this metric. Without it, whole readings.",
            max_length=255,
            examples=["battery.voltage"],
            json_schema_extra={"pattern": METRIC_PATTERN},
        ),
        in_words(METRIC_PATTERN, METRIC_WORDS),
    ] = None


class DeletionListParameters(Parameters):
    """Selects deletions."""

    limit: Annotated[int, Field(description="Deletions on a page.", ge=1, le=1000, examples=[100])] = 100
    cursor: Annotated[str | None, cursor_field("MTc")] = None


class KeptAggregates(BaseModel):
    """Aggregates of an hour or a day that stay."""

    model_config = ConfigDict(extra="forbid")

    kind: Annotated[repository.RollupKind, Field(description="Of an hour or of a day.", examples=["rollup_1h"])]
    starts_at: Annotated[Time, Field(description="When the hour or day begins.")]


class RequestedDeletion(BaseModel):
    """A deletion that was asked for."""

    model_config = ConfigDict(extra="forbid")

    deletion: Annotated[int, Field(description="Its number in the list of deletions.", examples=[17])]
    kept_aggregates: Annotated[
        list[KeptAggregates],
        Field(
            description="Aggregates of hours and days at the ends of the range that lie partly in it and stay as they are, because the readings"
            " that they are made of are gone."
        ),
    ]

    @classmethod
    def of(cls, requested: repository.RequestedDeletion) -> "RequestedDeletion":
        """Return the document of a deletion that was asked for."""
        return cls(
            deletion=requested.id,
            kept_aggregates=[
                KeptAggregates(kind=each.kind, starts_at=time_text(each.starts_at)) for each in requested.kept
            ],
        )


class DeletionProgress(BaseModel):
    """What is being deleted, or was."""

    model_config = ConfigDict(extra="forbid")

    id: Annotated[int, Field(description="Number of the deletion.", examples=[17])]
    subject: Annotated[str, Field(description="What is deleted, for people.", examples=["device sensor-0001"])]
    requested_at: Annotated[Time, Field(description="When somebody asked for it.")]
    finished_at: Annotated[Time | None, Field(description="When nothing was left, null while there is.")]
    readings: Annotated[int, Field(description="Readings deleted as a whole so far.", examples=[1000])]
    values: Annotated[int, Field(description="Values deleted so far.", examples=[5000])]
    dead_letters: Annotated[int, Field(description="Dead letters deleted so far.", examples=[0])]

    @classmethod
    def of(cls, deletion: Deletion) -> "DeletionProgress":
        """Return the document of a deletion."""
        finished = deletion.finished_at
        times = {
            "requested_at": time_text(deletion.requested_at),
            "finished_at": None if finished is None else time_text(finished),
        }
        return cls.model_validate(deletion._asdict() | times)


class DeletionList(BaseModel):
    """A page of deletions, the newest first."""

    model_config = ConfigDict(extra="forbid")

    deletions: list[DeletionProgress]
    next: NextCursor
