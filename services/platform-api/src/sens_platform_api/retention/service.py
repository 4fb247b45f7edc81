"""How long what is kept: the rules of a tenant, and the deletion of what is older, which goes on when the process starts again."""

import asyncio
import time
from datetime import UTC, datetime
from typing import Final, Protocol

import structlog

from sens_common.attempts import Attempts
from sens_common.errors import SensError
from sens_common.health import Problems
from sens_platform_api import metrics
from sens_platform_api.between_batches import StillStoringError
from sens_platform_api.errors import LimitsContradictError, NotFoundError
from sens_platform_api.parameters import canonical_device
from sens_platform_api.retention.repository import DroppingStep, Expired, RetentionStatus
from sens_platform_api.retention.rules import Change, Retention, Rule

log = structlog.get_logger()

STEP_VALUES: Final = 10_000
"""Values that are deleted in one transaction: a fraction of a second."""
STEP_DEVICES: Final = 10_000
"""Devices that are looked at in one transaction to know which partitions can be dropped."""
INTERVAL_SECONDS: Final = 10.0
MEASURING_SECONDS: Final = 600.0
FRAMES_SECONDS: Final = 60.0
STEP_FRAMES: Final = 5000
"""Rows of kept messages that are deleted in one transaction."""
OBSERVING_SECONDS: Final = 30.0
_ATTEMPTS: Final = 25
_RETRY_SECONDS: Final = 0.2


class Rules(Protocol):
    """The rules of one tenant, changed in the name of one caller."""

    async def show(self) -> Retention:
        """Return the rules and their progress."""

    async def change(self, rule: Rule, *, forget: bool) -> Change:
        """Set a rule, or remove it."""


class Expiry(Protocol):
    """What is older than it is kept, of all tenants."""

    async def step(self, most: int) -> Expired | None:
        """Delete about so many values of one tenant; return None when nothing is to be done now."""

    async def drop(self, devices: int) -> DroppingStep:
        """Look at so many more devices, or drop a partition or chunk of which nobody keeps anything.

        Raises:
            StillStoringError: Others use it; try again.
        """


async def change(rules: Rules, rule: Rule, *, forget: bool = False) -> Retention:
    """Set a rule, or remove it; return all of them.

    Raises:
        NotFoundError: The tenant has no such device.
        LimitsContradictError: Readings would be kept for a shorter time than they may lie back.
    """
    if rule.device is not None:
        rule = rule._replace(device=canonical_device(rule.device))
    check(await rules.change(rule, forget=forget), rule, (await rules.show()).late_days)
    return await rules.show()


def check(change: Change, rule: Rule, late_days: int) -> None:
    """Look that a rule was changed.

    Raises:
        NotFoundError: The tenant has no such device.
        LimitsContradictError: Readings would be kept for a shorter time than they may lie back.
    """
    if change is Change.UNKNOWN_DEVICE:
        raise NotFoundError(f"there is no device {rule.device}")
    if change is Change.SHORTER_THAN_LATE_DAYS:
        raise LimitsContradictError.of_retention(late_days, rule.days)


class Measured(Protocol):
    """The partitions and chunks of all tenants."""

    async def measure(self) -> str | None:
        """Estimate what tenants take of a partition or chunk; return its name, None when all are known."""


async def keep_measuring(
    measured: Measured, problems: Problems, *, interval_seconds: float = MEASURING_SECONDS
) -> None:
    """Estimate what tenants take on disk, partition by partition, again where its size has changed."""
    attempts = Attempts(
        problems,
        "sizes",
        "what tenants take on disk can't be estimated",
        retry_on=(SensError,),
        interval_seconds=interval_seconds,
    )
    async for attempt in attempts:
        with attempt:
            started = time.monotonic()
            while await measured.measure() is not None:
                await asyncio.sleep(time.monotonic() - started)
                started = time.monotonic()


class Observed(Protocol):
    """What of retention the metrics tell."""

    async def status(self) -> RetentionStatus:
        """Return what has come near a limit, or waits."""


async def keep_observing(
    observed: Observed, problems: Problems, *, interval_seconds: float = OBSERVING_SECONDS
) -> None:
    """Set the metrics of limits and of what waits, again and again."""
    attempts = Attempts(
        problems,
        "retention status",
        "how full tenants are, and whether retention waits, can't be observed",
        retry_on=(SensError,),
        interval_seconds=interval_seconds,
    )
    async for attempt in attempts:
        with attempt:
            observe(await observed.status(), datetime.now(UTC))


def observe(status: RetentionStatus, now: datetime) -> None:
    """Set the metrics."""
    metrics.STORED_BYTES_FILLED.clear()
    for tenant, filled in status.filled.items():
        metrics.STORED_BYTES_FILLED.labels(tenant).set(filled)
    since = status.waiting_since
    metrics.RETENTION_WAITING.set(0 if since is None else max(0.0, (now - since).total_seconds()))


async def keep_expiring(expiry: Expiry, problems: Problems, *, interval_seconds: float = INTERVAL_SECONDS) -> None:
    """Delete what is older than it is kept, whenever there is something."""
    attempts = Attempts(
        problems,
        "retention",
        "what is older than it is kept can't be deleted",
        retry_on=(SensError,),
        interval_seconds=interval_seconds,
    )
    async for attempt in attempts:
        with attempt:
            await _expire_all(expiry)


class KeptMessages(Protocol):
    """The messages that sources keep, of all tenants."""

    async def expire_frames(self, most: int) -> int:
        """Delete some that are older than they are kept, at most so many rows; return how many went."""


async def keep_expiring_frames(
    kept: KeptMessages, problems: Problems, *, interval_seconds: float = FRAMES_SECONDS
) -> None:
    """Delete kept messages that are older than their sources keep them, whenever there are some."""
    attempts = Attempts(
        problems,
        "kept messages",
        "messages that are older than their sources keep them can't be deleted",
        retry_on=(SensError,),
        interval_seconds=interval_seconds,
    )
    async for attempt in attempts:
        with attempt:
            started = time.monotonic()
            while gone := await kept.expire_frames(STEP_FRAMES):
                metrics.EXPIRED.labels("frames").inc(max(0, gone))
                await asyncio.sleep(time.monotonic() - started)
                started = time.monotonic()


async def _expire_all(expiry: Expiry) -> None:
    """Work step by step until nothing is left; between two steps is as much time as a step takes, so that others get on as well."""
    while True:
        started = time.monotonic()
        step = await expiry.step(STEP_VALUES)
        if step is None:
            break
        for kind, number in (("values", step.values), ("rollups", step.rollups), ("dead_letters", step.letters)):
            metrics.EXPIRED.labels(kind).inc(number)
        if step.begins:
            await _drop_all(expiry)
        await asyncio.sleep(time.monotonic() - started)


async def _drop_all(expiry: Expiry) -> None:
    """Drop what can be dropped as a whole; what others use all the time is for the next time."""
    for _ in range(_ATTEMPTS):
        try:
            while not (step := await expiry.drop(STEP_DEVICES)).finished:
                if step.partition is not None:
                    log.info("a partition of which nobody keeps anything is dropped", partition=step.partition)
                    metrics.DROPPED_PARTITIONS.inc()
        except StillStoringError:
            await asyncio.sleep(_RETRY_SECONDS)
        else:
            return
