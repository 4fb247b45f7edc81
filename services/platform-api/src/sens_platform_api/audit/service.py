"""The audit: listing a tenant's own events."""

from typing import NamedTuple, Protocol

from sens_platform_api.audit.repository import StoredEvent


class Events(Protocol):
    """The events of one tenant."""

    async def newest(self, *, before: int | None, limit: int) -> list[StoredEvent]:
        """Return events with ids below one, the newest first."""


class EventPage(NamedTuple):
    """Some events, and the id below which the others are; None at the end."""

    events: list[StoredEvent]
    before: int | None


async def list_page(events: Events, *, before: int | None, limit: int) -> EventPage:
    """Return events, the newest first."""
    found = await events.newest(before=before, limit=limit + 1)
    return EventPage(found[:limit], found[limit - 1].id if len(found) > limit else None)
