"""The audit: listing a tenant's own events."""

from typing import Protocol

from sens_platform_api.audit.repository import StoredEvent


class Events(Protocol):
    """The events of one tenant."""

    async def newest(self, *, before: int | None, limit: int) -> list[StoredEvent]:
        """Return events with ids below one, the newest first."""
