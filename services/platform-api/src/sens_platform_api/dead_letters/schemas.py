"""Dead letters in requests and answers."""

import base64
from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from sens_common.dead_letters import Reason
from sens_platform_api.dead_letters.repository import StoredDeadLetter, Summary
from sens_platform_api.parameters import DEVICE_PATTERN, TIME_PATTERN, Parameters, cursor_field

Timestamp = Annotated[datetime, Field(description="RFC 3339, UTC.", examples=["2026-11-24T22:15:00.123456Z"])]


class DeadLetterSummary(BaseModel):
    """A dead letter without its payload."""

    model_config = ConfigDict(extra="forbid")

    id: Annotated[int, Field(description="Number of the dead letter.", ge=1, examples=[17])]
    reason: Annotated[str, Field(description="Why it was not stored.", examples=["malformed_payload"])]
    detail: Annotated[str, Field(description="The same as a sentence.", examples=["the payload is not JSON"])]
    topic: Annotated[str, Field(description="As published.", examples=["sens/v1/demo/sensor-1/telemetry"])]
    device: Annotated[str | None, Field(description="Device in the topic, if any.", examples=["sensor-1"])]
    payload_bytes: Annotated[int, Field(description="Size of the payload as published, bytes.", ge=0, examples=[112])]
    is_shortened: Annotated[
        bool,
        Field(
            description="Whether only the first 4 KiB of the payload are kept: it was too large, or a quota was full."
        ),
    ]
    received_at: Timestamp
    dead_lettered_at: Timestamp
    replays: Annotated[int, Field(description="How often it was replayed before.", ge=0, examples=[0])]

    @classmethod
    def of(cls, summary: Summary) -> "DeadLetterSummary":
        """Return the summary of a stored dead letter."""
        return cls(**summary._asdict())


class DeadLetterDetails(DeadLetterSummary):
    """A dead letter with its payload."""

    payload_base64: Annotated[
        str,
        Field(
            description="The payload as published, or its beginning (RFC 4648, section 4).",
            examples=["eyJ0ZW1wZXJhdHVyZSI6"],
        ),
    ]
    payload_text: Annotated[
        str | None, Field(description="The same as text, when it is UTF-8.", examples=['{"temperature":'])
    ]

    @classmethod
    def with_payload(cls, letter: StoredDeadLetter) -> "DeadLetterDetails":
        """Return the details of a stored dead letter."""
        try:
            text: str | None = letter.payload.decode()
        except UnicodeDecodeError:
            text = None
        return cls(
            **letter.summary._asdict(), payload_base64=base64.b64encode(letter.payload).decode(), payload_text=text
        )


class DeadLetterFilter(Parameters):
    """Selects dead letters: those that pass all of the filters."""

    reason: Annotated[
        Reason | None, Field(description="Only those with this reason.", examples=[Reason.MALFORMED_PAYLOAD])
    ] = None
    device: Annotated[
        str | None,
        Field(
            description="Only those of this device.", pattern=DEVICE_PATTERN, max_length=63, examples=["sensor-0001"]
        ),
    ] = None
    topic: Annotated[
        str | None,
        Field(
            description="Only those with this topic, or with one that this filter of MQTT (`+`, `#`) matches.",
            min_length=1,
            max_length=1000,
            pattern=r"^[^\x00]+$",
            examples=["sens/v1/demo/+/telemetry"],
        ),
    ] = None
    since: Annotated[
        str | None,
        Field(
            description="Only those that were dead-lettered at this time or later: RFC 3339, or epoch in s, ms, µs or ns.",
            pattern=TIME_PATTERN,
            max_length=40,
            examples=["2026-11-24T22:00:00Z"],
        ),
    ] = None
    before: Annotated[
        str | None,
        Field(
            description="Only those that were dead-lettered before this time, in the same forms.",
            pattern=TIME_PATTERN,
            max_length=40,
            examples=["2026-11-24T22:15:00Z"],
        ),
    ] = None


class DeadLetterListParameters(DeadLetterFilter):
    """Selects dead letters."""

    limit: Annotated[int, Field(description="Dead letters on a page.", ge=1, le=1000, examples=[100])] = 100
    cursor: Annotated[str | None, cursor_field("MTc")] = None


class DeadLetterList(BaseModel):
    """A page of dead letters, newest first."""

    model_config = ConfigDict(extra="forbid")

    dead_letters: list[DeadLetterSummary]
    next: Annotated[str | None, Field(description="Cursor of the next page, null on the last.", examples=[None])]


class ReplayParameters(DeadLetterFilter):
    """Selects dead letters to replay."""

    limit: Annotated[int, Field(description="Dead letters that one call replays.", ge=1, le=10_000, examples=[100])] = (
        100
    )
    cursor: Annotated[str | None, cursor_field("MTcAMTAw")] = None


class ReplayedOne(BaseModel):
    """Answer of one replay."""

    model_config = ConfigDict(extra="forbid")

    id: Annotated[int, Field(description="Number of the dead letter, which is gone now.", ge=1, examples=[17])]


class ReplayedMany(BaseModel):
    """Answer of a filtered replay."""

    model_config = ConfigDict(extra="forbid")

    replayed: Annotated[int, Field(description="Dead letters that were replayed.", ge=0, examples=[100])]
    incomplete: Annotated[
        int,
        Field(
            description="Dead letters of which only the beginning is kept, and that the stream no longer has; they stay.",
            ge=0,
            examples=[0],
        ),
    ]
    next: Annotated[
        str | None, Field(description="Cursor for the next call, null when none is left to replay.", examples=[None])
    ]
    remaining: Annotated[
        int, Field(description="Dead letters that pass the filters and were not looked at yet.", ge=0, examples=[0])
    ]


class DeleteParameters(DeadLetterFilter):
    """Selects dead letters to delete."""

    limit: Annotated[
        int, Field(description="Dead letters that one call deletes.", ge=1, le=10_000, examples=[10_000])
    ] = 10_000
    all: Annotated[bool, Field(description="Needed where there is no filter: all of them.", examples=[True])] = False


class DeletedMany(BaseModel):
    """Answer of a filtered deletion."""

    model_config = ConfigDict(extra="forbid")

    deleted: Annotated[int, Field(description="Dead letters that are gone.", ge=0, examples=[100])]
    remaining: Annotated[
        int,
        Field(description="Dead letters that pass the filters and are still there: call again.", ge=0, examples=[0]),
    ]
