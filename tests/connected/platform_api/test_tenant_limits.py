"""A tenant's limits: shown and changed by the administration, and told to the ingestion workers."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from nats.aio.client import Client
from nats.js.errors import NoKeysError

from sens_common import tenant_limits
from sens_common.jetstream import connect as connect_nats
from sens_common.settings import DatabaseSettings, NatsSettings
from sens_platform_api.postgresql import Pool, open_pools
from sens_platform_api.settings import LimitSettings
from sens_platform_api.tenants.jetstream import LimitsBucket
from sens_platform_api.tenants.limits import LIMITS
from sens_platform_api.tenants.repository import IngestionLimits
from sens_platform_api.tenants.service import tell_limits
from support.api import as_owner, set_environment
from support.command_line import sens


@pytest.fixture
def administered(database: DatabaseSettings, monkeypatch: pytest.MonkeyPatch) -> DatabaseSettings:
    """A database with the tenant demo, and the administration's environment."""
    set_environment(monkeypatch, database=database)
    assert sens("tenants", "create", "demo") == 0
    return database


class TestCommand:
    @pytest.mark.usefixtures("administered")
    def test_shows_limits_and_what_is_used(self, capsys: pytest.CaptureFixture[str]) -> None:
        capsys.readouterr()
        assert sens("tenants", "limits", "demo", "--json") == 0
        answer = json.loads(capsys.readouterr().out)
        assert answer["limits"] == {
            "devices": 1_000_000,
            "new_devices_per_hour": 100_000,
            "metrics": 10_000,
            "new_metrics_per_hour": 1000,
            "messages_per_second": None,
            "late_days": 400,
            "import_late_days": None,
            "dead_letters": 100_000,
            "dead_letter_bytes": 268_435_456,
            "stored_bytes": None,
        }
        assert answer["used"]["devices"] == 0
        assert sens("tenants", "limits", "demo") == 0
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) == 1 + len(LIMITS)
        assert lines[1].split() == ["devices", "1,000,000", "0"]
        assert lines[5].split() == ["messages-per-second", "none"]

    def test_changes_all_of_them_and_leaves_a_row_in_the_audit(
        self, administered: DatabaseSettings, capsys: pytest.CaptureFixture[str]
    ) -> None:
        capsys.readouterr()
        options = [f"{limit.option}={number}" for number, limit in enumerate(LIMITS, 7)]
        assert sens("tenants", "limits", "demo", *options, "--json") == 0
        answer = json.loads(capsys.readouterr().out)
        assert answer["limits"] == {limit.name: number for number, limit in enumerate(LIMITS, 7)}
        assert sens("tenants", "limits", "demo", "--messages-per-second", "none", "--devices", "7", "--json") == 0
        answer = json.loads(capsys.readouterr().out)
        assert answer["changed"] == ["messages_per_second"]
        select = "SELECT actor, action, subject, details::text FROM sens.audit_events WHERE action LIKE 'tenant.limits%' ORDER BY id"
        events = as_owner(administered, lambda connection: connection.fetch(select))
        assert [tuple(event)[:3] for event in events] == [("administrator", "tenant.limits_changed", "tenant demo")] * 2
        assert json.loads(events[1][3]) == {"messages_per_second": {"before": 11, "after": None}}

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            (["--late-days", "0"], "a number from 1 to 36500 is needed"),
            (["--devices", "none"], "a number from 0 to"),
            (["--messages-per-second", "0"], "is needed, or none"),
            (["--metrics", "1e3"], "a number from"),
        ],
    )
    def test_says_what_a_limit_accepts(self, options: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
        assert sens("tenants", "limits", "demo", *options) == 2
        assert said in " ".join(capsys.readouterr().err.replace("│", " ").split())

    @pytest.mark.usefixtures("administered")
    def test_of_a_tenant_that_does_not_exist_is_refused(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert sens("tenants", "limits", "nobody", "--devices", "1") == 1
        assert "there is no tenant nobody" in capsys.readouterr().err


class TestIngestionWorkers:
    @staticmethod
    @asynccontextmanager
    async def parts(database: DatabaseSettings, nats: NatsSettings) -> AsyncIterator[tuple[Pool, Client]]:
        async with open_pools(database, "test", LimitSettings()) as (_, pool), connect_nats(nats, "test") as client:
            yield pool, client

    @staticmethod
    async def told(client: Client) -> dict[str, int | None]:
        bucket = await client.jetstream().key_value(tenant_limits.BUCKET)
        try:
            keys = await bucket.keys()
        except NoKeysError:
            return {}
        values = {key: (await bucket.get(key)).value or b"" for key in keys}
        return {key: tenant_limits.decode(value).messages_per_second for key, value in values.items()}

    async def test_are_told_what_the_database_says_whatever_happened_to_the_bucket(
        self, database: DatabaseSettings, nats: NatsSettings
    ) -> None:
        async def change(statement: str) -> None:
            await asyncio.to_thread(as_owner, database, lambda connection: connection.execute(statement))

        async with self.parts(database, nats) as (pool, client):
            bucket = LimitsBucket(client)
            await change(
                "INSERT INTO sens.tenants (name, messages_per_second) VALUES ('plant.north', 10), ('b', 20), ('c', NULL)"
            )
            assert await tell_limits(IngestionLimits(pool), bucket) == 2
            assert await self.told(client) == {"plant=2Enorth": 10, "b": 20}
            assert await tell_limits(IngestionLimits(pool), bucket) == 0

            await change("UPDATE sens.tenants SET messages_per_second = CASE name WHEN 'b' THEN NULL ELSE 5 END")
            assert await tell_limits(IngestionLimits(pool), bucket) == 3
            assert await self.told(client) == {"plant=2Enorth": 5, "c": 5}

            # The bucket was restored from an older backup, or is gone with the server's disk.
            stored = await client.jetstream().key_value(tenant_limits.BUCKET)
            await stored.put("c", tenant_limits.encode(tenant_limits.TenantLimits(1)))
            await stored.put("gone", b"x")
            assert await tell_limits(IngestionLimits(pool), bucket) == 2
            assert await self.told(client) == {"plant=2Enorth": 5, "c": 5}
            await client.jetstream().delete_key_value(tenant_limits.BUCKET)
            assert await tell_limits(IngestionLimits(pool), bucket) == 2
            assert await self.told(client) == {"plant=2Enorth": 5, "c": 5}
