"""Work races the stop in one place."""

import asyncio

import pytest

from sens_common.errors import StoppedError
from sens_common.stopping import Race, before_stop


class TestBeforeStop:
    async def test_returns_what_the_work_returns(self) -> None:
        assert (await before_stop(asyncio.Event(), asyncio.sleep(0, "done"))) == "done"

    async def test_gives_the_work_up_when_the_stop_comes_first(self) -> None:
        stop = asyncio.Event()
        stop.set()
        work = asyncio.get_running_loop().create_future()
        with pytest.raises(StoppedError):
            await before_stop(stop, work)
        assert work.cancelled()


class TestRace:
    async def test_runs_one_piece_of_work_after_another(self) -> None:
        with Race(asyncio.Event()) as race:
            assert [await race.run(asyncio.sleep(0, number)) for number in range(3)] == [0, 1, 2]

    async def test_ends_work_under_way_and_waits_for_its_end(self) -> None:
        stop = asyncio.Event()
        events = []

        async def work() -> None:
            stop.set()
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                await asyncio.sleep(0)
                events.append("cleaned up")

        with Race(stop) as race:
            with pytest.raises(StoppedError):
                await race.run(work())
            events.append("stopped")
        assert events == ["cleaned up", "stopped"]

    async def test_begins_no_work_after_the_stop(self) -> None:
        stop = asyncio.Event()
        begun = []

        async def work() -> None:
            begun.append("work")

        with Race(stop) as race:
            stop.set()
            with pytest.raises(StoppedError):
                await race.run(work())
        assert begun == []

    async def test_passes_on_what_the_work_raises(self) -> None:
        async def scenario() -> None:
            async def work() -> None:
                raise ConnectionResetError

            with Race(asyncio.Event()) as race:
                await race.run(work())

        with pytest.raises(ConnectionResetError):
            await scenario()

    async def test_cancels_the_work_when_it_is_cancelled_itself(self) -> None:
        work = asyncio.get_running_loop().create_future()
        with Race(asyncio.Event()) as race:
            running = asyncio.create_task(race.run(work))
            await asyncio.sleep(0)
            running.cancel()
            await asyncio.wait({running})
        assert work.cancelled()

    async def test_leaves_no_task_behind(self) -> None:
        asyncio.current_task().set_name("scenario")  # type: ignore[union-attr]  # there is one
        with Race(asyncio.Event()) as race:
            await race.run(asyncio.sleep(0))
        await asyncio.sleep(0)
        assert ({task.get_name() for task in asyncio.all_tasks()} - {"scenario"}) == set()
