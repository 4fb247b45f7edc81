"""Tenants' limits, which the API tells the ingestion workers."""

from typing import Final, Protocol

import structlog

from sens_common.attempts import Attempts
from sens_common.errors import SensError
from sens_common.health import Problems
from sens_common.tenant_limits import TenantLimits
from sens_platform_api import metrics

log = structlog.get_logger()

INTERVAL_SECONDS: Final = 3.0
"""With a worker's own second or two, a change holds within ten seconds."""


class StoredLimits(Protocol):
    """The limits in the database."""

    async def limits(self) -> dict[str, TenantLimits]:
        """Return what holds at ingestion, for each tenant that has a rate or a source."""


class PublishedLimits(Protocol):
    """The limits as the ingestion workers see them."""

    async def bring_to(self, limits: dict[str, TenantLimits]) -> int:
        """Publish the limits that differ; return how many tenants' limits were written or removed.

        Raises:
            UnavailableError: They can't be published.
        """


async def keep_telling_limits(
    stored: StoredLimits,
    published: PublishedLimits,
    problems: Problems,
    *,
    interval_seconds: float = INTERVAL_SECONDS,
) -> None:
    """Publish the stored limits again and again: after a change of either, and after a restore of either."""
    attempts = Attempts(
        problems,
        "limits",
        "the ingestion workers can't be told the tenants' limits; they keep the last ones",
        retry_on=(SensError,),
        interval_seconds=interval_seconds,
    )
    async for attempt in attempts:
        with attempt:
            written = await tell_limits(stored, published)
            if written:
                log.info("the ingestion workers are told the tenants' limits", changed=written)
                metrics.LIMITS_TOLD.inc(written)


async def tell_limits(stored: StoredLimits, published: PublishedLimits) -> int:
    """Publish the stored limits; return how many tenants' limits were written or removed."""
    return await published.bring_to(await stored.limits())
