"""The one place that races work with the stop of a service."""

import asyncio
from collections.abc import Awaitable
from types import TracebackType
from typing import Self

from sens_common.errors import StoppedError


class Race:
    """Runs one piece of work after another, each only for as long as nobody says stop.

    A single task waits for the stop while the context is open, however many pieces of work there are::

        with Race(stop) as race:
            while True:
                delivery = await race.run(connection.receive())  # raises StoppedError
    """

    def __init__(self, stop: asyncio.Event) -> None:
        self._stop = stop
        self._stopping: asyncio.Task[bool] | None = None

    def __enter__(self) -> Self:
        """Begin to wait for the stop."""
        self._stopping = asyncio.create_task(self._stop.wait(), name="wait for stop")
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        """Wait for the stop no longer."""
        if self._stopping is not None:
            self._stopping.cancel()

    async def run[T](self, work: Awaitable[T]) -> T:
        """Await the work. When the stop comes first, the work is cancelled, and has ended before this raises.

        Work that is complete when the stop comes counts as done.

        Raises:
            StoppedError: The stop came first.
            Exception: What the work raises.
        """
        assert self._stopping is not None  # noqa: S101 - used as a context manager
        working = asyncio.ensure_future(work)
        try:
            if not self._stop.is_set():
                await asyncio.wait({working, self._stopping}, return_when=asyncio.FIRST_COMPLETED)
            if not working.done():
                working.cancel()
                await asyncio.wait({working})
                raise StoppedError("told to stop")
            return working.result()
        finally:
            working.cancel()


async def before_stop[T](stop: asyncio.Event, work: Awaitable[T]) -> T:
    """Await one piece of work; see `Race.run`.

    Raises:
        StoppedError: The stop came first.
    """
    with Race(stop) as race:
        return await race.run(work)
