"""A tenant's codecs in the database; versions are added and deleted by the functions of migration 0019, and never changed."""

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

from sens_platform_api.caller import Caller
from sens_platform_api.postgresql import TenantDatabase


class Codec(NamedTuple):
    """A codec.

    Attributes:
        name: Its name.
        newest: Number of its newest version, None when it has none.
        versions: How many it has.
        created_at: When its first version was made.
    """

    name: str
    newest: int | None
    versions: int
    created_at: datetime


class Version(NamedTuple):
    """A version of a codec, without its source.

    Attributes:
        number: From 1; a number is not given twice.
        sha256: Of the source in UTF-8, hexadecimal.
        source_bytes: Size of the source.
        examples: How many it has.
        created_at: When it was made.
        created_by: The actor, as in the audit.
        profiles: Names of the profiles that use it.
    """

    number: int
    sha256: str
    source_bytes: int
    examples: int
    created_at: datetime
    created_by: str
    profiles: list[str]


class WholeVersion(NamedTuple):
    """A version with its source and examples."""

    version: Version
    source: str
    examples: list[dict[str, Any]]


class Addition(NamedTuple):
    """What became of a source: `outcome` is ``created``, ``exists``, or ``too_many``, without a number."""

    outcome: str
    number: int | None


_CODECS: Final = """
    SELECT c.name, max(v.number), count(v.number)::int, c.created_at
    FROM sens.codecs c LEFT JOIN sens.codec_versions v ON v.codec_id = c.id
"""
_VERSION: Final = """
    v.number, encode(v.sha256, 'hex'), octet_length(v.source), jsonb_array_length(v.examples), v.created_at, v.created_by, ARRAY(
        SELECT p.name FROM sens.profiles p WHERE p.codec_id = v.codec_id AND p.codec_version = v.number ORDER BY p.name
    )
"""


class TenantCodecs:
    """The codecs of one tenant, changed in the name of one caller."""

    def __init__(self, database: TenantDatabase, caller: Caller) -> None:
        self._database = database
        self._caller = caller

    async def by_name(self, *, after: str, limit: int) -> list[Codec]:
        """Return codecs by name: those after a name."""
        async with self._database.transaction() as connection:
            rows = await connection.fetch(
                _CODECS + "WHERE c.name > $1 GROUP BY c.id ORDER BY c.name LIMIT $2", after, limit
            )
        return [Codec(*row) for row in rows]

    async def get(self, name: str) -> Codec | None:
        """Return a codec, None when the tenant has none with this name."""
        async with self._database.transaction() as connection:
            row = await connection.fetchrow(_CODECS + "WHERE c.name = $1 GROUP BY c.id", name)
        return None if row is None else Codec(*row)

    async def versions(self, name: str) -> list[Version]:
        """Return the versions of a codec, the newest first; none when there is no such codec."""
        async with self._database.transaction() as connection:
            rows = await connection.fetch(
                f"SELECT {_VERSION} FROM sens.codec_versions v JOIN sens.codecs c ON c.id = v.codec_id"  # noqa: S608 - a constant
                " WHERE c.name = $1 ORDER BY v.number DESC",
                name,
            )
        return [Version(*row) for row in rows]

    async def version(self, name: str, number: int) -> WholeVersion | None:
        """Return a version of a codec, None when there is none."""
        async with self._database.transaction() as connection:
            row = await connection.fetchrow(
                f"SELECT {_VERSION}, v.source, v.examples FROM sens.codec_versions v JOIN sens.codecs c ON c.id = v.codec_id"  # noqa: S608 - same
                " WHERE c.name = $1 AND v.number = $2",
                name,
                number,
            )
        if row is None:
            return None
        *version, source, examples = row
        return WholeVersion(Version(*version), source, json.loads(examples))

    async def add(self, name: str, source: str, examples: Sequence[dict[str, Any]]) -> Addition:
        """Add a version to a codec, which is made if there is none."""
        async with self._database.transaction(readonly=False) as connection:
            row = await connection.fetchrow(
                "SELECT outcome, number FROM sens.add_codec_version($1, $2, $3::text::jsonb, $4, $5, $6)",
                name,
                source,
                json.dumps(examples),
                self._caller.actor,
                self._caller.address,
                self._caller.request_id,
            )
        assert row is not None  # noqa: S101 - for the type checker: it returns one row in any case
        return Addition(*row)

    async def delete(self, name: str, number: int | None) -> str:
        """Delete a version of a codec, or all of it; return ``deleted``, ``unknown``, or ``used``."""
        async with self._database.transaction(readonly=False) as connection:
            outcome: str = await connection.fetchval(
                "SELECT sens.delete_codec($1, $2, $3, $4, $5)",
                name,
                number,
                self._caller.actor,
                self._caller.address,
                self._caller.request_id,
            )
        return outcome
