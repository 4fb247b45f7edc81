"""Historical values of Sparkplug B are stored like all others, and do not become the latest ones."""

from random import Random
from typing import Final

import pytest

from sens_common.settings import DatabaseSettings
from support.servers import execute_as
from support.sparkplug import metric
from support.sparkplug_world import TIME, World, birth, made_world, message

LATEST: Final = """
    SELECT d.name, l.name, (extract(epoch FROM l.ts) * 1000)::int8 - 1785000000123, coalesce(l.number::text, l.string)
    FROM sens.latest_of_devices(ARRAY(SELECT id FROM sens.devices)) l JOIN sens.devices d ON d.id = l.device_id ORDER BY 1, 2
"""
SERIES: Final = ("a", "b", "c")


async def latest(
    world: World, *, device: str = "plant.line1.press7", tenant: str = "demo"
) -> dict[str, tuple[int, str]]:
    """Return the latest values of a device, with their times in milliseconds after `TIME`."""
    async with world.connection.transaction():
        await world.connection.execute(
            "SELECT set_config('sens.tenant_id', (SELECT id::text FROM sens.tenants WHERE name = $1), true)", tenant
        )
        rows = await world.connection.fetch(LATEST)
    return {name: (int(at), str(value)) for of, name, at, value in rows if of == device}


async def as_tenant(world: World, statement: str, *, tenant: str = "demo") -> None:
    """Do something in the name of a tenant, and what follows from it."""
    async with world.connection.transaction():
        await world.connection.execute(
            "SELECT set_config('sens.tenant_id', (SELECT id::text FROM sens.tenants WHERE name = $1), true)", tenant
        )
        await world.connection.execute(statement)
    while await world.connection.fetch("SELECT * FROM sens.continue_deletion(1000)"):
        pass


class TestLatest:
    async def test_stays_the_live_value_when_historical_ones_with_newer_times_come(
        self, database: DatabaseSettings
    ) -> None:
        async with made_world(database) as world:
            await world.workers[0].put(world.log.add(birth("a")))
            past = [metric("a", 21.0, historical=True, timestamp=TIME + each) for each in (100, 200)]
            envelope = world.log.add(message("DDATA", *past))
            for worker in world.workers:  # the second one has no effect
                await worker.put(envelope)
            assert await latest(world) == {"a": (0, "20")}
            assert len(await world.values()) == 3

            live = metric("a", 23.0, timestamp=TIME + 150), metric("a", 24.0, timestamp=TIME + 300)
            await world.workers[1].put(world.log.add(message("DDATA", live[0])))
            assert await latest(world) == {"a": (150, "23")}
            await world.workers[1].put(world.log.add(message("DDATA", live[1])))
            assert await latest(world) == {"a": (300, "24")}

    async def test_is_a_historical_value_where_there_is_no_live_one(self, database: DatabaseSettings) -> None:
        async with made_world(database) as world:
            for each in (100, 200):
                past = metric("text", str(each), historical=True, timestamp=TIME + each)
                await world.workers[0].put(world.log.add(message("DDATA", past)))
            assert await latest(world) == {"text": (200, "200")}

            await world.workers[0].put(world.log.add(message("DDATA", metric("text", "live", timestamp=TIME + 50))))
            assert await latest(world) == {"text": (50, "live")}

    async def test_is_kept_when_the_device_moves_and_forgotten_when_it_is_deleted(
        self, database: DatabaseSettings
    ) -> None:
        async with made_world(database) as world:
            past = metric("a", 21.0, historical=True, timestamp=TIME + 100)
            await world.workers[0].put(world.log.add(birth("a"), message("DDATA", past)))
            await execute_as(
                database,
                "INSERT INTO sens.tenants (name) VALUES ('other')",
                "INSERT INTO sens.api_keys (tenant_id, name, access, prefix, hash)"
                " SELECT id, 'move', 'read_write', 'p', sha256('key') FROM sens.tenants WHERE name = 'other'",
            )
            await as_tenant(
                world, "SELECT sens.move_device('plant.line1.press7', 'moved', sha256('key'), 'somebody', NULL, NULL)"
            )
            assert await latest(world, device="moved", tenant="other") == {"a": (0, "20")}
            await as_tenant(world, "SELECT sens.delete_device('moved', 'somebody', NULL, NULL)", tenant="other")
            assert await world.fetch("SELECT FROM sens.latest_holds") == []

    @pytest.mark.parametrize("seed", range(3))
    async def test_is_the_newest_live_value_whatever_comes_in_whatever_order(
        self, database: DatabaseSettings, seed: int
    ) -> None:
        random = Random(seed)
        async with made_world(database) as world:
            times: dict[tuple[str, bool], set[int]] = {}
            free = [(name, time) for name in SERIES for time in range(1, 30)]
            random.shuffle(free)
            await world.workers[0].put(world.log.add(birth("born")))
            while len(free) > 20:
                metrics = []
                for name, time in [free.pop() for _ in range(random.randint(1, 5))]:
                    is_historical = random.random() < 0.6
                    times.setdefault((name, is_historical), set()).add(time)
                    metrics.append(metric(name, float(time), historical=is_historical, timestamp=TIME + time))
                envelope = world.log.add(message("DDATA", *metrics))
                for _ in range(random.randint(1, 2)):
                    await random.choice(world.workers).put(envelope)
                found = await latest(world)
                for name in SERIES:
                    newest = max(times.get((name, False)) or times.get((name, True)) or {0})
                    assert found.get(name, (0, ""))[0] == newest
            assert await world.letters() == []
