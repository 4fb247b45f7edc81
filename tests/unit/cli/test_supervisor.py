"""The supervisor, with small programs as components; a file says that one is ready."""

import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from sens_cli.up.components import Component, Launch, Step
from sens_cli.up.data import DataFolder
from sens_cli.up.process import process_identity
from sens_cli.up.supervisor import LONGEST_BACKOFF_SECONDS, SERVICES_STOP_SECONDS, Supervisor, backoff_seconds
from sens_common.errors import SensError
from support.servers import eventually

READY_THEN_WAIT = "import pathlib,sys,signal; pathlib.Path(sys.argv[1]).touch(); signal.pause()"
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN);" + READY_THEN_WAIT
NOTE_AT_STOP = (
    "import pathlib,sys,signal\n"
    "def stop(*_):\n"
    "    with open(sys.argv[2], 'a') as order: order.write(sys.argv[3] + '\\n')\n"
    "    sys.exit(0)\n"
    "signal.signal(signal.SIGTERM, stop)\n"
    "pathlib.Path(sys.argv[1]).touch()\n"
    "while True: signal.pause()\n"
)


class Recorder:
    """A display that remembers."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def starting(self, name: str) -> None:
        self.lines.append(f"starting {name}")

    def ready(self, name: str, seconds: float, detail: str) -> None:  # noqa: ARG002 - the protocol's
        self.lines.append(f"ready {name}")

    def notice(self, text: str, *, warning: bool = False) -> None:  # noqa: ARG002 - the protocol's
        self.lines.append(text)


class Running(NamedTuple):
    """What a test looks at."""

    supervisor: Supervisor
    recorder: Recorder
    work: "asyncio.Task[None]"


@pytest.fixture
def data(tmp_path: Path) -> Iterator[DataFolder]:
    folder = DataFolder(tmp_path / "data")
    folder.open()
    yield folder
    folder.close()


def component(
    data: DataFolder, name: str, program: str, *arguments: str, after: tuple[str, ...] = (), stop_stage: int = 0
) -> Component:
    """Return a component that is ready when its file exists."""
    file = data.run / f"{name}.ready"

    async def ready() -> str | None:
        return None if file.exists() else "no file"

    return Component(
        name=name,
        launch=lambda: Launch([sys.executable, "-S", "-c", program, str(file), *arguments], {}),
        environment={},
        after=after,
        ready=ready,
        address="",
        stop_stage=stop_stage,
    )


async def supervise(
    data: DataFolder,
    components: list[Component],
    check: Callable[[Running], Awaitable[None]],
    steps: list[Step] | None = None,
    *,
    services_stop_seconds: float = SERVICES_STOP_SECONDS,
) -> Recorder:
    """Run components until the check is done, then stop them."""
    recorder = Recorder()

    supervisor = Supervisor(
        components,
        steps or [],
        data=data,
        environment={},
        display=recorder,
        first_backoff_seconds=0.01,
        services_stop_seconds=services_stop_seconds,
    )
    work = asyncio.create_task(supervisor.run())
    try:
        await check(Running(supervisor, recorder, work))
    finally:
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
        await supervisor.stop()
    if not work.cancelled() and (error := work.exception()) is not None:
        raise error
    return recorder


async def all_ready(running: Running) -> None:
    await running.supervisor.all_ready()


async def given_up(running: Running) -> None:
    async with asyncio.timeout(30):
        await asyncio.wait([running.work])


class TestStarting:
    async def test_waits_for_what_a_component_needs(self, data: DataFolder) -> None:
        async def work() -> str:
            assert (data.run / "store.ready").exists()
            return "done"

        recorder = await supervise(
            data,
            [component(data, "service", READY_THEN_WAIT, after=("step",)), component(data, "store", READY_THEN_WAIT)],
            all_ready,
            [Step(name="step", after=("store",), work=work)],
        )
        assert [line for line in recorder.lines if line.startswith("ready")] == [
            "ready store",
            "ready step",
            "ready service",
        ]

    async def test_gives_up_on_what_keeps_dying_and_says_its_last_words(self, data: DataFolder) -> None:
        with pytest.raises(ExceptionGroup) as caught:
            await supervise(data, [component(data, "broken", "import sys; sys.exit('no such disk')")], given_up)
        error = caught.value.exceptions[0]
        assert isinstance(error, SensError)
        assert "broken can't be started: ended with code 1; its last words: no such disk" in str(error)

    async def test_gives_up_at_once_on_wrong_settings(self, data: DataFolder) -> None:
        with pytest.raises(ExceptionGroup) as caught:
            await supervise(data, [component(data, "broken", "raise SystemExit(78)")], given_up)
        assert "ended with code 78" in str(caught.value.exceptions[0])


class TestRestarting:
    async def test_follows_a_death_and_is_said(self, data: DataFolder) -> None:
        async def kill_it(running: Running) -> None:
            await running.supervisor.all_ready()
            running.supervisor._children["worker"].kill()

            async def ready_twice() -> bool:
                return running.recorder.lines.count("ready worker") == 2

            await eventually(ready_twice, "it is started again")

        recorder = await supervise(data, [component(data, "worker", READY_THEN_WAIT)], kill_it)
        assert "worker was ended by SIGKILL; starting it again in 0.01 s" in recorder.lines

    def test_waits_longer_each_time_up_to_a_bound(self) -> None:
        pauses = [backoff_seconds(restarts) for restarts in range(100)]
        assert pauses[:4] == [0.5, 1, 2, 4]
        assert pauses == sorted(pauses)
        assert pauses[-1] == LONGEST_BACKOFF_SECONDS


class TestStopping:
    async def test_follows_the_stages(self, data: DataFolder, tmp_path: Path) -> None:
        order = tmp_path / "order"
        members = [
            component(data, name, NOTE_AT_STOP, str(order), name, stop_stage=stage)
            for name, stage in (("store", 4), ("source", 0), ("worker", 1))
        ]
        await supervise(data, members, all_ready)
        assert order.read_text().split() == ["source", "worker", "store"]
        assert list(data.run.glob("*.pid")) == []

    async def test_kills_what_does_not_stop(self, data: DataFolder) -> None:
        numbers: list[int] = []

        async def note(running: Running) -> None:
            await running.supervisor.all_ready()
            numbers.append(running.supervisor._children["stubborn"].pid)

        recorder = await supervise(data, [component(data, "stubborn", STUBBORN)], note, services_stop_seconds=0.0)
        assert process_identity(numbers[0]) is None
        assert recorder.lines[-1] == "stubborn did not stop within 0.5 s: killed"

    async def test_is_hurried_by_a_second_signal(self, data: DataFolder) -> None:
        async def hurry(running: Running) -> None:
            await running.supervisor.all_ready()
            running.supervisor.hurry()
            assert running.supervisor._children["stubborn"].returncode is None

        recorder = await supervise(data, [component(data, "stubborn", STUBBORN)], hurry)
        assert not [line for line in recorder.lines if "did not stop" in line]


def test_the_stop_signal_of_a_component_is_sigterm(data: DataFolder) -> None:
    assert component(data, "any", READY_THEN_WAIT).stop_signal == signal.SIGTERM
