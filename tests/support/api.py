"""What tests of the API and of the administration command have in common."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime

import asyncpg
import pytest
from structlog.testing import capture_logs

from sens_common import dead_letters
from sens_common.database import connect
from sens_common.dead_letters import DeadLetter, Reason
from sens_common.jetstream import connect as connect_nats
from sens_common.jetstream import ensure_streams
from sens_common.settings import DatabaseSettings, NatsSettings
from sens_platform_api.keys import service as keys
from sens_platform_api.tenants import repository as tenants

type Value = float | bool | str
type Row = tuple[str, str, datetime, Value]
"""Device, metric, time, value."""


def set_environment(
    patch: pytest.MonkeyPatch, *, database: DatabaseSettings | None = None, nats: NatsSettings | None = None
) -> None:
    """Set the variables by which a service finds the servers."""
    if database is not None:
        assert database.password is not None
        for name in ("host", "port", "name", "user", "ssl"):
            patch.setenv(f"SENS_DATABASE__{name.upper()}", str(getattr(database, name)))
        patch.setenv("SENS_DATABASE__PASSWORD", database.password.get_secret_value())
    if nats is not None:
        assert nats.user is not None
        assert nats.password is not None
        patch.setenv("SENS_NATS__URL", nats.url)
        patch.setenv("SENS_NATS__USER", nats.user)
        patch.setenv("SENS_NATS__PASSWORD", nats.password.get_secret_value())


def as_owner[T](database: DatabaseSettings, work: Callable[["asyncpg.Connection[asyncpg.Record]"], Awaitable[T]]) -> T:
    """Do something on a connection of the owning role."""

    async def run() -> T:
        connection = await connect(database, "test")
        try:
            return await work(connection)
        finally:
            await connection.close()

    with capture_logs():
        return asyncio.run(run())


def make_tenant(database: DatabaseSettings, name: str) -> str:
    """Make a tenant and return a key of it."""

    async def make(connection: "asyncpg.Connection[asyncpg.Record]") -> str:
        await tenants.create(connection, name)
        _, key = await keys.create(connection, tenant=name, name="test")
        return key

    return as_owner(database, make)


def store(database: DatabaseSettings, tenant: str, rows: Sequence[Row]) -> None:
    """Store measurements as the telemetry worker does: devices and metrics as needed, one metric per name and kind."""

    async def run(connection: "asyncpg.Connection[asyncpg.Record]") -> None:
        tenant_id = await connection.fetchval("SELECT id FROM sens.tenants WHERE name = $1", tenant)
        times = [row[2] for row in rows]
        await connection.execute("SELECT sens.ensure_partitions($1, $2)", min(times), max(times))
        devices: dict[str, int] = {}
        metrics: dict[tuple[str, str], int] = {}
        numbers: list[tuple[int, int, datetime, float]] = []
        texts: list[tuple[int, int, datetime, str]] = []
        for device, metric, time, value in rows:
            kind = "text" if isinstance(value, str) else "boolean" if isinstance(value, bool) else "number"
            if device not in devices:
                devices[device] = await connection.fetchval(
                    "INSERT INTO sens.devices (tenant_id, name) VALUES ($1, $2)"
                    " ON CONFLICT (tenant_id, name) DO UPDATE SET name = excluded.name RETURNING id",
                    tenant_id,
                    device,
                )
            if (metric, kind) not in metrics:
                metrics[metric, kind] = await connection.fetchval(
                    "INSERT INTO sens.metrics (tenant_id, name, kind) VALUES ($1, $2, $3)"
                    " ON CONFLICT (tenant_id, name, kind) DO UPDATE SET name = excluded.name RETURNING id",
                    tenant_id,
                    metric,
                    kind,
                )
            if isinstance(value, str):
                texts.append((devices[device], metrics[metric, kind], time, value))
            else:
                numbers.append((devices[device], metrics[metric, kind], time, float(value)))
        for table, records in (("measurements", numbers), ("text_measurements", texts)):
            await connection.copy_records_to_table(table, schema_name="sens", records=records)

    as_owner(database, run)


def dead_letter(
    *,
    tenant: str | None = "demo",
    device: str | None = "sensor-1",
    payload: bytes = b"{",
    reason: str = Reason.MALFORMED_PAYLOAD,
) -> DeadLetter:
    """Return a dead letter."""
    return DeadLetter(
        tenant=tenant,
        device=device,
        topic=f"sens/v1/{tenant}/{device}/telemetry" if tenant else "elsewhere",
        payload=payload,
        received_at=1_700_000_000_123_456,
        reason=reason,
        detail="the payload is not JSON",
        dead_lettered_at=1_700_000_001_000_000,
    )


def put_dead_letters(nats: NatsSettings, letters: Sequence[DeadLetter]) -> list[int]:
    """Put dead letters into their stream, which is made when needed; return their numbers."""

    async def run() -> list[int]:
        async with connect_nats(nats, "test") as client:
            jetstream = client.jetstream()
            await ensure_streams(jetstream, nats)
            first = (await jetstream.stream_info("DEAD_LETTERS")).state.last_seq + 1
            acknowledgements = [
                await jetstream.publish(
                    dead_letters.subject(letter.tenant, f"0-{first + index}-0"), dead_letters.encode(letter)
                )
                for index, letter in enumerate(letters)
            ]
            return [acknowledgement.seq for acknowledgement in acknowledgements]

    with capture_logs():
        return asyncio.run(run())
