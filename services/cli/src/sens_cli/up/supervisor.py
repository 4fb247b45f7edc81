"""Starts the components in the order of what they wait for, keeps them running, stops them in order."""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Final, Protocol

from sens_cli.up.account import OURSELVES, Children
from sens_cli.up.components import STAGE_STOP_SECONDS, Component, Step
from sens_cli.up.data import DataFolder
from sens_cli.up.process import last_line, start
from sens_common.errors import SensError

START_SECONDS: Final = 60.0
"""Time in which a component has to be ready."""

START_ATTEMPTS: Final = 3
"""How often a component may die before it was ever ready."""

FIRST_BACKOFF_SECONDS: Final = 0.5
LONGEST_BACKOFF_SECONDS: Final = 30.0
STABLE_SECONDS: Final = 60.0
"""After running for so long a component starts with the first backoff again."""

SERVICES_STOP_SECONDS: Final = 5.5
STORES_STOP_SECONDS: Final = 3.0
"""Together less than the ten seconds in which everything is stopped."""

SHORTEST_STOP_SECONDS: Final = 0.5
"""What a stage gets when those before it took longer than they should."""

_STORE_STAGE: Final = 4
_POLL_SECONDS: Final = 0.03
_WRONG_SETTINGS: Final = 78  # EX_CONFIG: trying again does not help


class Display(Protocol):
    """Tells people what happens."""

    def starting(self, name: str) -> None:
        """A component or step begins."""

    def ready(self, name: str, seconds: float, detail: str) -> None:
        """It is ready; the detail is its address or what was done."""

    def notice(self, text: str, *, warning: bool = False) -> None:
        """Something people should know."""


def backoff_seconds(restarts: int, first_seconds: float = FIRST_BACKOFF_SECONDS) -> float:
    """Return how long to wait before the next start, after so many in a row."""
    return float(min(first_seconds * 2 ** min(restarts, 16), LONGEST_BACKOFF_SECONDS))


class Supervisor:
    """Owns the components' processes."""

    def __init__(
        self,
        components: Sequence[Component],
        steps: Sequence[Step],
        *,
        data: DataFolder,
        environment: dict[str, str],
        display: Display,
        children: Children = OURSELVES,
        first_backoff_seconds: float = FIRST_BACKOFF_SECONDS,
        services_stop_seconds: float = SERVICES_STOP_SECONDS,
    ) -> None:
        self._components = components
        self._steps = steps
        self._data = data
        self._environment = environment
        self._display = display
        self._started_as = children
        self._first_backoff_seconds = first_backoff_seconds
        self._services_stop_seconds = services_stop_seconds
        self._children: dict[str, asyncio.subprocess.Process] = {}
        names = [component.name for component in components] + [step.name for step in steps]
        self._ready = {name: asyncio.Event() for name in names}
        self._at_once = asyncio.Event()

    async def run(self) -> None:
        """Start everything and keep it running until cancelled; nothing is stopped by that: call `stop` afterwards.

        Raises:
            SensError: A component can't be started (in an exception group).
        """
        async with asyncio.TaskGroup() as tasks:
            for step in self._steps:
                tasks.create_task(self._do(step), name=f"step {step.name}")
            for component in self._components:
                tasks.create_task(self._keep(component), name=f"component {component.name}")

    async def all_ready(self) -> None:
        """Wait until every component was ready and every step is done."""
        for event in self._ready.values():
            await event.wait()

    def end(self, name: str) -> None:
        """End a component for good, so that it is started again."""
        child = self._children.get(name)
        if child is not None:
            _send(child, signal.SIGKILL)

    def hurry(self) -> None:
        """Stop waiting for components to stop by themselves."""
        self._at_once.set()

    async def stop(self) -> None:
        """Stop everything in order: sources first, stores last; kill what does not stop in its time. `run` has ended before."""
        began = time.monotonic()
        stages = groupby(sorted(self._components, key=lambda component: component.stop_stage), _stage)
        for stage, members in stages:
            limit = self._services_stop_seconds + (STORES_STOP_SECONDS if stage >= _STORE_STAGE else 0)
            left = max(SHORTEST_STOP_SECONDS, began + limit - time.monotonic())
            await self._stop_stage(list(members), min(left, STAGE_STOP_SECONDS))

    async def _stop_stage(self, components: Iterable[Component], seconds: float) -> None:
        running = {
            component: child
            for component in components
            if (child := self._children.get(component.name)) is not None and child.returncode is None
        }
        for component, child in running.items():
            _send(child, component.stop_signal)
        exits = [asyncio.ensure_future(child.wait()) for child in running.values()]
        if not exits:
            return
        hurry = asyncio.ensure_future(self._at_once.wait())
        everyone = asyncio.ensure_future(asyncio.wait(exits))
        await asyncio.wait([everyone, hurry], timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        hurry.cancel()
        for component, child in running.items():
            if child.returncode is None:
                if not self._at_once.is_set():
                    self._display.notice(f"{component.name} did not stop within {seconds:.1f} s: killed", warning=True)
                _send(child, component.orphan_signal)
        # What was told to end at once and does not (a store with a hung disk) is killed for good.
        await asyncio.wait([everyone], timeout=0.7)
        for child in running.values():
            if child.returncode is None:
                _send(child, signal.SIGKILL)
        await everyone
        for component in running:
            self._note(component).unlink(missing_ok=True)

    async def _do(self, step: Step) -> None:
        await self._wait_for(step.after)
        self._display.starting(step.name)
        began = time.monotonic()
        detail = await step.work()
        self._display.ready(step.name, time.monotonic() - began, detail)
        self._ready[step.name].set()

    async def _keep(self, component: Component) -> None:
        """Start a component, and again whenever it dies."""
        await self._wait_for(component.after)
        restarts = 0
        while True:
            began = time.monotonic()
            child = await self._start(component)
            was_ready = await self._wait_until_ready(component, child, began)
            if was_ready:
                self._display.ready(component.name, time.monotonic() - began, component.address)
                self._ready[component.name].set()
            await child.wait()
            if time.monotonic() - began > STABLE_SECONDS:
                restarts = 0
            reason = self._reason(component, child)
            ever_ready = self._ready[component.name].is_set()
            if not ever_ready and (child.returncode == _WRONG_SETTINGS or restarts + 1 >= START_ATTEMPTS):
                raise SensError(f"{component.name} can't be started: {reason}\nIts log: {self._log(component)}")
            pause = backoff_seconds(restarts, self._first_backoff_seconds)
            restarts += 1
            self._display.notice(f"{component.name} {reason}; starting it again in {pause:g} s", warning=True)
            await asyncio.sleep(pause)

    async def _start(self, component: Component) -> asyncio.subprocess.Process:
        if not self._ready[component.name].is_set():
            self._display.starting(component.name)
        try:
            launch = component.launch()
            own = self._started_as
            child = await start(
                launch.command if launch.identity else own.command(launch.command, component.orphan_signal),
                environment=own.environment(self._environment | component.environment),
                folder=Path("/"),
                log=self._log(component),
                note=self._note(component),
                identity=launch.identity,
                orphan_signal=component.orphan_signal,
            )
        except OSError as error:
            raise SensError(f"{component.name} can't be started: {error.strerror} ({error.filename})") from error
        self._children[component.name] = child
        return child

    async def _wait_until_ready(self, component: Component, child: asyncio.subprocess.Process, began: float) -> bool:
        """Wait until the component says that it is ready; return False when it ended before."""
        answer: str | None = None
        while child.returncode is None:
            answer = await component.ready()
            if answer is None:
                return child.returncode is None
            if time.monotonic() - began > START_SECONDS and not self._ready[component.name].is_set():
                raise SensError(
                    f"{component.name} is not ready after {START_SECONDS:g} s: {answer}\nIts log: {self._log(component)}"
                )
            await asyncio.sleep(_POLL_SECONDS)
        return False

    async def _wait_for(self, names: Iterable[str]) -> None:
        for name in names:
            await self._ready[name].wait()

    def _reason(self, component: Component, child: asyncio.subprocess.Process) -> str:
        code = child.returncode or 0
        how = f"ended with code {code}" if code >= 0 else f"was ended by {_signal_name(-code)}"
        line = last_line(self._log(component))
        return f"{how}; its last words: {line}" if line else how

    def _log(self, component: Component) -> Path:
        return self._data.log_file(component.name)

    def _note(self, component: Component) -> Path:
        return self._data.run / f"{component.name}.pid"


def _stage(component: Component) -> int:
    return component.stop_stage


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _send(child: asyncio.subprocess.Process, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        if child.returncode is None:
            os.kill(child.pid, number)
