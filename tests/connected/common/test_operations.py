import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

import httpx2
import pytest
from prometheus_client.parser import text_string_to_metric_families

from sens_common.errors import UnavailableError
from sens_common.health import Check, Problems
from sens_common.operations import HEALTHY_WITHIN_SECONDS, Heartbeat, serve_operations
from sens_common.readiness import Describe, Readiness
from sens_common.settings import OperationsSettings
from sens_common.version import product_version
from support.servers import HOST, free_port


async def fine() -> None:
    return None


async def ask(
    path: str, checks: dict[str, Check] | None = None, clock: Callable[[], float] = lambda: 0.0
) -> httpx2.Response:
    """Serve the operations port, and return the answer to one request."""
    heartbeat = Heartbeat(clock, interval_seconds=3600)  # the port keeps it: here it beats once
    async with client_of(checks or {}, heartbeat) as client:
        return await client.get(path)


@asynccontextmanager
async def client_of(
    checks: dict[str, Check],
    heartbeat: Heartbeat,
    flow: Describe | None = None,
    notes: dict[str, Check] | None = None,
) -> AsyncIterator[httpx2.AsyncClient]:
    settings = OperationsSettings(host=HOST, port=free_port())
    async with (
        serve_operations("example", settings, checks, heartbeat, flow, notes=notes),
        httpx2.AsyncClient(base_url=f"http://{HOST}:{settings.port}") as client,
    ):
        yield client


class TestHealthz:
    async def test_answers_200_while_the_loop_goes_round(self) -> None:
        response = await ask("/healthz")

        assert (response.status_code, response.json()) == (200, {"status": "ok"})

    async def test_answers_503_when_the_loop_stands_still(self) -> None:
        times = iter([0.0, 0.0])  # when it was made, and its first beat
        response = await ask("/healthz", clock=lambda: next(times, HEALTHY_WITHIN_SECONDS))

        assert response.status_code == 503
        assert response.json() == {"status": "failed", "detail": "the loop last went round 15 s ago"}

    async def test_asks_no_dependency(self) -> None:
        async def broken() -> str:
            return "not connected"

        assert (await ask("/healthz", {"database": broken})).status_code == 200

    async def test_answers_200_again_after_a_beat(self) -> None:
        now = 0.0

        async def scenario() -> list[int]:
            nonlocal now
            heartbeat = Heartbeat(lambda: now, interval_seconds=3600)  # the port keeps it: here it beats once
            async with client_of({}, heartbeat) as client:
                now = 100.0
                statuses = [(await client.get("/healthz")).status_code]
                heartbeat.beat()
                statuses.append((await client.get("/healthz")).status_code)
            return statuses

        assert await scenario() == [503, 200]


class TestReadyz:
    async def test_answers_200_when_every_check_passes(self) -> None:
        response = await ask("/readyz", {"nats": fine, "database": fine})

        assert response.status_code == 200
        assert response.json() == {"status": "ok", "checks": {"nats": "ok", "database": "ok"}}

    async def test_answers_503_and_says_which_check_fails(self) -> None:
        async def broken() -> str:
            return "not connected to PostgreSQL"

        response = await ask("/readyz", {"nats": fine, "database": broken})

        assert response.status_code == 503
        assert response.json() == {
            "status": "failed",
            "checks": {"nats": "ok", "database": "not connected to PostgreSQL"},
        }

    async def test_tells_what_flows_by_the_checks_answers(self) -> None:
        def flow(answers: Mapping[str, str]) -> str:
            return f"nats is {answers['nats']}"

        async with client_of({"nats": fine}, Heartbeat(), flow) as client:
            assert (await client.get("/readyz")).json() == {
                "status": "ok",
                "checks": {"nats": "ok"},
                "flow": "nats is ok",
            }

    async def test_notes_what_works_but_should_be_otherwise(self) -> None:
        async def ok() -> None:
            return None

        async def remark() -> str:
            return "it logs in as the owner"

        async def unknown() -> str:
            raise ConnectionError("not asked just now")

        async def scenario(notes: dict[str, Check]) -> tuple[int, object]:
            async with client_of({"database": ok}, Heartbeat(), notes=notes) as client:
                response = await client.get("/readyz")
                return response.status_code, response.json()

        plain = {"status": "ok", "checks": {"database": "ok"}}
        assert await scenario({"roles": remark, "other": ok, "unknown": unknown}) == (
            200,
            plain | {"notes": {"roles": "it logs in as the owner"}},
        )
        assert await scenario({"other": ok}) == (200, plain)

    async def test_answers_when_a_check_is_added_meanwhile(self) -> None:
        checks: dict[str, Check] = {}

        async def connecting() -> None:
            checks["database"] = fine

        checks["nats"] = connecting
        response = await ask("/readyz", checks)

        assert (response.status_code, response.json()) == (200, {"status": "ok", "checks": {"nats": "ok"}})

    async def test_says_so_when_a_check_hangs(self) -> None:
        async def hanging() -> None:
            await asyncio.Event().wait()

        answer = await Readiness({"nats": hanging, "database": fine}, check_timeout_seconds=0.05).answer()

        assert answer.http_status == 503
        assert answer.checks == {"nats": "no answer within 0.05 s", "database": "ok"}

    async def test_answers_503_when_a_check_raises(self) -> None:
        async def raising() -> None:
            raise ZeroDivisionError("unforeseen")

        response = await ask("/readyz", {"log": raising})

        assert (response.status_code, response.json()["checks"]) == (503, {"log": "ZeroDivisionError: unforeseen"})

    async def test_follows_a_part_that_keeps_its_problem_up_to_date(self) -> None:
        problems = Problems("part")
        problems.set("key", "the stream is full")

        async with client_of({"part": problems.check}, Heartbeat()) as client:
            statuses = [(await client.get("/readyz")).status_code]
            problems.clear("key")
            assert [*statuses, (await client.get("/readyz")).status_code] == [503, 200]


class TestVersion:
    async def test_names_service_version_and_commit(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SENS_PRODUCT_COMMIT", "0123abc")

        assert (await ask("/version")).json() == {
            "name": "example",
            "version": product_version(),
            "product_commit": "0123abc",
        }

    async def test_says_that_the_commit_is_unknown(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("SENS_PRODUCT_COMMIT", raising=False)

        assert (await ask("/version")).json()["product_commit"] == "unknown"


class TestMetrics:
    async def test_are_prometheus_text(self) -> None:
        response = await ask("/metrics")

        assert response.headers["content-type"].startswith("text/plain")
        assert "python_info" in {family.name for family in text_string_to_metric_families(response.text)}


class TestServe:
    async def test_says_which_port_is_taken_and_what_to_do(self) -> None:
        async def scenario(port: int) -> None:
            async with serve_operations("example", OperationsSettings(host=HOST, port=port), {}, Heartbeat()):
                pytest.fail("the port is taken")

        with socket.socket() as other:
            other.bind((HOST, 0))
            other.listen()
            port: int = other.getsockname()[1]
            with pytest.raises(UnavailableError, match=rf"{HOST} port {port}: Address already in use.*Stop what uses"):
                await scenario(port)

    async def test_says_that_an_address_is_not_this_machines(self) -> None:
        with pytest.raises(UnavailableError, match=r"can't listen on 192\.0\.2\.1 port 8081"):
            async with serve_operations("example", OperationsSettings(host="192.0.2.1"), {}, Heartbeat()):
                pytest.fail("the address is reserved for documentation (RFC 5737)")

    async def test_frees_the_port_at_its_end(self) -> None:
        settings = OperationsSettings(host=HOST, port=free_port())
        for _ in range(2):
            async with serve_operations("example", settings, {}, Heartbeat()):
                pass

    async def test_answers_an_unforeseen_error_with_a_problem_document(self) -> None:
        def broken(_checks: Mapping[str, str]) -> str:
            raise RuntimeError("nobody has foreseen this")

        async with client_of({}, Heartbeat(), broken) as client:
            answer = await client.get("/readyz")
        assert answer.status_code == 500
        assert answer.headers["content-type"] == "application/problem+json"
        assert "foreseen this" not in answer.text

    async def test_answers_what_is_no_http_with_a_problem_document(self) -> None:
        async with client_of({}, Heartbeat()) as client:
            reader, writer = await asyncio.open_connection(client.base_url.host, client.base_url.port)
            writer.write(b"nonsense\r\n\r\n")
            try:
                answer = await reader.read()
            finally:
                writer.close()
        assert answer.startswith(b"HTTP/1.1 400")
        assert b"application/problem+json" in answer

    async def test_answers_404_to_other_paths(self) -> None:
        assert (await ask("/secrets")).status_code == 404
