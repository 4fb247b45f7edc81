"""Deleting readings of a time range, and how far deletions are."""

from datetime import datetime
from typing import Protocol

from sens_platform_api.deletions.repository import Deletion, RequestedDeletion
from sens_platform_api.errors import InvalidRequestError, NotFoundError
from sens_platform_api.parameters import canonical_device


class Deletions(Protocol):
    """The deletions of one tenant, asked for in the name of one caller."""

    async def delete_range(
        self, device: str, metric: str | None, first: datetime, past: datetime
    ) -> RequestedDeletion | None:
        """Delete readings of a device, or the values of one metric; return None when there is no such device or metric.

        Raises:
            StillMovingError: Readings of the device are still to come from another tenant.
        """

    async def newest(self, *, before: int | None, limit: int) -> list[Deletion]:
        """Return deletions with ids below one, the newest first."""


async def delete_range(
    deletions: Deletions, device: str, metric: str | None, first: datetime, past: datetime
) -> RequestedDeletion:
    """Delete readings of a device from a time on and before another, or the values of one metric.

    Raises:
        StillMovingError: Readings of the device are still to come from another tenant.
        InvalidRequestError: The range is empty.
        NotFoundError: The tenant has no such device or metric.
    """
    if first >= past:
        raise InvalidRequestError.in_query("to", "it is not after from")
    name = canonical_device(device)
    deletion = await deletions.delete_range(name, metric, first, past)
    if deletion is None:
        raise NotFoundError(f"there is no device {name}" + (f" or no metric {metric!r:.250}" if metric else ""))
    return deletion
