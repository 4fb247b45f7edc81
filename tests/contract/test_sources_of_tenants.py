"""What the API expects of where sources, profiles and codecs are, held by those in memory and by PostgreSQL."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import NamedTuple

import pytest

from sens_common.brokers import Broker
from sens_common.settings import DatabaseSettings
from sens_common.topic_filters import overlap
from sens_platform_api.caller import Caller
from sens_platform_api.codecs.repository import Addition, TenantCodecs
from sens_platform_api.codecs.service import Codecs
from sens_platform_api.postgresql import TenantDatabase, open_pools
from sens_platform_api.profiles.repository import Profile, TenantProfiles, Users
from sens_platform_api.profiles.service import Profiles
from sens_platform_api.settings import LimitSettings
from sens_platform_api.sources.repository import Put, Rule, Source, TenantSources
from sens_platform_api.sources.service import Sources
from support.memory_sources import MemoryCodecs, MemoryProfiles, MemoryRooms, MemorySources
from support.servers import execute_as, owner_pool

DEVICE = "70b3d57ed0a1b2c3"
CLIMATE = Profile("climate", "cayenne_lpp", None, None, {"temperature_3": {"name": "temperature"}})
FIELD = Source("field", "mqtt", "netmore/#", "netmore", {}, True, False, None, [], True)


class Tenant(NamedTuple):
    """What a tenant has; each has the device `DEVICE`."""

    sources: Sources
    profiles: Profiles
    codecs: Codecs


def stored(database: TenantDatabase, caller: Caller) -> Tenant:
    return Tenant(TenantSources(database, caller), TenantProfiles(database, caller), TenantCodecs(database, caller))


type Opener = Callable[[], AbstractAsyncContextManager[tuple[Tenant, Tenant]]]


@asynccontextmanager
async def open_memory() -> AsyncIterator[tuple[Tenant, Tenant]]:
    rooms: list[MemoryRooms] = []
    rooms += [MemoryRooms(rooms, devices={DEVICE: None}) for _ in range(2)]
    demo, other = (Tenant(MemorySources(each), MemoryProfiles(each), MemoryCodecs(each)) for each in rooms)
    yield demo, other


@pytest.fixture(params=["memory", "postgresql"])
def opened(request: pytest.FixtureRequest) -> Opener:
    """Open the rooms of two tenants."""
    if request.param == "memory":
        return open_memory
    database: DatabaseSettings = request.getfixturevalue("database")

    @asynccontextmanager
    async def open_database() -> AsyncIterator[tuple[Tenant, Tenant]]:
        await execute_as(database, "INSERT INTO sens.tenants (name) VALUES ('demo'), ('other')")
        await execute_as(
            database,
            f"INSERT INTO sens.devices (tenant_id, name) SELECT id, '{DEVICE}' FROM sens.tenants",  # noqa: S608 - a constant
        )
        async with open_pools(database, "test", LimitSettings()) as (pool, _), owner_pool(database) as owner:
            ids = [row[0] for row in await owner.fetch("SELECT id FROM sens.tenants ORDER BY name")]
            demo, other = (stored(TenantDatabase(pool, each), Caller(1, each, "x")) for each in ids)
            yield demo, other

    return open_database


def unstamped(source: Source | None) -> Source | None:
    return None if source is None else source._replace(created_at=None, changed_at=None)


class TestSources:
    async def test_are_made_changed_and_deleted_when_they_are_disabled(self, opened: Opener) -> None:
        async with opened() as (demo, other):
            assert await demo.profiles.put(CLIMATE) == "created"
            full = FIELD._replace(profile_rules=[Rule("a*", "climate"), Rule("*", "climate")], settings={"a": [1]})
            assert await demo.sources.put(full) == Put("created", None)
            assert await demo.sources.put(full) == Put("unchanged", None)
            assert unstamped(await demo.sources.get("field")) == full
            assert await other.sources.get("field") is None
            assert await demo.sources.delete("field") == "used"
            off = FIELD._replace(default_profile="climate", enabled=False)
            assert await demo.sources.put(off) == Put("changed", None)
            assert [unstamped(each) for each in await demo.sources.by_name(after="", limit=9)] == [off]
            assert await demo.sources.by_name(after="field", limit=9) == []
            assert await other.sources.delete("field") == "unknown"
            assert await demo.sources.delete("field") == "deleted"
            assert await demo.sources.get("field") is None

    async def test_have_profiles_of_their_own_tenant(self, opened: Opener) -> None:
        async with opened() as (demo, other):
            await other.profiles.put(CLIMATE)
            assert await demo.sources.put(FIELD._replace(default_profile="climate")) == Put(
                "unknown_profile", "climate"
            )
            ruled = FIELD._replace(profile_rules=[Rule("*", "climate")])
            assert await demo.sources.put(ruled) == Put("unknown_profile", "climate")

    async def test_never_get_the_same_topics(self, opened: Opener) -> None:
        async with opened() as (demo, other):
            await demo.sources.put(FIELD)
            narrow = FIELD._replace(name="narrow", topic_filter="netmore/+/up")
            assert await demo.sources.put(narrow) == Put("overlap", "field")
            assert await other.sources.put(narrow) == Put("overlap", None)
            assert await other.sources.put(FIELD._replace(topic_filter="netmore2/#")) == Put("created", None)
            over_http = FIELD._replace(name="push", transport="http", topic_filter=None)
            assert await other.sources.put(over_http) == Put("created", None)
            assert await demo.sources.put(FIELD._replace(name="all", topic_filter="#")) == Put("overlap", "field")

    async def test_have_brokers_of_their_own_whose_topics_are_others(self, opened: Opener) -> None:
        async with opened() as (demo, other):
            own = FIELD._replace(broker=Broker("mqtts://broker.example.org", credential="first"))
            assert await demo.sources.put(FIELD._replace(name="platform", topic_filter="#")) == Put("created", None)
            assert await demo.sources.put(own) == Put("created", None)
            assert unstamped(await demo.sources.get("field")) == own
            same_address = own._replace(
                name="narrow", topic_filter="netmore/+/up", broker=Broker("mqtts://Broker.example.org:8883")
            )
            assert await demo.sources.put(same_address) == Put("overlap", "field")
            assert await other.sources.put(same_address) == Put("created", None)
            elsewhere = own._replace(name="elsewhere", broker=Broker("mqtt://broker.example.org"))
            assert await demo.sources.put(elsewhere) == Put("created", None)

    async def test_share_a_session_only_with_the_same_settings(self, opened: Opener) -> None:
        async with opened() as (demo, _):
            own = FIELD._replace(broker=Broker("mqtts://broker.example.org", credential="first"))
            more = own._replace(name="more", topic_filter="more/#")
            changed = more._replace(broker=Broker("mqtts://broker.example.org", credential="second"))
            assert [await demo.sources.put(each) for each in (own, more)] == [Put("created", None)] * 2
            assert await demo.sources.put(changed) == Put("session", "field")
            named = Broker("mqtts://broker.example.org", credential="second", client_id="another")
            assert await demo.sources.put(more._replace(broker=named)) == Put("changed", None)
            assert await demo.sources.put(own._replace(enabled=False)) == Put("changed", None)
            assert await demo.sources.put(changed) == Put("changed", None)


class TestProfiles:
    async def test_say_who_uses_them_and_are_not_deleted_then(self, opened: Opener) -> None:
        async with opened() as (demo, other):
            assert [await demo.profiles.put(CLIMATE) for _ in range(2)] == ["created", "unchanged"]
            assert await demo.profiles.put(CLIMATE._replace(metrics={})) == "changed"
            await demo.sources.put(FIELD._replace(profile_rules=[Rule("*", "climate")]))
            assert await demo.profiles.give(DEVICE, "climate") == "changed"
            assert await demo.profiles.give(DEVICE, "climate") == "unchanged"
            assert await demo.profiles.of_device(DEVICE) == (True, "climate")
            assert await other.profiles.of_device(DEVICE) == (True, None)
            assert await demo.profiles.users("climate") == Users(["field"], [DEVICE])
            assert await demo.profiles.delete("climate") == "used"
            await demo.sources.put(FIELD)
            assert await demo.profiles.delete("climate") == "used"
            assert await demo.profiles.give(DEVICE, None) == "changed"
            assert await demo.profiles.delete("climate") == "deleted"
            assert await demo.profiles.delete("climate") == "unknown"

    async def test_are_given_to_known_devices(self, opened: Opener) -> None:
        async with opened() as (demo, other):
            await other.profiles.put(CLIMATE)
            assert await demo.profiles.give("nobody", None) == "unknown_device"
            assert await demo.profiles.of_device("nobody") == (False, None)
            assert await demo.profiles.give(DEVICE, "climate") == "unknown_profile"


class TestCodecs:
    async def test_have_versions_whose_numbers_are_not_given_twice(self, opened: Opener) -> None:
        async with opened() as (demo, other):
            examples = [{"bytes": "0a", "f_port": 1, "fields": {"a": 10.0}}]
            assert await demo.codecs.add("mine", "one", examples) == Addition("created", 1)
            assert await demo.codecs.add("mine", "two", []) == Addition("created", 2)
            assert await demo.codecs.add("mine", "one", []) == Addition("exists", 1)
            whole = await demo.codecs.version("mine", 1)
            assert whole is not None
            assert (whole.source, whole.examples, whole.version.source_bytes) == ("one", examples, 3)
            assert await other.codecs.version("mine", 1) is None
            assert await demo.codecs.delete("mine", 2) == "deleted"
            assert await demo.codecs.delete("mine", 2) == "unknown"
            assert await demo.codecs.add("mine", "three", []) == Addition("created", 3)
            assert [(each.number, each.examples) for each in await demo.codecs.versions("mine")] == [(3, 0), (1, 1)]
            (codec,) = await demo.codecs.by_name(after="", limit=9)
            assert (codec.name, codec.newest, codec.versions) == ("mine", 3, 2)
            assert await other.codecs.by_name(after="", limit=9) == []

    async def test_that_profiles_use_are_not_deleted(self, opened: Opener) -> None:
        async with opened() as (demo, other):
            await demo.codecs.add("mine", "one", [])
            await demo.codecs.add("mine", "two", [])
            profile = Profile("climate", None, "mine", 1, {})
            assert await other.profiles.put(profile) == "unknown_codec"
            assert await demo.profiles.put(profile._replace(codec_version=3)) == "unknown_codec"
            assert await demo.profiles.put(profile) == "created"
            assert [each.profiles for each in await demo.codecs.versions("mine")] == [[], ["climate"]]
            assert await demo.codecs.delete("mine", 1) == "used"
            assert await demo.codecs.delete("mine", None) == "used"
            assert await demo.codecs.delete("mine", 2) == "deleted"
            assert await other.codecs.delete("mine", None) == "unknown"
            await demo.profiles.delete("climate")
            assert await demo.codecs.delete("mine", None) == "deleted"
            assert await demo.codecs.get("mine") is None


async def test_overlap_is_the_same_in_the_database(database: DatabaseSettings) -> None:
    filters = [
        "#",
        "+",
        "+/#",
        "a",
        "a/#",
        "a/+",
        "a/b",
        "a/+/c",
        "a/b/#",
        "+/b",
        "/",
        "/+",
        "a/",
        "a//b",
        "$x/#",
        "$x/a",
    ]
    pairs = [(first, second) for first in filters for second in filters]
    async with owner_pool(database) as owner:
        found = await owner.fetch(
            "SELECT sens.filters_overlap(f, s) FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS p (f, s, n) ORDER BY n",
            [first for first, _ in pairs],
            [second for _, second in pairs],
        )
    assert [row[0] for row in found] == [overlap(*pair) for pair in pairs]
