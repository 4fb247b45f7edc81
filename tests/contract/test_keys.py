"""What the API's authenticator expects of where keys are stored, held by the keys in memory and by PostgreSQL."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Protocol

import asyncpg
import pytest

from sens_common.keys import key_hash
from sens_common.settings import DatabaseSettings
from sens_platform_api.caller import Access, Caller
from sens_platform_api.keys.authenticator import Keys
from sens_platform_api.keys.repository import StoredKeys
from sens_platform_api.postgresql import open_pools
from sens_platform_api.settings import LimitSettings
from support.keys import MemoryKeys
from support.servers import owner_pool

KEY = f"sens_{'k' * 43}"
OTHER = f"sens_{'o' * 43}"


class Kept(Protocol):
    """Keys, and the hand that makes and revokes them."""

    @property
    def keys(self) -> Keys: ...

    async def make(self, key: str, access: Access = "read_write", lifetime: timedelta | None = None) -> Caller:
        """Make a key of the tenant demo; return the caller that it belongs to."""

    async def revoke(self, key_id: int) -> None:
        """Revoke a key."""

    async def was_used(self, key_id: int) -> bool:
        """Tell whether a use was noted."""


class KeptInMemory:
    def __init__(self) -> None:
        self.keys = MemoryKeys()

    async def make(self, key: str, access: Access = "read_write", lifetime: timedelta | None = None) -> Caller:
        caller = Caller(len(self.keys.callers) + 1, 2, "demo", "a key", access)
        if lifetime is None or lifetime > timedelta(0):
            self.keys.callers[key_hash(key)] = caller
        return caller

    async def revoke(self, key_id: int) -> None:
        self.keys.callers = {each: caller for each, caller in self.keys.callers.items() if caller.key_id != key_id}

    async def was_used(self, key_id: int) -> bool:
        return key_id in self.keys.noted


class KeptInTheDatabase:
    def __init__(self, keys: Keys, owner: "asyncpg.Pool[asyncpg.Record]") -> None:
        self.keys = keys
        self._owner = owner

    async def make(self, key: str, access: Access = "read_write", lifetime: timedelta | None = None) -> Caller:
        row = await self._owner.fetchrow(
            "INSERT INTO sens.api_keys (tenant_id, name, prefix, hash, access, expires_at)"
            " SELECT id, 'a key', 'sens_', $1, $2, $3 FROM sens.tenants RETURNING id, tenant_id",
            key_hash(key),
            access,
            None if lifetime is None else datetime.now(UTC) + lifetime,
        )
        assert row is not None
        return Caller(row["id"], row["tenant_id"], "demo", "a key", access)

    async def revoke(self, key_id: int) -> None:
        await self._owner.execute("UPDATE sens.api_keys SET revoked_at = now() WHERE id = $1", key_id)

    async def was_used(self, key_id: int) -> bool:
        return bool(
            await self._owner.fetchval("SELECT last_used_at IS NOT NULL FROM sens.api_keys WHERE id = $1", key_id)
        )


type Opener = Callable[[], AbstractAsyncContextManager[Kept]]


@pytest.fixture(params=["memory", "postgresql"])
def opened(request: pytest.FixtureRequest) -> Opener:
    if request.param == "memory":

        @asynccontextmanager
        async def open_memory() -> AsyncIterator[Kept]:
            yield KeptInMemory()

        return open_memory
    settings: DatabaseSettings = request.getfixturevalue("database")

    @asynccontextmanager
    async def open_database() -> AsyncIterator[Kept]:
        async with owner_pool(settings) as owner, open_pools(settings, "test", LimitSettings()) as (_, pool):
            await owner.execute("INSERT INTO sens.tenants (name) VALUES ('demo')")
            yield KeptInTheDatabase(StoredKeys(pool), owner)

    return open_database


class TestCaller:
    @pytest.mark.parametrize("access", ["read_only", "read_write"])
    async def test_is_found_by_the_hash_of_the_key(self, opened: Opener, access: Access) -> None:
        async with opened() as it:
            caller = await it.make(KEY, access)
            assert await it.keys.caller(key_hash(KEY)) == caller

    async def test_of_one_key_is_not_that_of_another_one(self, opened: Opener) -> None:
        async with opened() as it:
            first, second = await it.make(KEY), await it.make(OTHER)
            assert first.key_id != second.key_id
            assert await it.keys.caller(key_hash(OTHER)) == second

    async def test_of_an_unknown_key_is_none(self, opened: Opener) -> None:
        async with opened() as it:
            await it.make(KEY)
            assert await it.keys.caller(key_hash(OTHER)) is None

    async def test_of_a_revoked_key_is_none(self, opened: Opener) -> None:
        async with opened() as it:
            await it.revoke((await it.make(KEY)).key_id)
            assert await it.keys.caller(key_hash(KEY)) is None

    async def test_is_there_until_the_key_expires(self, opened: Opener) -> None:
        async with opened() as it:
            caller = await it.make(KEY, lifetime=timedelta(days=1))
            await it.make(OTHER, lifetime=-timedelta(seconds=1))
            assert await it.keys.caller(key_hash(KEY)) == caller
            assert await it.keys.caller(key_hash(OTHER)) is None


class TestUse:
    async def test_is_noted_of_its_key_alone(self, opened: Opener) -> None:
        async with opened() as it:
            used, unused = await it.make(KEY), await it.make(OTHER)
            await it.keys.note_use(used.key_id)
            assert await it.was_used(used.key_id)
            assert not await it.was_used(unused.key_id)
