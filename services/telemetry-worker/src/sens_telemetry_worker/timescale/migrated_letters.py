"""The dead letters of versions before 0.2 on their way into the database, as `dead_letter_migration.Destination`."""

from collections.abc import Mapping, Sequence
from typing import Final

from sens_telemetry_worker.letters import Letter
from sens_telemetry_worker.timescale.database import Database
from sens_telemetry_worker.timescale.dead_letters import merge_letters

_NOTE: Final = """
    INSERT INTO sens.settled (stream, sequence) SELECT -$1::bigint, sequence FROM unnest($2::bigint[]) AS migrated (sequence)
    ON CONFLICT DO NOTHING
    RETURNING sequence
"""
"""Negative, so that it is no stream of envelopes."""


class MigratedLetters:
    """The database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def tenant_ids(self, names: Sequence[str]) -> Mapping[str, int]:
        """See `dead_letter_migration.Destination.tenant_ids`."""
        async with self._database.connection() as connection:
            rows = await connection.fetch("SELECT name, id FROM sens.tenants WHERE name = ANY ($1)", list(names))
        return {row["name"]: row["id"] for row in rows}

    async def add(self, stream: int, messages: Mapping[int, list[Letter]]) -> int:
        """See `dead_letter_migration.Destination.add`. Quotas do not matter: these are dead letters already."""
        async with self._database.connection() as connection, connection.transaction():
            new = await connection.fetch(_NOTE, stream, sorted(messages))
            letters = [letter for row in new for letter in messages[row["sequence"]]]
            if letters:
                await merge_letters(connection, letters)
        return len(letters)

    async def finish(self, stream: int) -> None:
        """See `dead_letter_migration.Destination.finish`."""
        async with self._database.connection() as connection:
            await connection.execute("DELETE FROM sens.settled WHERE stream = -$1::bigint", stream)
