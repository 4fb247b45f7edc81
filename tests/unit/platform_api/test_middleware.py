"""The outermost layer: what becomes of errors, methods, keys, and time limits."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, ClassVar, cast

import httpx2
import pytest
from structlog.testing import capture_logs

from sens_common.operations import Heartbeat, Operations
from sens_common.readiness import Readiness
from sens_platform_api.app import create_app
from sens_platform_api.caller import Caller
from sens_platform_api.current_caller import POOL
from sens_platform_api.dead_letters.endpoints import STREAM
from sens_platform_api.keys.authenticator import Authenticator
from sens_platform_api.live.endpoints import KEYS, LIVE
from sens_platform_api.measurements.endpoints import ANSWERS, TABLES
from sens_platform_api.middleware.authentication import Gate
from sens_platform_api.operations.endpoints import OPERATIONS, SERVICE
from sens_platform_api.postgresql import Pool
from sens_platform_api.settings import ApiSettings, HttpSettings, LimitSettings
from sens_platform_api.state import Provided
from sens_platform_api.streaming import AnswerCounter

READER = f"sens_{'r' * 43}"
WRITER = f"sens_{'w' * 43}"


class Keys:
    """One key that may only read, and one that may write."""

    async def caller(self, key_hash: bytes) -> Caller | None:
        from sens_common.keys import key_hash as hash_of  # noqa: PLC0415 - the argument has its name

        await asyncio.sleep(0)  # as a server would
        if key_hash == hash_of(READER):
            return Caller(1, 2, "demo", "grafana", "read_only")
        return Caller(2, 2, "demo") if key_hash == hash_of(WRITER) else None

    async def note_use(self, key_id: int) -> None:
        del key_id


async def ask[T](
    work: Callable[[httpx2.AsyncClient], Awaitable[T]], http: HttpSettings | None = None, pool: Pool | None = None
) -> T:
    """Ask an API whose database is missing altogether, without a pool: whatever needs it fails in an unforeseen way."""
    limits = LimitSettings()
    keys = Authenticator(Keys())
    missing = (STREAM, LIVE)
    parts = [
        *(Provided(part.name, None) for part in missing),
        Provided(POOL.name, pool),
        KEYS.provided(keys),
        OPERATIONS.provided(Operations(SERVICE, Readiness({}), Heartbeat())),
        ANSWERS.provided(AnswerCounter(limits.answers, limits.answers_per_tenant)),
        TABLES.provided(AnswerCounter(limits.tables, limits.tables_per_tenant)),
    ]

    with capture_logs():
        transport = httpx2.ASGITransport(
            create_app(Gate(keys, limits), parts, ApiSettings(http=http or HttpSettings(), limits=limits)),
            raise_app_exceptions=False,
        )
        headers = {"Authorization": f"Bearer {WRITER}"}
        async with httpx2.AsyncClient(transport=transport, base_url="http://api", headers=headers) as client:
            return await work(client)


class TestStrangers:
    """Who sends one wrong key after the other, over many connections."""

    COUNT: ClassVar = 100

    async def test_do_not_hold_up_who_has_a_key(self) -> None:
        async def work(client: httpx2.AsyncClient) -> tuple[int, int]:
            refused = 0
            enough = asyncio.Event()

            async def stranger(number: int) -> None:
                nonlocal refused
                headers = {"Authorization": f"Bearer sens_{number:043}"}
                while True:
                    answer = await client.get("/api/v1/devices", headers=headers)
                    refused += answer.status_code in {401, 429}
                    if refused == 2 * self.COUNT:
                        enough.set()
                    await asyncio.sleep(0)

            await client.get("/api/v1/devices")  # from here on the key is known
            tasks = [asyncio.create_task(stranger(number)) for number in range(self.COUNT)]
            await enough.wait()
            before = refused
            answer = await client.get("/api/v1/devices")
            refused_meanwhile = refused - before
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            return answer.status_code, refused_meanwhile

        status, refused = await ask(work, pool=Pool(cast("Any", SlowConnections()), LimitSettings()))
        assert status == 503  # as everybody is told while the database is away
        assert refused < self.COUNT


class SlowConnections:
    """A pool of the driver that takes ten rounds of the loop to find that the database is away."""

    async def acquire(self, **_options: object) -> None:
        for _ in range(10):
            await asyncio.sleep(0)
        raise TimeoutError


class TestErrors:
    async def test_that_nobody_has_foreseen_are_problem_documents(self) -> None:
        answer = await ask(lambda client: client.get("/api/v1/devices"))
        assert answer.status_code == 500
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["code"] == "internal"
        assert answer.headers["x-request-id"]


class TestKeys:
    async def test_that_may_only_read_can_not_change_anything(self) -> None:
        headers = {"Authorization": f"Bearer {READER}"}
        answer = await ask(lambda client: client.post("/api/v1/dead-letters/replay", headers=headers))
        assert answer.status_code == 403
        assert answer.json()["code"] == "read_only_key"

    async def test_are_looked_at_before_the_path(self) -> None:
        async def both(client: httpx2.AsyncClient) -> list[httpx2.Response]:
            headers = {"Authorization": ""}
            return [await client.get(path, headers=headers) for path in ("/api/v1/devices", "/api/x")]

        answers = await ask(both)
        assert [answer.status_code for answer in answers] == [401, 401]

    async def test_that_are_wrong_are_not_all_looked_up_when_they_come_at_once(self) -> None:
        async def many(client: httpx2.AsyncClient) -> list[int]:
            keys = [f"sens_{number:043}" for number in range(100)]
            asked = (client.get("/api/v1/devices", headers={"Authorization": f"Bearer {key}"}) for key in keys)
            return [answer.status_code for answer in await asyncio.gather(*asked)]

        statuses = await ask(many)
        assert statuses.count(401) == LimitSettings().wrong_keys_per_minute
        assert statuses.count(429) == 100 - LimitSettings().wrong_keys_per_minute


class TestMethods:
    @pytest.mark.parametrize(
        ("path", "allow"),
        [
            ("/api/v1/devices", "GET, HEAD, OPTIONS"),
            ("/api/v1/dead-letters/replay", "OPTIONS, POST"),
            ("/openapi.json", "GET, HEAD, OPTIONS"),
        ],
    )
    async def test_of_a_path_are_told(self, path: str, allow: str) -> None:
        answer = await ask(lambda client: client.options(path, headers={"Authorization": ""}))
        assert answer.status_code == 204
        assert set(allow.split(", ")) <= set(answer.headers["allow"].split(", "))

    async def test_that_a_path_does_not_take_are_refused_with_those_that_it_takes(self) -> None:
        answer = await ask(lambda client: client.put("/api/v1/audit"))
        assert answer.status_code == 405
        assert answer.headers["allow"] == "GET, HEAD, OPTIONS"
        assert answer.json()["code"] == "method_not_allowed"

    async def test_head_has_the_header_of_get_and_no_body(self) -> None:
        answer = await ask(lambda client: client.head("/version"))
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "application/json"
        assert answer.content == b""


class TestOtherOrigins:
    PREFLIGHT: ClassVar = {
        "Origin": "https://board.example",
        "Access-Control-Request-Method": "GET",
        "Authorization": "",
    }

    async def test_may_not_read_by_default(self) -> None:
        answer = await ask(lambda client: client.get("/version", headers={"Origin": "https://board.example"}))
        assert "access-control-allow-origin" not in answer.headers

    async def test_may_read_when_a_setting_names_them(self) -> None:
        http = HttpSettings(cors_origins=["https://board.example"])
        allowed = await ask(lambda client: client.options("/api/v1/devices", headers=self.PREFLIGHT), http)
        assert allowed.status_code == 200
        assert allowed.headers["access-control-allow-origin"] == "https://board.example"
        refused = await ask(
            lambda client: client.get(
                "/api/v1/devices", headers={"Origin": "https://board.example", "Authorization": ""}
            ),
            http,
        )
        assert refused.status_code == 401
        assert refused.headers["access-control-allow-origin"] == "https://board.example"
        strange = await ask(lambda client: client.get("/version", headers={"Origin": "https://other.example"}), http)
        assert "access-control-allow-origin" not in strange.headers
