"""A tenant's numbers."""

from typing import Protocol

from sens_platform_api.errors import NotFoundError
from sens_platform_api.overview.repository import Overview


class Numbers(Protocol):
    """The numbers of one tenant."""

    async def overview(self) -> Overview | None:
        """Return them, None when the tenant was deleted."""


async def overview(numbers: Numbers) -> Overview:
    """Return a tenant's numbers.

    Raises:
        NotFoundError: The tenant was deleted after the request had begun.
    """
    found = await numbers.overview()
    if found is None:
        raise NotFoundError("the tenant was deleted")
    return found
