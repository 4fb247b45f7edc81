"""Readiness: how often servers are asked, and what counts."""

import asyncio

from structlog.testing import capture_logs

from sens_common.readiness import START_SECONDS, Answer, Readiness
from support.clocks import Clock

CACHE_SECONDS = 1.0


class Server:
    """A check that counts how often it is asked."""

    def __init__(self, problem: str | None = None) -> None:
        self.problem = problem
        self.questions = 0

    async def __call__(self) -> str | None:
        self.questions += 1
        return self.problem


async def ask(readiness: Readiness) -> Answer:
    with capture_logs():
        return await readiness.answer()


class TestReadiness:
    async def test_asks_once_a_second_however_many_want_to_know(self) -> None:
        clock, server = Clock(0.0), Server()
        readiness = Readiness({"database": server}, cache_seconds=CACHE_SECONDS, clock=clock)

        await asyncio.gather(*(readiness.answer() for _ in range(50)))
        assert server.questions == 1
        clock.now = CACHE_SECONDS
        await ask(readiness)
        assert server.questions == 2

    async def test_is_degraded_while_a_part_is_away_and_failed_while_all_is(self) -> None:
        clock, database, nats = Clock(0.0), Server(), Server()
        readiness = Readiness({"database": database, "nats": nats}, partial=frozenset({"nats"}), clock=clock)
        assert (await ask(readiness)).status == "ok"
        nats.problem = "not connected to NATS"
        clock.now += CACHE_SECONDS
        assert await ask(readiness) == Answer("degraded", {"database": "ok", "nats": "not connected to NATS"}, None, {})
        database.problem = "no"
        clock.now += CACHE_SECONDS
        assert (await ask(readiness)).status == "failed"

    async def test_waits_a_while_for_a_part_that_was_never_there(self) -> None:
        clock = Clock(0.0)
        readiness = Readiness({"nats": Server("not connected")}, partial=frozenset({"nats"}), clock=clock)
        assert (await ask(readiness)).status == "failed"
        clock.now = START_SECONDS
        assert (await ask(readiness)).status == "degraded"
