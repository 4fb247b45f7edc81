"""Merging the rows of several series by time."""

import heapq
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import Protocol

from sens_platform_api.measurements.buckets import BUCKET_ORIGIN
from sens_platform_api.measurements.query import RESOLUTION
from sens_platform_api.measurements.repository import Row


class Sorted(Protocol):
    """Rows that are sorted by time: those that wait to be merged, and whether more can be read."""

    rows: deque[Row]

    @property
    def complete(self) -> bool:
        """Whether there are no more than those that wait."""


async def merged[S: Sorted](
    sources: Sequence[S], fill: Callable[[Sequence[S]], Awaitable[None]], *, descending: bool
) -> AsyncGenerator[Row]:
    """Yield the rows of sources that are sorted by time, sorted by time; of equal times, the earlier source's first.

    Args:
        sources: Filled.
        fill: Fills those that run low.
        descending: Whether the newest come first.
    """
    if len(sources) == 1:
        async for row in _rows_of(sources, fill):
            yield row
        return
    heads: list[tuple[int, int, Row]] = []

    def push(index: int) -> None:
        if sources[index].rows:
            row = sources[index].rows.popleft()
            microseconds = (row.time - BUCKET_ORIGIN) // RESOLUTION
            heapq.heappush(heads, (-microseconds if descending else microseconds, index, row))

    for index in range(len(sources)):
        push(index)
    while heads:
        _, index, row = heapq.heappop(heads)
        yield row
        if not sources[index].rows and not sources[index].complete:
            await fill(sources)
        push(index)


async def _rows_of[S: Sorted](
    sources: Sequence[S], fill: Callable[[Sequence[S]], Awaitable[None]]
) -> AsyncGenerator[Row]:
    """Yield the rows of the only source, which costs half of merging."""
    [source] = sources
    while True:
        while source.rows:
            yield source.rows.popleft()
        if source.complete:
            return
        await fill(sources)
