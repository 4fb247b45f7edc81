"""Readiness: asked by anybody, so answered from a look that is at most a second old and without a server's own words."""

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Final, Literal, NamedTuple

import structlog

from sens_common.errors import SchemaError, SensError
from sens_common.health import Check
from sens_common.operations import noted, readiness

log = structlog.get_logger()

CACHE_SECONDS: Final = 1.0
START_SECONDS: Final = 5.0
"""For so long after the start all checks count: what is only just being connected is not yet called away."""

type Status = Literal["ok", "degraded", "failed"]


class Look(NamedTuple):
    """What the checks answered, and what works but should be otherwise."""

    status: Status
    checks: dict[str, str]
    notes: dict[str, str]


class ApiReadiness:
    """Runs the checks, once a second at most however many ask.

    A check of which only a part of the API depends, NATS, makes it degraded: it stays in service for all the rest.
    """

    def __init__(
        self,
        checks: Mapping[str, Check],
        *,
        partial: frozenset[str] = frozenset(),
        notes: Mapping[str, Check] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._checks = {name: _in_own_words(name, check) for name, check in checks.items()}
        self._partial = partial
        self._notes = notes or {}
        self._clock = clock
        self._started = clock()
        self._seen_well: set[str] = set()
        self._looked: float | None = None
        self._look = Look("failed", {}, {})
        self._lock = asyncio.Lock()

    async def look(self) -> Look:
        """Return what the checks answer, or answered within the last second."""
        async with self._lock:
            if self._looked is None or self._clock() - self._looked >= CACHE_SECONDS:
                _, answers = await readiness(self._checks)
                notes = await noted(self._notes)
                self._looked = self._clock()
                self._look = Look(self._status(answers), answers, notes)
            return self._look

    def _status(self, answers: Mapping[str, str]) -> Status:
        self._seen_well |= {name for name, answer in answers.items() if answer == "ok"}
        starting = self._clock() - self._started < START_SECONDS
        away = {name for name, answer in answers.items() if answer != "ok"}
        needed = {name for name in away if name not in self._partial or (starting and name not in self._seen_well)}
        return "failed" if needed else "degraded" if away else "ok"


def _in_own_words(name: str, check: Check) -> Check:
    """Let a check answer without what a driver says, which is for the log: addresses and roles are nobody else's business."""

    async def run() -> str | None:
        try:
            return await check()
        except SchemaError as error:
            return str(error)
        except SensError as error:
            log.warning("a readiness check failed", check=name, error=str(error))
            return f"the {name} can't be used; the log of this service says why"
        except Exception:
            log.exception("a readiness check failed in an unforeseen way", check=name)
            return "the check itself failed; the log of this service says why"

    return run
