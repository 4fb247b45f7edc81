"""Ingest keys in the database, as the API's role makes, sees and revokes them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import asyncpg
import pytest

from sens_common.errors import UnavailableError
from sens_common.keys import key_hash
from sens_common.settings import DatabaseSettings
from sens_common.tenant_limits import IngestKey, TenantLimits
from sens_platform_api.caller import Caller
from sens_platform_api.errors import InvalidRequestError, NotFoundError
from sens_platform_api.ingest_keys import service
from sens_platform_api.ingest_keys.repository import TenantIngestKeys
from sens_platform_api.ingest_keys.service import Wanted
from sens_platform_api.postgresql import TenantDatabase, open_pools
from sens_platform_api.settings import LimitSettings
from sens_platform_api.tenants.repository import IngestionLimits
from support.servers import owner_pool

SOURCES = """
    INSERT INTO sens.sources (tenant_id, name, transport, topic_filter, format)
    SELECT id, 'push', 'http', NULL, 'json' FROM sens.tenants WHERE name = 'demo'
    UNION ALL SELECT id, 'field', 'mqtt', 'field/#', 'json' FROM sens.tenants WHERE name = 'demo'
"""


class Stored(NamedTuple):
    """Two tenants' keys, what the workers are told, and the owner."""

    demo: TenantIngestKeys
    other: TenantIngestKeys
    database: TenantDatabase
    limits: IngestionLimits
    owner: "asyncpg.Pool[asyncpg.Record]"

    async def told(self) -> tuple[IngestKey, ...]:
        return (await self.limits.limits()).get("demo", TenantLimits()).ingest_keys


@asynccontextmanager
async def stored(database: DatabaseSettings) -> AsyncIterator[Stored]:
    async with owner_pool(database) as owner, open_pools(database, "test", LimitSettings()) as (pool, keys):
        ids = [
            await owner.fetchval("INSERT INTO sens.tenants (name) VALUES ($1) RETURNING id", name)
            for name in ("demo", "other")
        ]
        await owner.execute(SOURCES)
        databases = [TenantDatabase(pool, each) for each in ids]
        demo, other = (TenantIngestKeys(each, Caller(1, id_, "x")) for each, id_ in zip(databases, ids, strict=True))
        yield Stored(demo, other, databases[0], IngestionLimits(keys), owner)


async def test_a_key_is_told_to_the_workers_until_it_is_revoked(database: DatabaseSettings) -> None:
    async with stored(database) as it:
        key, text = await service.create(it.demo, Wanted("barn", "push", "70-B3-D5-7E-D0-A1-B2-C3", None))
        assert (key.source, key.device, key.state(datetime.now(UTC))) == ("push", "70b3d57ed0a1b2c3", "valid")
        assert await it.told() == (IngestKey(key_hash(text).hex(), "push", "70b3d57ed0a1b2c3"),)
        assert [each.id for each in await it.demo.by_id(after=0, limit=10)] == [key.id]
        assert await it.other.by_id(after=0, limit=10) == []
        with pytest.raises(NotFoundError):
            await service.revoke(it.other, key.id)
        await service.revoke(it.demo, key.id)
        await service.revoke(it.demo, key.id)
        assert await it.told() == ()
        actions = await it.owner.fetch(
            "SELECT action FROM sens.audit_events WHERE action LIKE 'ingest_key.%' ORDER BY id"
        )
        assert [row["action"] for row in actions] == ["ingest_key.created", "ingest_key.revoked"]


async def test_a_key_of_a_source_that_takes_nothing_is_not_told(database: DatabaseSettings) -> None:
    async with stored(database) as it:
        soon = datetime.now(UTC) + timedelta(days=1)
        _, text = await service.create(it.demo, Wanted("native", None, None, soon))
        await service.create(it.demo, Wanted("push", "push", None, None))
        assert len(await it.told()) == 2
        await it.owner.execute("UPDATE sens.sources SET enabled = false WHERE name = 'push'")
        assert await it.told() == (IngestKey(key_hash(text).hex(), expires_at=int(soon.timestamp())),)


async def test_the_api_does_not_see_hashes(database: DatabaseSettings) -> None:
    async with stored(database) as it:
        await service.create(it.demo, Wanted("barn", None, None, None))
        with pytest.raises(UnavailableError, match="permission denied for table ingest_keys"):
            async with it.database.transaction() as connection:
                await connection.fetch("SELECT hash FROM sens.ingest_keys")


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (Wanted("k", "nowhere", None, None), "there is no source nowhere"),
        (Wanted("k", "field", None, None), "by MQTT"),
        (Wanted("k", None, "a/b", None), "a device's name has"),
        (Wanted("k", None, None, datetime(2020, 1, 1, tzinfo=UTC)), "in the future"),
    ],
)
async def test_a_key_needs_what_it_is_for(database: DatabaseSettings, wanted: Wanted, words: str) -> None:
    async with stored(database) as it:
        with pytest.raises(InvalidRequestError) as refused:
            await service.create(it.demo, wanted)
        assert words in str(refused.value) + str(vars(refused.value))
