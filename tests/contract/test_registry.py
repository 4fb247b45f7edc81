"""What the telemetry router expects of a registry, held by the one in memory and by PostgreSQL."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest

from sens_common.dead_letters import Reason
from sens_common.formats import MetricKind
from sens_common.settings import DatabaseSettings
from sens_telemetry_worker.interpreting import Registry
from sens_telemetry_worker.tenants import NewMetrics, Tenant
from sens_telemetry_worker.timescale.database import Database, open_pool
from sens_telemetry_worker.timescale.registry import TimescaleRegistry
from support.memory import MemoryRegistry
from support.servers import execute_as

LIMIT = 3
"""How many devices, and how many metrics, each of the two tenants may have."""

type Opener = Callable[[], AbstractAsyncContextManager[Registry]]


@pytest.fixture(params=["memory", "postgresql"])
def opened(request: pytest.FixtureRequest) -> Opener:
    """Open a registry of the tenants demo and other."""
    if request.param == "memory":

        @asynccontextmanager
        async def open_memory() -> AsyncIterator[Registry]:
            yield MemoryRegistry({"demo": Tenant(1, "demo"), "other": Tenant(2, "other")}, LIMIT, LIMIT)

        return open_memory
    database: DatabaseSettings = request.getfixturevalue("database")

    @asynccontextmanager
    async def open_database() -> AsyncIterator[Registry]:
        await execute_as(
            database,
            f"INSERT INTO sens.tenants (name, device_limit, metric_limit)"  # noqa: S608 - a constant
            f" SELECT name, {LIMIT}, {LIMIT} FROM unnest('{{demo,other}}'::text[]) AS name",
        )
        async with open_pool(database, "test") as pool:
            yield TimescaleRegistry(Database(pool, database))

    return open_database


async def tenants(registry: Registry) -> tuple[Tenant, Tenant]:
    known = (await registry.known_names()).tenants
    return known["demo"], known["other"]


def message(tenant: Tenant, *metrics: tuple[str, MetricKind]) -> NewMetrics:
    return NewMetrics(tenant, frozenset(metrics))


class TestTenants:
    async def test_are_known_by_their_names(self, opened: Opener) -> None:
        async with opened() as registry:
            known = await registry.known_names(["demo", "nobody"])
            assert {name: tenant.name for name, tenant in known.tenants.items()} == {"demo": "demo", "other": "other"}

    async def test_stay_the_same_objects_while_nothing_is_deleted(self, opened: Opener) -> None:
        async with opened() as registry:
            first = await registry.known_names()
            assert await registry.known_names(["nobody"]) is first


class TestDevices:
    async def test_get_an_id_each_and_keep_it(self, opened: Opener) -> None:
        async with opened() as registry:
            demo, _ = await tenants(registry)
            first = await registry.register_devices([(demo, "d1"), (demo, "d2"), (demo, "d1")])
            again = await registry.register_devices([(demo, "d2"), (demo, "d3")])
        assert first.ids.keys() >= {(demo.id, "d1"), (demo.id, "d2")}
        assert again.ids[demo.id, "d2"] == first.ids[demo.id, "d2"]
        assert len({*first.ids.values(), *again.ids.values()}) == 3
        assert not first.refusals
        assert not again.refusals

    async def test_of_one_name_are_different_ones_for_each_tenant(self, opened: Opener) -> None:
        async with opened() as registry:
            demo, other = await tenants(registry)
            ids = (await registry.register_devices([(demo, "d1"), (other, "d1")])).ids
        assert ids[demo.id, "d1"] != ids[other.id, "d1"]

    async def test_beyond_the_limit_are_refused_and_those_that_are_known_are_not(self, opened: Opener) -> None:
        async with opened() as registry:
            demo, _ = await tenants(registry)
            first = await registry.register_devices([(demo, f"d{number}") for number in range(LIMIT + 2)])
            again = await registry.register_devices([(demo, "d0"), (demo, "new")])
        assert {key: refusal.reason for key, refusal in first.refusals.items()} == {
            (demo.id, f"d{LIMIT}"): Reason.LIMIT_REACHED,
            (demo.id, f"d{LIMIT + 1}"): Reason.LIMIT_REACHED,
        }
        assert again.ids[demo.id, "d0"] == first.ids[demo.id, "d0"]
        assert again.refusals.keys() == {(demo.id, "new")}

    async def test_of_one_tenant_take_no_room_from_another_one(self, opened: Opener) -> None:
        async with opened() as registry:
            demo, other = await tenants(registry)
            await registry.register_devices([(demo, f"d{number}") for number in range(LIMIT)])
            assert not (await registry.register_devices([(other, f"d{number}") for number in range(LIMIT)])).refusals

    async def test_that_several_ask_for_at_once_are_registered_once(self, opened: Opener) -> None:
        async with opened() as registry:
            demo, _ = await tenants(registry)
            answers = await asyncio.gather(*(registry.register_devices([(demo, "d1"), (demo, "d2")]) for _ in range(5)))
        assert len({(answer.ids[demo.id, "d1"], answer.ids[demo.id, "d2"]) for answer in answers}) == 1


class TestMetrics:
    async def test_of_each_kind_get_an_id_and_keep_it(self, opened: Opener) -> None:
        async with opened() as registry:
            demo, _ = await tenants(registry)
            first = await registry.register_metrics([message(demo, ("t", "number"), ("t", "text"))])
            again = await registry.register_metrics([message(demo, ("t", "text"), ("t", "boolean"))])
        assert again.ids[demo.id, "t", "text"] == first.ids[demo.id, "t", "text"]
        assert len({*first.ids.values(), *again.ids.values()}) == 3

    async def test_of_a_message_are_registered_together_or_not_at_all(self, opened: Opener) -> None:
        async with opened() as registry:
            demo, _ = await tenants(registry)
            answer = await registry.register_metrics(
                [
                    message(demo, ("a", "number"), ("b", "number")),
                    message(demo, ("c", "number"), ("d", "number")),
                    message(demo, ("e", "number")),
                ]
            )
        assert answer.ids.keys() == {(demo.id, name, "number") for name in "abe"}
        assert {key: refusal.reason for key, refusal in answer.refusals.items()} == {
            (demo.id, name, "number"): Reason.LIMIT_REACHED for name in "cd"
        }

    async def test_that_are_known_are_found_beside_those_that_are_refused(self, opened: Opener) -> None:
        async with opened() as registry:
            demo, _ = await tenants(registry)
            known = await registry.register_metrics([message(demo, ("a", "number"), ("b", "number"))])
            answer = await registry.register_metrics([message(demo, ("a", "number"), ("c", "number"), ("d", "number"))])
        assert answer.ids == {(demo.id, "a", "number"): known.ids[demo.id, "a", "number"]}
        assert answer.refusals.keys() == {(demo.id, "c", "number"), (demo.id, "d", "number")}

    async def test_that_a_later_message_can_have_are_not_refused(self, opened: Opener) -> None:
        async with opened() as registry:
            demo, _ = await tenants(registry)
            answer = await registry.register_metrics(
                [message(demo, *((name, "number") for name in "abcd")), message(demo, ("a", "number"))]
            )
        assert answer.ids.keys() == {(demo.id, "a", "number")}
        assert answer.refusals.keys() == {(demo.id, name, "number") for name in "bcd"}
