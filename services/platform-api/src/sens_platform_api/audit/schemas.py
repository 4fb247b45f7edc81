"""How the audit looks in requests and answers."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from sens_platform_api.audit.repository import Event
from sens_platform_api.devices.schemas import Time
from sens_platform_api.parameters import Parameters, cursor_field, time_text


class AuditParameters(Parameters):
    """Which events."""

    limit: Annotated[int, Field(description="Events on a page.", ge=1, le=1000, examples=[100])] = 100
    cursor: Annotated[str | None, cursor_field("MTc")] = None


class AuditEvent(BaseModel):
    """Something that was changed."""

    model_config = ConfigDict(extra="forbid")

    id: Annotated[int, Field(description="Number of the event.", examples=[17])]
    time: Annotated[Time, Field(description="When it was done.")]
    actor: Annotated[
        str, Field(description="Who did it: administrator, or a key.", examples=["administrator", "key 3 (grafana)"])
    ]
    action: Annotated[str, Field(description="What was done.", examples=["key.created"])]
    subject: Annotated[str, Field(description="What it was done to.", examples=["key 4 (grafana)"])]
    details: Annotated[dict[str, Any], Field(description="More of it.", examples=[{"access": "read_only"}])]
    address: Annotated[str | None, Field(description="Where the request came from.", examples=["192.0.2.7"])]
    request_id: Annotated[str | None, Field(description="The request, as the log names it.", examples=["4f1c9d20ab"])]

    @classmethod
    def of(cls, event: Event) -> "AuditEvent":
        """Return how an event looks."""
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
    next: Annotated[str | None, Field(description="Cursor of the next page, null on the last.", examples=[None])]
