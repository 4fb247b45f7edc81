"""A live reader's queue, and how its events look."""

import json
from collections.abc import Collection

from sens_common.live import LiveReading
from sens_platform_api.live.meanings import KNOWN_SECONDS, NO_MEANING, DeviceMeanings, Meaning, TenantMeanings
from sens_platform_api.live.reader import _EVENT_OVERHEAD, TAKE_BYTES, Reader, RenderedReading, TakenEvents
from sens_platform_api.live.schemas import render, render_dropped, render_reading
from sens_platform_api.live.service import events


def texts(count: int, size: int = 20) -> list[RenderedReading]:
    return [RenderedReading("d", text, text) for text in (f"{index}".zfill(size).encode() for index in range(count))]


def given(events: list[RenderedReading]) -> list[bytes]:
    return [event.text for event in events]


def reader(most: int = 1 << 20, devices: frozenset[str] = frozenset()) -> Reader:
    return Reader(devices, lambda: most)


class TestReader:
    async def test_gets_what_came_in_order(self) -> None:
        one = reader()
        one.give(texts(3))
        assert (await one.take(60)) == TakenEvents(given(texts(3)), 0)

    async def test_that_is_idle_gets_a_backlog_of_thousands(self) -> None:
        one, count, dropped = reader(), 0, 0
        one.give([render(LiveReading("sensor-0001", "temperature", 1, 21.5), NO_MEANING)] * 3000)
        while count + dropped < 3000:
            taken = await one.take(60)
            count += len(taken.events)
            dropped += taken.dropped
        assert (count, dropped) == (3000, 0)

    async def test_that_is_slow_loses_the_oldest_and_is_told_how_many(self) -> None:
        one = reader(most=10 * (20 + _EVENT_OVERHEAD))
        one.give(texts(25))
        first = await one.take(60)
        one.give(texts(1))
        second = await one.take(60)
        assert first == TakenEvents(given(texts(25)[15:]), 15)
        assert second.dropped == 0

    async def test_is_told_of_losses_even_when_nothing_is_left(self) -> None:
        one = reader(most=10)
        one.give(texts(2))
        assert (await one.take(60)) == TakenEvents([], 2)

    async def test_takes_a_bounded_part_at_once(self) -> None:
        one = reader()
        sizes: list[int] = []
        one.give(texts(10, size=TAKE_BYTES // 2))
        while sum(sizes) < 10:
            sizes.append(len((await one.take(60)).events))
        assert sizes == [2, 2, 2, 2, 2]

    async def test_gets_only_the_devices_it_wants(self) -> None:
        one = reader(devices=frozenset({"d"}))
        one.give([RenderedReading("other", b"x", b"x"), *texts(1)])
        assert (await one.take(60)) == TakenEvents(given(texts(1)), 0)

    async def test_gets_nothing_when_nothing_comes(self) -> None:
        assert (await reader().take(0)) == TakenEvents([], 0)


class Stored:
    """A database in which devices have a unit, and one calibration each from a time on."""

    def __init__(self) -> None:
        self.asked: list[set[str]] = []
        self.scale = 2.0

    async def of_devices(self, _tenant_id: int, devices: Collection[str]) -> dict[str, DeviceMeanings]:
        self.asked.append(set(devices))
        return {device: {"t": Meaning("Cel", [100], [self.scale], [1.0])} for device in devices}


class TestMeanings:
    async def test_are_asked_for_again_after_some_seconds(self) -> None:
        now, stored = 0.0, Stored()
        meanings = TenantMeanings(stored, 1, lambda: now)
        readings = [LiveReading(device, "t", 100, 20.0) for device in ("a", "b", "a")]
        assert [each.unit for each in await meanings.of(readings)] == ["Cel"] * 3
        await meanings.of([*readings, LiveReading("c", "x", 1, "word")])
        now, stored.scale = KNOWN_SECONDS, 3.0
        assert [each.scales for each in await meanings.of(readings[:1])] == [[3.0]]
        assert stored.asked == [{"a", "b"}, {"c"}, {"a"}]

    def test_calibrate_numbers_from_their_time_on_and_say_the_unit(self) -> None:
        meaning = Meaning("Cel", [100], [2.0], [1.0])
        rendered = [
            json.loads(render(LiveReading("d", "t", at, value), meaning).text.partition(b"data: ")[2])
            for at, value in ((99, 20.0), (100, 20.0), (100, True), (100, "on"))
        ]
        assert [each["value"] for each in rendered] == [20.0, 41.0, True, "on"]
        assert {(each["unit"], each["unit_text"]) for each in rendered} == {("Cel", "°C")}

    async def test_leave_values_as_they_are_stored_for_whoever_wants_that(self) -> None:
        event = render(LiveReading("d", "t", 100, 20.0), Meaning(None, [100], [2.0], [1.0]))
        one = Reader(frozenset(), lambda: 1 << 20, as_stored=True)
        one.give([event])
        assert (await one.take(60)).events == [render_reading(LiveReading("d", "t", 100, 20.0))]


class TestEvents:
    async def test_end_when_the_reader_is_closed(self) -> None:
        async def check() -> bool:
            return True

        one = reader()
        one.give(texts(1))
        stream = events(one, check)
        seen = [await anext(stream)]
        one.close()
        assert (seen + [taken async for taken in stream]) == [TakenEvents(given(texts(1)), 0)]

    def test_are_server_sent_events(self) -> None:
        assert render_dropped(3) == b'event: dropped\ndata: {"count":3}\n\n'
        assert (
            render_reading(LiveReading("d", "t", 1_500_000, "ü\n"))
            == (
                "event: reading\n"
                'data: {"device":"d","metric":"t","time":"1970-01-01T00:00:01.500000Z","value":"ü\\n"}\n\n'
            ).encode()
        )
