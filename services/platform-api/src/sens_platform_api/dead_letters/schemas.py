"""How dead letters look in answers."""

import base64
from datetime import UTC, datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from sens_common.dead_letters import Reason
from sens_platform_api.dead_letters.repository import StoredDeadLetter
from sens_platform_api.parameters import DEVICE_PATTERN, TIME_PATTERN, Parameters, cursor_field

ReasonFilter = Annotated[
    Reason | None, Field(description="Only those with this reason.", examples=[Reason.MALFORMED_PAYLOAD])
]
DeviceFilter = Annotated[
    str | None,
    Field(description="Only those of this device.", pattern=DEVICE_PATTERN, max_length=63, examples=["sensor-0001"]),
]
BeforeFilter = Annotated[
    str | None,
    Field(
        description="Only those that were dead-lettered before this time: RFC 3339, or epoch in s, ms, µs or ns.",
        pattern=TIME_PATTERN,
        max_length=40,
        examples=["2026-11-24T22:15:00Z"],
    ),
]

Timestamp = Annotated[datetime, Field(description="RFC 3339, UTC.", examples=["2026-11-24T22:15:00.123456Z"])]


class DeadLetterSummary(BaseModel):
    """A dead letter without its payload."""

    model_config = ConfigDict(extra="forbid")

    id: Annotated[int, Field(description="Number of the dead letter.", ge=1, examples=[17003])]
    reason: Annotated[str, Field(description="Why it was not stored.", examples=["malformed_payload"])]
    detail: Annotated[str, Field(description="The same as a sentence.", examples=["the payload is not JSON"])]
    topic: Annotated[str, Field(description="As published.", examples=["sens/v1/demo/sensor-1/telemetry"])]
    device: Annotated[str | None, Field(description="Device in the topic, if any.", examples=["sensor-1"])]
    payload_bytes: Annotated[int, Field(description="Size of the payload, bytes.", ge=0, examples=[112])]
    received_at: Timestamp
    dead_lettered_at: Timestamp
    replays: Annotated[int, Field(description="How often it was replayed before.", ge=0, examples=[0])]

    @classmethod
    def of(cls, stored: StoredDeadLetter) -> "DeadLetterSummary":
        """Return the summary of a stored dead letter."""
        return cls(**_common(stored))


class DeadLetterDetails(DeadLetterSummary):
    """A dead letter with its payload."""

    payload_base64: Annotated[
        str, Field(description="The payload as published (RFC 4648, section 4).", examples=["eyJ0ZW1wZXJhdHVyZSI6"])
    ]
    payload_text: Annotated[
        str | None, Field(description="The payload as text, when it is UTF-8.", examples=['{"temperature":'])
    ]

    @classmethod
    def of(cls, stored: StoredDeadLetter) -> "DeadLetterDetails":
        """Return the details of a stored dead letter."""
        payload = stored.letter.payload
        try:
            text: str | None = payload.decode()
        except UnicodeDecodeError:
            text = None
        return cls(**_common(stored), payload_base64=base64.b64encode(payload).decode(), payload_text=text)


def _common(stored: StoredDeadLetter) -> dict[str, object]:
    letter = stored.letter
    return {
        "id": stored.id,
        "reason": letter.reason,
        "detail": letter.detail,
        "topic": letter.topic,
        "device": letter.device,
        "payload_bytes": len(letter.payload),
        "received_at": _time(letter.received_at),
        "dead_lettered_at": _time(letter.dead_lettered_at),
        "replays": letter.replays,
    }


def _time(microseconds: int) -> datetime:
    return datetime.fromtimestamp(microseconds // 1_000_000, UTC).replace(microsecond=microseconds % 1_000_000)


class DeadLetterListParameters(Parameters):
    """Which dead letters."""

    limit: Annotated[int, Field(description="Dead letters on a page.", ge=1, le=1000, examples=[100])] = 100
    cursor: Annotated[str | None, cursor_field("MTc")] = None
    reason: ReasonFilter = None
    device: DeviceFilter = None
    before: BeforeFilter = None


class DeadLetterList(BaseModel):
    """A page of dead letters, oldest first."""

    model_config = ConfigDict(extra="forbid")

    dead_letters: list[DeadLetterSummary]
    next: Annotated[
        str | None,
        Field(
            description="Cursor of the next page, null on the last. A page may be short all the same.", examples=[None]
        ),
    ]


class ReplayParameters(Parameters):
    """Which dead letters to replay."""

    limit: Annotated[
        int,
        Field(
            description="Dead letters that one call replays, and those that are stored together with the last one.",
            ge=1,
            le=500,
            examples=[100],
        ),
    ] = 100
    cursor: Annotated[str | None, cursor_field("MTcAMTAw")] = None
    reason: ReasonFilter = None
    device: DeviceFilter = None
    before: BeforeFilter = None


class ReplayedOne(BaseModel):
    """Answer of one replay."""

    model_config = ConfigDict(extra="forbid")

    id: Annotated[int, Field(description="Number of the dead letter, which is gone now.", ge=1, examples=[17003])]


class ReplayedMany(BaseModel):
    """Answer of a filtered replay."""

    model_config = ConfigDict(extra="forbid")

    replayed: Annotated[int, Field(description="Dead letters that were replayed.", ge=0, examples=[100])]
    unreadable: Annotated[int, Field(description="Dead letters that no replay can help.", ge=0, examples=[0])]
    next: Annotated[
        str | None, Field(description="Cursor for the next call, null when none is left to replay.", examples=[None])
    ]
    remaining: Annotated[
        int,
        Field(
            description="Dead letters of the tenant that were not looked at yet, about, whatever the filter.",
            ge=0,
            examples=[0],
        ),
    ]
