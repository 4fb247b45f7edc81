"""The audit: listing a tenant's own events."""

from typing import NamedTuple

from sens_platform_api.audit import repository
from sens_platform_api.audit.repository import Event
from sens_platform_api.database import Pool, tenant_transaction
from sens_platform_api.keys.repository import KeyOwner


class EventPage(NamedTuple):
    """Some events, and the number to go on before; None at the end."""

    events: list[Event]
    last: int | None


async def list_page(pool: Pool, owner: KeyOwner, *, before: int | None, limit: int) -> EventPage:
    """Return the tenant's events, the newest first."""
    async with tenant_transaction(pool, owner.tenant_id) as connection:
        events = await repository.list_events(connection, before=before, limit=limit + 1, tenant=None)
    more = len(events) > limit
    return EventPage(events[:limit], events[limit - 1].id if more else None)
