"""The move from the first step to the last."""

import functools
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from datetime import datetime, timedelta
from typing import Final, NamedTuple

import asyncpg
import structlog

from sens_common.attempts import Attempts, Backoff
from sens_common.database import Connection
from sens_common.health import Problems
from sens_common.moving import step
from sens_common.moving.columnstore import fill_columnstore
from sens_common.moving.dropping import drops, has_former_tables
from sens_common.moving.progress import MoveProgress
from sens_common.moving.step import Step
from sens_common.moving.windows import Window, find_windows

log = structlog.get_logger()

_STEP_SECONDS: Final = 0.2
"""What a step should take; well under a second, also when one takes longer than the one before."""
_FIRST_VALUES: Final = 10_000
_LEAST_VALUES: Final = 1_000
_MOST_VALUES: Final = 1_000_000
_FIRST_DEVICES: Final = 8
_MOST_DEVICES: Final = 5_000
_SHORTEST: Final = timedelta(milliseconds=1)
_BACKOFF: Final = Backoff(0.05, 2)

_DEVICES_LEFT: Final = """
    SELECT f.device_id, greatest(f.moved_before, $1) AS first,
        (
            SELECT count(*) FROM (
                (
                    SELECT FROM sens.measurements m
                    WHERE m.device_id = f.device_id AND m.ts >= $1 AND m.ts < $2 AND m.ts >= f.moved_before LIMIT $4
                )
                UNION ALL
                (
                    SELECT FROM sens.text_measurements m
                    WHERE m.device_id = f.device_id AND m.ts >= $1 AND m.ts < $2 AND m.ts >= f.moved_before LIMIT $4
                )
            ) v
        ) AS count
    FROM (SELECT * FROM sens.former_devices WHERE moved_before < $2 ORDER BY device_id LIMIT $3) f
    ORDER BY f.device_id
"""
_COUNT: Final = """
    SELECT count(*) FROM (
        (SELECT FROM sens.measurements m WHERE m.device_id = $1 AND m.ts >= $2 AND m.ts < $3 LIMIT $4)
        UNION ALL
        (SELECT FROM sens.text_measurements m WHERE m.device_id = $1 AND m.ts >= $2 AND m.ts < $3 LIMIT $4)
    ) v
"""
_FINISHED: Final = "UPDATE sens.move_progress SET share = 1, noted_at = clock_timestamp()"
_ENSURE: Final = "SELECT sens.ensure_reading_partitions($1, $2)"


class _Choice(NamedTuple):
    """What to move next.

    Attributes:
        devices: Their ids.
        first: Up to when they are moved.
        past: Up to when they are to be.
        values: How many values that is, one more than a step should have where it is not known.
    """

    devices: list[int]
    first: datetime
    past: datetime
    values: int


class Mover:
    """Moves what there is, over one connection of the owner."""

    def __init__(self, connection: Connection, problems: Problems, *, most_values: int = _MOST_VALUES) -> None:
        """Begin.

        Args:
            connection: Its own, for as long as the move lasts.
            problems: Are told what a step waits for.
            most_values: A step moves about so many at most.
        """
        self._connection = connection
        self._most_values = most_values
        self._values = min(_FIRST_VALUES, most_values)
        self._devices = _FIRST_DEVICES
        self._span = timedelta.max
        self._attempts = Attempts(
            problems,
            "step",
            "a step of the move has to wait",
            retry_on=(asyncpg.LockNotAvailableError, asyncpg.TransactionRollbackError),
            backoff=_BACKOFF,
        )
        self._longest_step_seconds = 0.0

    async def move(self) -> AsyncGenerator[MoveProgress, None]:
        """Move all; tell after each step how far it is. It may be left at any of these moments, and begun again.

        Raises:
            SchemaError: Something that was written is not what was read.
        """
        connection = self._connection
        if not await has_former_tables(connection):
            return
        await connection.execute(step.SESSION)
        windows = await find_windows(connection)
        while await connection.fetchval("SELECT EXISTS (SELECT FROM sens.former_devices)"):
            began = time.monotonic()
            done = await connection.fetchval("SELECT share FROM sens.move_progress")
            before = await connection.fetchval("SELECT moved_values FROM sens.move_progress")
            async for values, share in self._move_all(windows):
                seconds = time.monotonic() - began
                pace = (share - done) / seconds if share > done else 0.0
                left = (1 - share) / pace if pace else None
                yield MoveProgress(before + values, max(share, done), values / seconds, left)
            if windows:
                await connection.execute("DELETE FROM sens.former_devices WHERE moved_before >= $1", windows[-1].past)
            else:
                await connection.execute("DELETE FROM sens.former_devices")
        await connection.execute(_FINISHED)

    async def drop(self) -> None:
        """Drop the old tables, when all is moved; the last step.

        Raises:
            SchemaError: There are devices whose values are not moved.
        """
        connection = self._connection
        if not await has_former_tables(connection):
            return
        await connection.execute(step.SESSION)
        async for statement in drops(connection, await find_windows(connection)):
            await self._attempts.run(functools.partial(connection.execute, statement))

    async def _move_all(self, windows: Sequence[Window]) -> AsyncIterator[tuple[int, float]]:
        """Move everything in the windows; give after each step how many values this run has moved, and the share of the work."""
        whole = sum(window.weight for window in windows)
        before = 0.0
        moved = 0
        for window in windows:
            async for values, share_of_window in self._move_window(window, before / whole, window.weight / whole):
                moved += values
                yield moved, (before + window.weight * share_of_window) / whole
            await fill_columnstore(self._connection, window.past)
            before += window.weight

    async def _move_window(self, window: Window, done: float, weight: float) -> AsyncIterator[tuple[int, float]]:
        """Move everything in a window; give after each step how many values it has moved, and the share of the window."""
        connection = self._connection
        await self._attempts.run(
            lambda: connection.execute(_ENSURE, window.first, window.past - timedelta(microseconds=1))
        )
        devices = await connection.fetchval("SELECT greatest(count(*), 1) FROM sens.former_devices")
        finished = await connection.fetchval(
            "SELECT count(*) FROM sens.former_devices WHERE moved_before >= $1", window.past
        )
        began = time.monotonic()
        while chosen := await self._choose(window):
            share = done + weight * finished / devices
            taken = Step(chosen.devices, chosen.first, chosen.past, share, self._longest_step_seconds)
            choosing = time.monotonic() - began
            values = await self._attempts.run(functools.partial(self._take, taken))
            if chosen.past == window.past:
                finished += len(chosen.devices)
            seconds = time.monotonic() - began
            self._longest_step_seconds = max(self._longest_step_seconds, seconds)
            log.debug("a step of the move", seconds=round(seconds, 4), choosing=round(choosing, 4), values=values)
            self._adapt(chosen, values, seconds)
            yield values, finished / devices
            began = time.monotonic()

    async def _take(self, taken: Step) -> int:
        async with self._connection.transaction():
            return await step.take(self._connection, taken)

    async def _choose(self, window: Window) -> _Choice | None:
        """Return what to move next in a window: as many devices as have `self._values` together, or a part of one that has more."""
        rows = await self._connection.fetch(_DEVICES_LEFT, window.first, window.past, self._devices, self._values + 1)
        if not rows:
            return None
        first = rows[0]["first"]
        devices: list[int] = []
        values = 0
        for row in rows:
            if row["first"] != first or (devices and values + row["count"] > self._values):
                break
            devices.append(row["device_id"])
            values += row["count"]
        if values <= self._values:
            return _Choice(devices, first, window.past, values)
        return _Choice(devices, first, await self._part(devices[0], first, window.past), values)

    async def _part(self, device: int, first: datetime, past: datetime) -> datetime:
        """Return up to when a device has about `self._values` values."""
        span = min(self._span * 2 if self._span < past - first else past - first, past - first)
        while span > _SHORTEST:
            count = await self._connection.fetchval(_COUNT, device, first, first + span, self._values + 1)
            if count <= self._values:
                break
            span /= 2
        self._span = span
        return first + span

    def _adapt(self, chosen: _Choice, values: int, seconds: float) -> None:
        """Let the next step take about as long as one should."""
        factor = min(1.5, max(0.5, _STEP_SECONDS / seconds))
        if 2 * values >= self._values:
            self._values = min(self._most_values, max(_LEAST_VALUES, int(self._values * factor)))
        elif factor < 1 or len(chosen.devices) == self._devices:
            self._devices = min(_MOST_DEVICES, max(_FIRST_DEVICES, int(self._devices * factor)))
