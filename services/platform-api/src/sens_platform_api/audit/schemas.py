"""The audit in requests and answers."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from sens_platform_api.audit.repository import StoredEvent
from sens_platform_api.fields import NextCursor, Time
from sens_platform_api.parameters import Parameters, cursor_field, time_text


class AuditParameters(Parameters):
    """Selects events."""

    limit: Annotated[int, Field(description="Events on a page.", ge=1, le=1000, examples=[100])] = 100
    cursor: Annotated[str | None, cursor_field("MTc")] = None


class AuditEvent(BaseModel):
    """A change."""

    model_config = ConfigDict(extra="forbid")

    id: Annotated[int, Field(description="Number of the event.", examples=[17])]
    time: Annotated[Time, Field(description="When it was changed.")]
    actor: Annotated[
        str,
        Field(description="Who changed it: administrator, or a key.", examples=["administrator", "key 3 (grafana)"]),
    ]
    action: Annotated[str, Field(description="The kind of change.", examples=["key.created"])]
    subject: Annotated[str, Field(description="The thing that was changed.", examples=["key 4 (grafana)"])]
    details: Annotated[
        dict[str, Any], Field(description="More about the change, by kind.", examples=[{"access": "read_only"}])
    ]
    address: Annotated[str | None, Field(description="The address that the request came from.", examples=["192.0.2.7"])]
    request_id: Annotated[str | None, Field(description="The request, as the log names it.", examples=["4f1c9d20ab"])]

    @classmethod
    def of(cls, event: StoredEvent) -> "AuditEvent":
        """Return the document of an event."""
        return cls(
            id=event.id,
            time=time_text(event.at),
            actor=event.actor,
            action=event.action,
            subject=event.subject,
            details=event.details,
            address=event.address,
            request_id=event.request_id,
        )


class AuditEventList(BaseModel):
    """A page of events, the newest first."""

    model_config = ConfigDict(extra="forbid")

    events: list[AuditEvent]
    next: NextCursor
