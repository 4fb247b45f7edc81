"""What the API does for all tenants beside answering: it tells the ingestion workers their limits."""

import asyncio
from typing import Final

import structlog
from nats.errors import Error as NatsError

from sens_common.errors import SensError
from sens_common.tenant_limits import TenantLimits
from sens_platform_api import metrics
from sens_platform_api.database import Pool
from sens_platform_api.tenants import repository
from sens_platform_api.tenants.jetstream import LimitsBucket

log = structlog.get_logger()

INTERVAL_SECONDS: Final = 3.0
"""With a worker's own second or two, a change holds within ten seconds."""


async def keep_telling_limits(pool: Pool, bucket: LimitsBucket) -> None:
    """Bring the bucket to what the database says, again and again: after a change of either, and after a restore of either."""
    failing = False
    while True:
        try:
            written = await tell_limits(pool, bucket)
        except (SensError, NatsError, TimeoutError) as error:
            if not failing:
                log.warning(
                    "the ingestion workers can't be told the tenants' limits; they keep the last", error=str(error)
                )
            failing = True
        else:
            failing = False
            if written:
                log.info("the ingestion workers are told the tenants' limits", changed=written)
                metrics.LIMITS_TOLD.inc(written)
        await asyncio.sleep(INTERVAL_SECONDS)


async def tell_limits(pool: Pool, bucket: LimitsBucket) -> int:
    """Bring the bucket to what the database says; return how many tenants' limits were written or removed."""
    limits = await repository.ingestion_limits(pool)
    return await bucket.bring_to({tenant: TenantLimits(rate) for tenant, rate in limits.items()})
