"""Deleting devices and metrics: the name at once, the measurements in steps, which go on when the process starts again."""

import asyncio
import time
from functools import partial
from typing import Final, NamedTuple, Protocol

import structlog

from sens_common.attempts import Attempts
from sens_common.errors import SensError
from sens_common.health import Problems
from sens_common.keys import key_hash
from sens_platform_api import metrics
from sens_platform_api.between_batches import between_batches
from sens_platform_api.devices.repository import Kind
from sens_platform_api.errors import (
    AlreadyExistsError,
    InvalidRequestError,
    NotFoundError,
    ReadOnlyKeyError,
    StillMovingError,
    TargetLimitError,
)
from sens_platform_api.parameters import canonical_device
from sens_platform_api.registry.repository import DeletionStep, Metric, Move, Moving, Renaming

log = structlog.get_logger()

TARGET_KEY: Final = "Sens-Target-Key"
"""The header with a key of the tenant that a device moves to."""
STEP_MEASUREMENTS: Final = 10_000
"""Measurements that are deleted in one transaction: a fraction of a second."""
INTERVAL_SECONDS: Final = 2.0


class Names(Protocol):
    """The metrics and devices of one tenant, and their deletion in the name of one caller."""

    async def metrics(self, *, after: tuple[str, str], prefix: str, limit: int) -> list[Metric]:
        """Return metrics by name and kind: those after a name and kind, whose names begin with the prefix."""

    async def delete_device(self, name: str) -> bool:
        """Delete a device; return False when there is none with this name, raise `StillStoringError` to be called again."""

    async def delete_metric(self, name: str, kind: Kind | None) -> list[Kind]:
        """Delete a metric, one kind of it or all; return the kinds that there were. Raises as `delete_device`."""


class RenamedDevices(Protocol):
    """The devices of one tenant, renamed in the name of one caller."""

    async def rename_device(self, name: str, new_name: str) -> Renaming:
        """Give a device another name; raise `StillStoringError` to be called again."""


class MovedDevices(Protocol):
    """The devices of one tenant, moved to another one in the name of one caller."""

    async def move_device(self, name: str, new_name: str, target_key_hash: bytes) -> Move:
        """Move a device to the tenant of another key; raise `StillStoringError` to be called again."""


class Deletions(Protocol):
    """The deletions of all tenants whose measurements are not all gone yet."""

    async def step(self, most: int) -> DeletionStep | None:
        """Delete about so many measurements of one deletion; return None when there is no deletion."""


class MetricPage(NamedTuple):
    """Some metrics, and the name and kind after which the others are; None at the end."""

    metrics: list[Metric]
    after: tuple[str, str] | None


async def list_metrics(names: Names, *, after: tuple[str, str], prefix: str, limit: int) -> MetricPage:
    """Return the tenant's metrics by name and kind."""
    found = await names.metrics(after=after, prefix=prefix, limit=limit + 1)
    last = found[limit - 1] if len(found) > limit else None
    return MetricPage(found[:limit], None if last is None else (last.name, last.kind))


async def delete_device(names: Names, device: str) -> str:
    """Delete a device with all its measurements; return its name.

    Raises:
        NotFoundError: The tenant has no such device.
        UnavailableError: Batches are being stored all the time.
    """
    name = canonical_device(device)
    if not await between_batches(partial(names.delete_device, name)):
        raise NotFoundError(f"there is no device {name}")
    return name


async def rename_device(devices: RenamedDevices, device: str, new_name: str) -> str:
    """Give a device another name; return it.

    Raises:
        NotFoundError: The tenant has no such device.
        AlreadyExistsError: It has one of the new name.
        UnavailableError: Batches are being stored all the time.
    """
    name, new = canonical_device(device), canonical_device(new_name)
    match await between_batches(partial(devices.rename_device, name, new)):
        case Renaming.UNKNOWN_DEVICE:
            raise NotFoundError(f"there is no device {name}")
        case Renaming.TAKEN:
            raise AlreadyExistsError(f"there is a device {new} already; rename or delete it first")
        case Renaming.RENAMED:
            return new


async def move_device(devices: MovedDevices, device: str, new_name: str | None, target_key: str) -> Move:
    """Move a device to the tenant of another key, under its name or a new one.

    Raises:
        NotFoundError: The tenant has no such device.
        InvalidRequestError: The other key is not valid, or of the same tenant.
        ReadOnlyKeyError: The other key may only read.
        AlreadyExistsError: The other tenant has a device of the name.
        StillMovingError: The device's history is still coming from where it was before.
        TargetLimitError: The other tenant has as many devices or metrics as it may have.
        UnavailableError: Batches are being stored all the time.
    """
    name = canonical_device(device)
    new = name if new_name is None else canonical_device(new_name)
    move = await between_batches(partial(devices.move_device, name, new, key_hash(target_key)))
    match move.outcome:
        case Moving.MOVED:
            return move
        case Moving.UNKNOWN_DEVICE:
            raise NotFoundError(f"there is no device {name}")
        case Moving.UNKNOWN_KEY:
            raise InvalidRequestError.in_header(TARGET_KEY, "it is unknown, was revoked or has expired")
        case Moving.SAME_TENANT:
            raise InvalidRequestError.in_header(
                TARGET_KEY, "it is a key of the same tenant; use one of the other tenant"
            )
        case Moving.READ_ONLY_KEY:
            raise ReadOnlyKeyError(f"the key in {TARGET_KEY} may only read; use one that may write")
        case Moving.TAKEN:
            raise AlreadyExistsError(
                f"tenant {move.tenant} has a device {new} already; give another name, or rename or delete that one"
            )
        case Moving.STILL_MOVING:
            raise StillMovingError(f"the history of {name} is still coming; try again once its move is finished")
        case Moving.TOO_MANY_DEVICES:
            raise TargetLimitError(f"tenant {move.tenant} has as many devices as it may have (sens tenants limits)")
        case Moving.TOO_MANY_METRICS:
            raise TargetLimitError(
                f"tenant {move.tenant} may not have as many metrics as there would be (sens tenants limits)"
            )


async def delete_metric(names: Names, metric: str, kind: Kind | None) -> list[Kind]:
    """Delete a metric of all devices with all its measurements, one kind of it or all; return the kinds that there were.

    Raises:
        NotFoundError: The tenant has no such metric.
        UnavailableError: Batches are being stored all the time.
    """
    kinds = await between_batches(partial(names.delete_metric, metric, kind))
    if not kinds:
        raise NotFoundError(
            f"there is no metric {metric!r:.250}" + (f" with values of the kind {kind}" if kind else "")
        )
    return kinds


async def keep_deleting(
    deletions: Deletions, problems: Problems, *, interval_seconds: float = INTERVAL_SECONDS
) -> None:
    """Delete the measurements of deleted devices and metrics, whenever there are some."""
    attempts = Attempts(
        problems,
        "deletion",
        "the measurements of deleted devices and metrics can't be deleted",
        retry_on=(SensError,),
        interval_seconds=interval_seconds,
    )
    async for attempt in attempts:
        with attempt:
            await _delete_all(deletions)


async def _delete_all(deletions: Deletions) -> None:
    """Delete step by step until none is left; between two steps is as much time as a step takes, so that others get on as well."""
    while True:
        started = time.monotonic()
        step = await deletions.step(STEP_MEASUREMENTS)
        if step is None:
            return
        metrics.DELETED.inc(step.deleted)
        if step.finished:
            log.info("the measurements of a deletion are gone", deletion=step.deletion)
        await asyncio.sleep(time.monotonic() - started)
