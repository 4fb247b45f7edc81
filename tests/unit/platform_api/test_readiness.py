"""Readiness: how often servers are asked, what counts, and what is told to anybody."""

import asyncio

from structlog.testing import capture_logs

from sens_common.errors import SchemaError, UnavailableError
from sens_common.health import Check
from sens_platform_api.operations.service import CACHE_SECONDS, START_SECONDS, ApiReadiness, Look


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Server:
    """A check that counts how often it is asked."""

    def __init__(self, problem: str | Exception | None = None) -> None:
        self.problem = problem
        self.questions = 0

    async def __call__(self) -> str | None:
        self.questions += 1
        if isinstance(self.problem, Exception):
            raise self.problem
        return self.problem


async def look(readiness: ApiReadiness) -> Look:
    with capture_logs():
        return await readiness.look()


class TestReadiness:
    async def test_asks_once_a_second_however_many_want_to_know(self) -> None:
        clock, server = Clock(), Server()
        readiness = ApiReadiness({"database": server}, clock=clock)

        await asyncio.gather(*(readiness.look() for _ in range(50)))
        assert server.questions == 1
        clock.now = CACHE_SECONDS
        await look(readiness)
        assert server.questions == 2

    async def test_is_degraded_while_a_part_is_away_and_failed_while_all_is(self) -> None:
        clock, database, nats = Clock(), Server(), Server()
        readiness = ApiReadiness({"database": database, "nats": nats}, partial=frozenset({"nats"}), clock=clock)
        assert (await look(readiness)).status == "ok"
        nats.problem = "not connected to NATS"
        clock.now += CACHE_SECONDS
        assert await look(readiness) == Look("degraded", {"database": "ok", "nats": "not connected to NATS"}, {})
        database.problem = "no"
        clock.now += CACHE_SECONDS
        assert (await look(readiness)).status == "failed"

    async def test_waits_a_while_for_a_part_that_was_never_there(self) -> None:
        clock = Clock()
        readiness = ApiReadiness({"nats": Server("not connected")}, partial=frozenset({"nats"}), clock=clock)
        assert (await look(readiness)).status == "failed"
        clock.now = START_SECONDS
        assert (await look(readiness)).status == "degraded"

    async def test_tells_nothing_of_what_a_driver_says(self) -> None:
        secret = "password authentication failed for user sens at 10.0.0.7"
        checks: dict[str, Check] = {
            "database": Server(UnavailableError(secret)),
            "other": Server(RuntimeError(secret)),
            "schema": Server(SchemaError("run the migrations (sens migrate)")),
        }
        answers = (await look(ApiReadiness(checks))).checks
        assert secret not in "".join(answers.values())
        assert answers["database"] == "the database can't be used; the log of this service says why"
        assert answers["schema"] == "run the migrations (sens migrate)"
