"""Observes and tidies the accounts every few seconds: quotas, conservation, and envelopes that need not be remembered any more."""

from collections.abc import Callable, Iterable
from typing import Final

from sens_common.attempts import Attempts
from sens_common.health import Problems
from sens_telemetry_worker import metrics
from sens_telemetry_worker.letters import Quota
from sens_telemetry_worker.storing import RowsRefusedError, StoreUnavailableError
from sens_telemetry_worker.timescale.database import Database

_CONSERVATION: Final = "conservation"
_USAGE: Final = """
    SELECT t.name, t.dead_letter_count_limit AS count_limit, t.dead_letter_byte_limit AS byte_limit,
        sum(u.letters)::bigint AS letters, sum(u.bytes)::bigint AS bytes
    FROM sens.dead_letter_usage u LEFT JOIN sens.tenants t ON t.id = u.tenant_id
    WHERE t.deleted_at IS NULL
    GROUP BY t.id, t.name, t.dead_letter_count_limit, t.dead_letter_byte_limit
"""
# A batch that is stored in parts has counted some outcomes before what was received.
_UNACCOUNTED: Final = """
    SELECT coalesce(sum(abs(unaccounted)), 0)::bigint FROM sens.conservation((now() AT TIME ZONE 'UTC')::date - 7)
    WHERE NOT EXISTS (SELECT FROM sens.settled WHERE outcomes IS NOT NULL)
"""
_RECENTLY_STORED: Final = """
    SELECT DISTINCT t.name FROM sens.message_counts c JOIN sens.tenants t ON t.id = c.tenant_id AND t.deleted_at IS NULL
    WHERE c.day >= (now() AT TIME ZONE 'UTC')::date - 1 AND c.stored > 0
"""
_FORGET: Final = (
    "DELETE FROM sens.settled WHERE stream = $1 AND sequence < $2",
    # Streams that are no more; negative numbers are those of another kind, see `migrated_letters`.
    "DELETE FROM sens.settled WHERE (stream > 0 AND stream < $1 OR stream > $1) AND $2 >= 0",
)


class Bookkeeping:
    """The accounts as a whole; sets their metrics, and tells at the start which tenants' messages were stored since yesterday.

    Attributes:
        problems: Why the accounts can't be observed, or that they do not balance.
    """

    def __init__(
        self, database: Database, unknown_tenants: Quota, recently_stored: Callable[[Iterable[str]], None]
    ) -> None:
        self._database = database
        self._unknown_tenants = unknown_tenants
        self._recently_stored: Callable[[Iterable[str]], None] | None = recently_stored
        self._forgotten = (0, 0)
        self.problems = Problems("accounts")

    async def keep(self, interval_seconds: float) -> None:
        """Observe everything again and again."""
        attempts = Attempts(
            self.problems,
            "observing",
            "the accounts can't be observed",
            retry_on=(StoreUnavailableError, RowsRefusedError),
            interval_seconds=interval_seconds,
        )
        async for attempt in attempts:
            with attempt:
                await self.observe()

    async def observe(self) -> None:
        """Set the metrics, and join the counts that sessions of the database have left that are over.

        Raises:
            StoreUnavailableError: The database can't be asked.
        """
        async with self._database.connection() as connection:
            await connection.execute("SELECT sens.compact_dead_letter_usage()")
            usage = await connection.fetch(_USAGE)
            unaccounted = await connection.fetchval(_UNACCOUNTED)
            if self._recently_stored is not None:
                self._recently_stored([row["name"] for row in await connection.fetch(_RECENTLY_STORED)])
                self._recently_stored = None
        metrics.DEAD_LETTERS.clear()
        metrics.DEAD_LETTERS_FILLED.clear()
        for row in usage:
            tenant = row["name"] or metrics.UNKNOWN_TENANT
            unknown = row["name"] is None
            count_limit = self._unknown_tenants.count_limit if unknown else row["count_limit"]
            byte_limit = self._unknown_tenants.byte_limit if unknown else row["byte_limit"]
            filled = max(row["letters"] / max(1, count_limit), row["bytes"] / max(1, byte_limit))
            metrics.DEAD_LETTERS.labels(tenant).set(row["letters"])
            metrics.DEAD_LETTERS_FILLED.labels(tenant).set(filled)
        metrics.UNACCOUNTED.set(unaccounted)
        if unaccounted:
            what = "messages are not accounted for: see sens.conservation()"
            self.problems.set(_CONSERVATION, what, f"{unaccounted:,}", level="error")
        else:
            self.problems.clear(_CONSERVATION)

    async def forget_before(self, stream: int, sequence: int) -> None:
        """Forget which envelopes are settled that the stream no longer has; see `trimming.SettledEnvelopes`."""
        if (stream, sequence) == self._forgotten:
            return
        async with self._database.connection() as connection:
            for statement in _FORGET:
                await connection.execute(statement, stream, sequence)
        self._forgotten = stream, sequence
