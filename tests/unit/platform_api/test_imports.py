"""Imports: their turns, and what is refused at once."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, cast

import pytest

from sens_payloads.formats import sparkplug_b
from sens_payloads.sources import Source
from sens_platform_api.errors import InvalidRequestError
from sens_platform_api.imports.lines import Bounds, Line, Message
from sens_platform_api.imports.pace import MOST_WAITING_SECONDS, Pace, TooManyImportsError
from sens_platform_api.imports.service import Imported, import_lines

if TYPE_CHECKING:
    from sens_payloads.uplinks import NetworkFormat

NOW: Final = int(datetime(2026, 1, 1, tzinfo=UTC).timestamp() * 1e6)


class Stream:
    """The stream of envelopes; remembers what it takes."""

    def __init__(self) -> None:
        self.waiting = 0.0
        self.taken: list[tuple[int, int]] = []

    async def waiting_seconds(self) -> float:
        return self.waiting

    async def publish(self, _identity: str, messages: Sequence[Message], _received_at: int, late_days: int) -> None:
        self.taken.append((len(messages), late_days))


class Tenants:
    """A tenant whose readings may lie 4,000 days back in imports."""

    async def bounds(self) -> Bounds:
        return Bounds(4000, None)

    async def source(self, name: str) -> Source | None:
        return Source(name, cast("NetworkFormat", sparkplug_b), sparkplug_b.SETTINGS)


class Clock:
    """A clock that sleeping turns."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds


def paced(lines_per_second: int) -> tuple[Pace, Clock]:
    clock = Clock()
    return Pace(lines_per_second, clock, clock.sleep), clock


async def seconds_for(pace: Pace, clock: Clock, requests: int, rate: int | None = None) -> float:
    began = clock.now
    for _ in range(requests):
        await pace.wait("a", 1000, Stream(), rate)
    return clock.now - began


class TestPace:
    async def test_lets_so_many_lines_a_second_go(self) -> None:
        assert await seconds_for(*paced(1000), 11) == pytest.approx(10)

    async def test_is_not_faster_than_the_tenants_own_rate(self) -> None:
        assert await seconds_for(*paced(1000), 11, 250) == pytest.approx(40)

    async def test_gives_each_tenant_that_imports_the_same(self) -> None:
        pace, clock = paced(1000)

        async def is_taken(tenant: str) -> bool:
            before = clock.now
            try:
                await pace.wait(tenant, 100, Stream())
            except TooManyImportsError:
                return False
            clock.now = before
            return True

        done = dict.fromkeys("ab", 0)
        for second in range(60):
            clock.now = second
            for tenant, requests in (("a", 30), ("b", 7)):  # the first one asks far more often
                done[tenant] += sum([await is_taken(tenant) for _ in range(requests)])
        assert 290 <= done["b"] <= done["a"] <= 400

    async def test_refuses_lines_whose_turn_comes_too_late(self) -> None:
        pace = Pace(100, clock=lambda: 0.0)
        await pace.wait("a", 1000, Stream())
        with pytest.raises(TooManyImportsError, match="other lines of tenant a"):
            await pace.wait("a", 1, Stream())
        await pace.wait("b", 1, Stream())

    async def test_lets_messages_go_first_that_wait_to_be_stored(self) -> None:
        pace, clock = paced(1000)
        stream = Stream()
        stream.waiting = MOST_WAITING_SECONDS + 1
        with pytest.raises(TooManyImportsError, match="come before imports"):
            await pace.wait("a", 1, stream)
        stream.waiting = 0
        clock.now += 1
        await pace.wait("a", 1, stream)


async def imported(line: Line, stream: Stream, source: str | None = None) -> Imported:
    return await import_lines(
        Tenants(), stream, Pace(1000), [line], tenant="demo", identity="x", source=source, received_at=NOW
    )


class TestImport:
    async def test_tells_the_workers_how_old_its_lines_may_be(self) -> None:
        stream = Stream()
        found = await imported(Line(1, "d", b'{"ts": "2016-01-01T00:00:00Z", "t": 1}'), stream)
        assert (len(found.messages), stream.taken) == (1, [(1, 4000)])

    async def test_names_the_permission_that_older_lines_need(self) -> None:
        stream = Stream()
        found = await imported(Line(1, "d", b'{"ts": "2001-01-01T00:00:00Z", "t": 1}'), stream)
        assert "sens tenants limits demo --import-late-days N" in found.refused[0].detail
        assert stream.taken == []

    async def test_of_sparkplug_b_is_refused_in_words(self) -> None:
        with pytest.raises(InvalidRequestError, match="births that precede them"):
            await imported(Line(1, None, b""), Stream(), "plant")
