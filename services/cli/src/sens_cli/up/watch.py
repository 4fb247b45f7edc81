"""Asks the components every few seconds whether they are ready, and the broker for topics that nobody reads; says what has changed."""

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from sens_cli.up.components import Component
from sens_cli.up.web import get

LOOK_SECONDS: Final = 5.0
"""Time from one look to the next."""

_ASK_SECONDS: Final = 4.0
_LOOKS: Final = 2
"""So many looks must agree before people are told: a worker that reconnects is no news."""

_STUCK_LOOKS: Final = 5
"""A component that is to be started again when it is stuck is so after that many looks."""

_UNREAD_LOOKS: Final = 12
"""Topics that nobody reads are told of once in so many looks, at most."""


class Display(Protocol):
    """Tells people."""

    def notice(self, text: str, *, warning: bool = False) -> None:
        """Something people should know."""


class Watch:
    """Knows which components are not ready; `problems` has a sentence for each."""

    def __init__(
        self,
        components: Sequence[Component],
        display: Display,
        *,
        broker_operations: int | None,
        end: Callable[[str], None],
    ) -> None:
        self.problems: dict[str, str] = {}
        self._components = components
        self._display = display
        self._broker_operations = broker_operations
        self._end = end
        self._stuck = Counter[str]()
        self._looks = dict.fromkeys((component.name for component in components), 0)
        self._told: set[str] = set()
        self._unread = ""
        self._unread_looks = _UNREAD_LOOKS

    async def look(self) -> None:
        """Ask all at once, and tell what has changed."""
        answers = await asyncio.gather(*(_ask(component) for component in self._components))
        self.problems = {
            component.name: answer
            for component, answer in zip(self._components, answers, strict=True)
            if answer is not None
        }
        for component in self._components:
            self._tell(component.name)
            self._free(component)
        await self._tell_of_unread_topics()

    def _tell(self, name: str) -> None:
        problem = self.problems.get(name)
        if (problem is not None) == (name in self._told):
            self._looks[name] = 0
            return
        self._looks[name] += 1
        if problem is None:
            self._told.remove(name)
            self._display.notice(f"{name} is ready again")
        elif self._looks[name] >= _LOOKS:
            self._told.add(name)
            self._display.notice(f"{name} is not ready: {problem}", warning=True)

    def _free(self, component: Component) -> None:
        """End a component that is stuck."""
        name = component.name
        if name not in self.problems:
            del self._stuck[name]
            return
        self._stuck[name] += 1
        if component.restart_when_stuck and self._stuck[name] >= _STUCK_LOOKS:
            del self._stuck[name]
            self._display.notice(f"{name} does not answer any more: ended", warning=True)
            self._end(name)

    async def _tell_of_unread_topics(self) -> None:
        if self._broker_operations is None:
            return
        self._unread_looks += 1
        sentence = await _flow(self._broker_operations)
        if sentence and sentence != self._unread and self._unread_looks >= _UNREAD_LOOKS:
            self._unread, self._unread_looks = sentence, 0
            self._display.notice(sentence, warning=True)


async def _ask(component: Component) -> str | None:
    try:
        async with asyncio.timeout(_ASK_SECONDS):
            return await component.ready()
    except TimeoutError:
        return f"no answer within {_ASK_SECONDS:g} s"


async def _flow(port: int) -> str:
    """Return what the broker says of topics that nobody reads; empty when it says nothing."""
    try:
        _status, body = await get(port, "/readyz")
        answer = json.loads(body)
    except (OSError, ValueError):
        return ""
    return str(answer.get("flow") or "") if isinstance(answer, dict) else ""
