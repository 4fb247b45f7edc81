"""Where the dead letters of versions before 0.2 go, as `moving.Destination`."""

from collections.abc import Mapping, Sequence
from typing import Final

from sens_telemetry_worker.letters import Letter
from sens_telemetry_worker.timescale.accounts import put_letters
from sens_telemetry_worker.timescale.database import Database

_NOTE: Final = """
    INSERT INTO sens.settled (stream, sequence) SELECT -$1::bigint, sequence FROM unnest($2::bigint[]) AS taken (sequence)
    ON CONFLICT DO NOTHING
    RETURNING sequence
"""
"""Negative, so that it is no stream of envelopes."""


class FormerLetters:
    """The database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def tenant_ids(self, names: Sequence[str]) -> Mapping[str, int]:
        """See `moving.Destination.tenant_ids`."""
        async with self._database.connection() as connection:
            rows = await connection.fetch("SELECT name, id FROM sens.tenants WHERE name = ANY ($1)", list(names))
        return {row["name"]: row["id"] for row in rows}

    async def take(self, stream: int, messages: Mapping[int, list[Letter]]) -> int:
        """See `moving.Destination.take`. Quotas do not matter: these are dead letters already."""
        async with self._database.connection() as connection, connection.transaction():
            new = await connection.fetch(_NOTE, stream, sorted(messages))
            letters = [letter for row in new for letter in messages[row["sequence"]]]
            if letters:
                await put_letters(connection, letters)
        return len(letters)

    async def finish(self, stream: int) -> None:
        """See `moving.Destination.finish`."""
        async with self._database.connection() as connection:
            await connection.execute("DELETE FROM sens.settled WHERE stream = -$1::bigint", stream)
