"""A tenant's numbers in the database."""

from datetime import datetime
from typing import Final, NamedTuple

from sens_platform_api.postgresql import TenantDatabase


class Overview(NamedTuple):
    """A tenant's numbers.

    Attributes:
        devices: Registered devices.
        device_limit: How many it may have.
        metrics: Registered metrics.
        metric_limit: How many it may have.
        dead_letters: Messages that could not be stored and are kept.
        dead_letter_count_limit: How many are kept at most.
        dead_letter_bytes: Bytes that they take.
        dead_letter_byte_limit: Bytes that they may take with their whole payloads.
        stored_bytes: Bytes that readings and aggregates take on disk, about.
        stored_byte_limit: How many they may take, None without a limit.
        retention_waiting_since: Since when something that is older than it is kept waits for the rollups, None where nothing does.
        received: Messages of today (UTC).
        stored: Of these, messages with at least one new value.
        duplicate: Of these, messages whose values were stored before.
        dead_lettered: Of these, messages that became dead letters.
        discarded: Of these, messages over the limit of messages a second or of dead letters.
        without_measurements: Of these, messages that carry none by their nature.
    """

    devices: int
    device_limit: int
    metrics: int
    metric_limit: int
    dead_letters: int
    dead_letter_count_limit: int
    dead_letter_bytes: int
    dead_letter_byte_limit: int
    stored_bytes: int
    stored_byte_limit: int | None
    retention_waiting_since: datetime | None
    received: int
    stored: int
    duplicate: int
    dead_lettered: int
    discarded: int
    without_measurements: int


class TenantNumbers:
    """The numbers of one tenant."""

    def __init__(self, database: TenantDatabase) -> None:
        self._database = database

    async def overview(self) -> Overview | None:
        """Return them, None when the tenant was deleted."""
        async with self._database.transaction() as connection:
            row = await connection.fetchrow(_OVERVIEW)
        return None if row is None else Overview(*row)


_OVERVIEW: Final = """
    SELECT coalesce(r.devices, 0), t.device_limit, coalesce(r.metrics, 0), t.metric_limit,
        u.letters, t.dead_letter_count_limit, u.bytes, t.dead_letter_byte_limit,
        s.readings + s.rollups, t.stored_byte_limit, p.waiting_since,
        c.received, c.stored, c.duplicate, c.dead_lettered, c.discarded, c.without_measurements
    FROM sens.tenants t LEFT JOIN sens.registrations r ON r.tenant_id = t.id
        LEFT JOIN sens.retention_progress p ON p.tenant_id = t.id,
        LATERAL sens.own_sizes() s,
        LATERAL (
            SELECT coalesce(sum(letters), 0)::bigint AS letters, coalesce(sum(bytes), 0)::bigint AS bytes
            FROM sens.dead_letter_usage WHERE tenant_id = t.id
        ) u,
        LATERAL (
            SELECT coalesce(sum(received), 0)::bigint AS received, coalesce(sum(stored), 0)::bigint AS stored,
                coalesce(sum(duplicate), 0)::bigint AS duplicate, coalesce(sum(dead_lettered), 0)::bigint AS dead_lettered,
                coalesce(sum(discarded), 0)::bigint AS discarded,
                coalesce(sum(without_measurements), 0)::bigint AS without_measurements
            FROM sens.message_counts WHERE tenant_id = t.id AND day = (now() AT TIME ZONE 'UTC')::date
        ) c
    WHERE t.deleted_at IS NULL
"""
