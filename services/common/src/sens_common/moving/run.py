"""The move as a whole, for programs: over a connection of its own, with its errors in words."""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator
from typing import Final

import structlog
from pydantic import Field

from sens_common.database import connect
from sens_common.database_errors import DRIVER_ERRORS, DatabaseFault, fault_of, words_of_fault
from sens_common.errors import SchemaError, UnavailableError
from sens_common.extension import timescaledb_versions, update_timescaledb
from sens_common.health import Problems
from sens_common.migrations import REQUIRED_VERSION, schema_version
from sens_common.moving.mover import Mover
from sens_common.moving.progress import MoveProgress
from sens_common.settings import DatabaseSettings, ServiceSettings

log = structlog.get_logger()

_LINE_SECONDS: Final = 5.0


async def move(settings: DatabaseSettings) -> AsyncGenerator[MoveProgress, None]:
    """Move what is not moved yet, and drop the old tables; tell how far it is every few seconds, and at the end if anything was done.

    Run it again after whatever has ended it, also beside another one.

    Raises:
        UnavailableError: The server can't be reached, or was lost; or the migrations have not run.
        SchemaError: Something that was written is not what was read.
    """
    connection = await connect(settings, "sens-move")
    try:
        version = await schema_version(connection)
        if version < REQUIRED_VERSION:
            raise UnavailableError(
                f"the schema is at version {version}, {REQUIRED_VERSION} is needed; run the migrations first"
            )
        last: MoveProgress | None = None
        told_at = time.monotonic()
        mover = Mover(connection, Problems("move"))
        async with contextlib.aclosing(mover.move()) as steps:
            async for last in steps:
                if time.monotonic() - told_at >= _LINE_SECONDS:
                    yield last
                    told_at = time.monotonic()
        await mover.drop()
        if last is not None:
            yield last._replace(share=1.0, seconds_left=0.0)
    except DRIVER_ERRORS as error:
        if fault_of(error) in {DatabaseFault.TRANSIENT, DatabaseFault.TOO_SLOW}:
            raise UnavailableError(f"the move was interrupted: {words_of_fault(error)}; run it again") from error
        raise SchemaError(f"the move stops, and nothing is dropped: {words_of_fault(error)}") from error
    finally:
        with contextlib.suppress(*DRIVER_ERRORS):
            await connection.close(timeout=5)


class MoveSettings(ServiceSettings):
    """Settings of the move."""

    database: DatabaseSettings = DatabaseSettings()
    timescaledb_version: str | None = Field(
        None, description="Version of TimescaleDB that the server has or is about to have; the move waits for it."
    )


async def move_and_log(settings: MoveSettings, stop: asyncio.Event) -> None:
    """Update TimescaleDB's extension, then move until all is moved, or until the stop.

    Raises:
        UnavailableError: The server has not the version of TimescaleDB that it should have; besides what `move` raises.
    """
    wanted = settings.timescaledb_version
    versions = await timescaledb_versions(settings.database)
    if wanted is not None and versions is not None and versions.available not in {None, wanted}:
        raise UnavailableError(
            f"the server has TimescaleDB {versions.available} and is about to have {wanted}; waiting for it"
        )
    await update_timescaledb(settings.database)
    async with contextlib.aclosing(move(settings.database)) as lines:
        async for progress in lines:
            log.info(
                "measurements are moved",
                progress=str(progress),
                share=round(progress.share, 4),
                values=progress.moved_values,
            )
            if stop.is_set():
                return
    log.info("all measurements have the form of this version")
