"""Deleting devices and metrics: the name at once, the measurements in steps, which go on after whatever ends the process."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple

import structlog

from sens_common.errors import SensError, UnavailableError
from sens_platform_api import metrics
from sens_platform_api.database import Connection, Pool, QueryKind, tenant_transaction, transaction
from sens_platform_api.devices.repository import Kind
from sens_platform_api.errors import NotFoundError
from sens_platform_api.keys.repository import KeyOwner
from sens_platform_api.parameters import canonical_device
from sens_platform_api.registry import repository
from sens_platform_api.registry.repository import Metric

log = structlog.get_logger()

STEP_MEASUREMENTS: Final = 10_000
"""Measurements that are deleted in one transaction: a fraction of a second."""
INTERVAL_SECONDS: Final = 2.0
_ATTEMPTS: Final = 25
_RETRY_SECONDS: Final = 0.2


class MetricPage(NamedTuple):
    """Some metrics, and the one to go on after; None at the end."""

    metrics: list[Metric]
    last: Metric | None


async def list_metrics(pool: Pool, owner: KeyOwner, *, after: tuple[str, str], prefix: str, limit: int) -> MetricPage:
    """Return the tenant's metrics by name and kind."""
    async with tenant_transaction(pool, owner.tenant_id) as connection:
        found = await repository.list_metrics(connection, after=after, prefix=prefix, limit=limit + 1)
    more = len(found) > limit
    return MetricPage(found[:limit], found[limit - 1] if more else None)


async def delete_device(pool: Pool, owner: KeyOwner, device: str) -> str:
    """Delete a device with all its measurements; return its name.

    Raises:
        NotFoundError: The tenant has no such device.
        UnavailableError: Batches are being stored all the time.
    """
    name = canonical_device(device)

    async def delete(connection: Connection) -> bool:
        return await repository.delete_device(
            connection, name, actor=owner.actor, address=owner.address, request_id=owner.request_id
        )

    if not await _patiently(pool, owner, delete):
        raise NotFoundError(f"there is no device {name}")
    return name


async def delete_metric(pool: Pool, owner: KeyOwner, metric: str, kind: Kind | None) -> list[Kind]:
    """Delete a metric of all devices with all its measurements, one kind of it or all; return the kinds that there were.

    Raises:
        NotFoundError: The tenant has no such metric.
        UnavailableError: Batches are being stored all the time.
    """

    async def delete(connection: Connection) -> list[Kind]:
        return await repository.delete_metric(
            connection, metric, kind, actor=owner.actor, address=owner.address, request_id=owner.request_id
        )

    kinds = await _patiently(pool, owner, delete)
    if not kinds:
        raise NotFoundError(
            f"there is no metric {metric!r:.250}" + (f" with values of the kind {kind}" if kind else "")
        )
    return kinds


async def _patiently[T](pool: Pool, owner: KeyOwner, delete: Callable[[Connection], Awaitable[T]]) -> T:
    """Try to pass the gate between two batches, for a short time each, so that nobody's storing waits for long."""
    for _ in range(_ATTEMPTS):
        try:
            async with tenant_transaction(pool, owner.tenant_id, readonly=False) as connection:
                return await delete(connection)
        except repository.StillStoringError:
            await asyncio.sleep(_RETRY_SECONDS)
    raise UnavailableError("messages are being stored all the time, and nothing can be deleted meanwhile; try again")


async def keep_deleting(pool: Pool) -> None:
    """Delete the measurements of what is deleted, step by step, for as long again as a step takes apart."""
    failing = False
    while True:
        started = time.monotonic()
        step = None
        try:
            async with transaction(pool, QueryKind.MEASUREMENTS, readonly=False) as connection:
                step = await repository.continue_deletion(connection, STEP_MEASUREMENTS)
        except SensError as error:
            if not failing:
                log.warning(
                    "measurements of what was deleted can't be deleted now; it is tried again", error=str(error)
                )
            failing = True
        else:
            failing = False
        if step is None:
            await asyncio.sleep(INTERVAL_SECONDS)
            continue
        metrics.DELETED.inc(step.deleted)
        if step.finished:
            log.info("the measurements of a deletion are gone", deletion=step.deletion)
        await asyncio.sleep(time.monotonic() - started)
