"""A live reader's queue, and how its events look."""

import asyncio

from sens_common.live import Reading
from sens_platform_api.live.schemas import render
from sens_platform_api.live.service import Batch, Reader, events


def readings(count: int, device: str = "d") -> list[Reading]:
    return [Reading(device, "t", index, float(index)) for index in range(count)]


class TestReader:
    def test_gets_what_came_in_order(self) -> None:
        async def run() -> Batch:
            reader = Reader(frozenset(), 10)
            reader.give(readings(3))
            return await reader.take(60)

        assert asyncio.run(run()) == Batch(readings(3), 0)

    def test_that_is_slow_loses_the_oldest_and_is_told_how_many(self) -> None:
        async def run() -> tuple[Batch, Batch]:
            reader = Reader(frozenset(), 10)
            reader.give(readings(25))
            first = await reader.take(60)
            reader.give(readings(1))
            return first, await reader.take(60)

        first, second = asyncio.run(run())
        assert first == Batch(readings(25)[15:], 15)
        assert second.dropped == 0

    def test_gets_only_the_devices_it_wants(self) -> None:
        async def run() -> Batch:
            reader = Reader(frozenset({"d"}), 10)
            reader.give(readings(2, "other") + readings(1))
            return await reader.take(60)

        assert asyncio.run(run()) == Batch(readings(1), 0)

    def test_gets_nothing_when_nothing_comes(self) -> None:
        async def run() -> Batch:
            return await Reader(frozenset(), 10).take(0)

        assert asyncio.run(run()) == Batch([], 0)


class TestEvents:
    def test_end_when_the_reader_is_closed(self) -> None:
        async def run() -> list[Batch | None]:
            async def check() -> bool:
                return True

            reader = Reader(frozenset(), 10)
            reader.give(readings(1))
            stream = events(reader, check)
            seen = [await anext(stream)]
            reader.close()
            return seen + [batch async for batch in stream]

        assert asyncio.run(run()) == [Batch(readings(1), 0)]

    def test_are_server_sent_events(self) -> None:
        text = render(Batch([Reading("d", "t", 1_500_000, "ü\n")], 3))
        assert (
            text
            == (
                'event: dropped\ndata: {"count":3}\n\n'
                "event: reading\n"
                'data: {"device":"d","metric":"t","time":"1970-01-01T00:00:01.500000Z","value":"ü\\n"}\n\n'
            ).encode()
        )
