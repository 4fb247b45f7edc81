"""Erasing what is stored of a device on request: written into the stream ``CONTROL`` first, then carried out, with a receipt.

What the stream holds and the database does not, after a restore, is carried out again.
"""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final, NamedTuple, Protocol

import structlog

from sens_common.attempts import Attempts
from sens_common.control import Erasure, device_hash
from sens_common.errors import SensError
from sens_common.health import Problems
from sens_platform_api.between_batches import between_batches
from sens_platform_api.errors import NotFoundError
from sens_platform_api.parameters import canonical_device
from sens_platform_api.settings import ErasureSettings

log = structlog.get_logger()

INTERVAL_SECONDS: Final = 10.0


class Position(NamedTuple):
    """A message of the stream ``CONTROL``: when the stream was made (microseconds since the epoch), and the message's sequence."""

    stream: int
    sequence: int


class StoredErasure(NamedTuple):
    """An erasure in the database.

    Attributes:
        id: Of the erasure.
        device_hash: SHA-256 of the device's name.
        erased_at: Messages that were received before it are erased.
        finished_at: When nothing was left, None while there is.
        readings: Readings that went so far.
        values: Their values.
        letters: Dead letters.
        frames: Messages that its sources had kept.
    """

    id: int
    device_hash: bytes
    erased_at: datetime
    finished_at: datetime | None
    readings: int
    values: int
    letters: int
    frames: int


class Receipt(NamedTuple):
    """What an erasure has done, and when nothing is left of the device anywhere.

    Attributes:
        erasure: What is known of it.
        stream_free_at: From when on the stream no longer holds the device's messages.
        backups_free_at: From when on no backup holds them; None where there are no backups.
    """

    erasure: StoredErasure
    stream_free_at: datetime
    backups_free_at: datetime | None


class ErasedName(NamedTuple):
    """A name that a device has or had.

    Attributes:
        tenant_id: Id of the tenant in which it has or had it.
        device_hash: SHA-256 of the name.
        until: When it lost the name, None where it has it.
    """

    tenant_id: int
    device_hash: bytes
    until: datetime | None


class Erasures(Protocol):
    """The erasures of one tenant, in the name of one caller."""

    @property
    def tenant_id(self) -> int:
        """Id of the tenant."""

    async def names(self, hash_: bytes) -> list[ErasedName]:
        """Return the names of a device that an erasure means, the present one first."""

    async def erase(self, hash_: bytes, at: datetime) -> int:
        """Erase a device; return the erasure's id. Raises `StillStoringError` to be called again."""

    async def erase_elsewhere(self, hash_: bytes, name: ErasedName) -> None:
        """Erase what a device left under a name in another tenant, before the device is erased. Raises as `erase`."""

    async def find(self, erasure: int) -> StoredErasure | None:
        """Return an erasure."""

    async def newest(self, limit: int) -> list[StoredErasure]:
        """Return erasures, the newest first."""


class Control(Protocol):
    """The stream ``CONTROL``."""

    async def publish(self, erasure: Erasure) -> None:
        """Keep an erasure.

        Raises:
            UnavailableError: NATS can't be used.
        """

    def after(self, position: Position) -> AsyncIterator[tuple[Position, Erasure | None]]:
        """Yield what came after a position, all of it where that is of another stream; None for what is not understood. Raises as `publish`."""


class AppliedControl(Protocol):
    """How far the stream was carried out."""

    async def position(self) -> Position:
        """Return where the last message was."""

    async def apply(self, position: Position, erasure: Erasure) -> None:
        """Carry out an erasure, if it is not; raises `StillStoringError` to be called again."""


async def erase(erasures: Erasures, control: Control, device: str) -> int:
    """Erase what is stored of a device; return the erasure's id. The device may have been deleted before, or may have had other names.

    Raises:
        NotFoundError: No device can have this name.
        UnavailableError: NATS can't be used, or batches are being stored all the time.
    """
    now = datetime.now(UTC)
    present, *former = await erasures.names(device_hash(canonical_device(device)))
    for name in (present, *former):
        await control.publish(Erasure(name.tenant_id, name.device_hash.hex(), _microseconds(name.until or now)))
    for name in former:
        if name.tenant_id != erasures.tenant_id:
            await between_batches(partial(erasures.erase_elsewhere, present.device_hash, name))
    erasure = await between_batches(partial(erasures.erase, present.device_hash, now))
    for name in former:
        if name.tenant_id == erasures.tenant_id:
            await between_batches(partial(erasures.erase, name.device_hash, name.until or now))
    return erasure


async def receipt(erasures: Erasures, erasure: int, settings: ErasureSettings) -> Receipt:
    """Return the receipt of an erasure.

    Raises:
        NotFoundError: The tenant has no such erasure.
    """
    found = await erasures.find(erasure)
    if found is None:
        raise NotFoundError(f"there is no erasure {erasure}")
    return _receipt(found, settings)


async def receipts(erasures: Erasures, limit: int, settings: ErasureSettings) -> list[Receipt]:
    """Return the receipts of erasures, the newest first."""
    return [_receipt(found, settings) for found in await erasures.newest(limit)]


def _receipt(found: StoredErasure, settings: ErasureSettings) -> Receipt:
    done = found.finished_at or datetime.now(UTC)
    return Receipt(
        found,
        found.erased_at + timedelta(seconds=settings.history_seconds),
        None if settings.backup_days is None else done + timedelta(days=settings.backup_days),
    )


async def keep_applying(
    control: Control, applied: AppliedControl, problems: Problems, *, interval_seconds: float = INTERVAL_SECONDS
) -> None:
    """Carry out what the stream holds and the database has not done, or has lost in a restore."""
    attempts = Attempts(
        problems,
        "erasures",
        "erasures of the stream CONTROL can't be carried out",
        retry_on=(SensError,),
        interval_seconds=interval_seconds,
    )
    async for attempt in attempts:
        with attempt:
            await apply_control(control, applied)


async def apply_control(control: Control, applied: AppliedControl) -> int:
    """Carry out what came after the last message; return how many erasures there were."""
    count = 0
    async for position, erasure in control.after(await applied.position()):
        if erasure is not None:
            await between_batches(partial(applied.apply, position, erasure))
            count += 1
    if count:
        log.info("erasures of the stream CONTROL are carried out", erasures=count)
    return count


def _microseconds(at: datetime) -> int:
    return int(at.timestamp()) * 1_000_000 + at.microsecond
