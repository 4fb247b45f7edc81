"""A tenant's profiles in the database, changed by the functions of migration 0019."""

import json
from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any, Final, NamedTuple

import asyncpg

from sens_payloads.profiles import Profile as CompiledProfile
from sens_payloads.stored import stored_profile
from sens_platform_api.caller import Caller
from sens_platform_api.postgresql import Connection, TenantDatabase


class Profile(NamedTuple):
    """A kind of device.

    Attributes:
        name: Its name.
        builtin_codec: A codec that is built in, else None.
        codec: Name of a codec of the tenant, else None.
        codec_version: Its version, None where it has none.
        metrics: Rules by the names of fields (`sens_payloads.profiles.MetricRule`), as JSON has them.
        changed_at: When it was last changed; None before it is stored.
    """

    name: str
    builtin_codec: str | None
    codec: str | None
    codec_version: int | None
    metrics: dict[str, dict[str, Any]]
    changed_at: datetime | None = None

    @property
    def codec_text(self) -> str | None:
        """Its codec as people write it."""
        return self.builtin_codec if self.codec is None else f"{self.codec}@{self.codec_version}"


class Users(NamedTuple):
    """Who uses a profile: sources, and some of the devices that have it by hand."""

    sources: list[str]
    devices: list[str]


_PROFILES: Final = """
    SELECT p.name, p.builtin_codec, c.name, p.codec_version, p.metrics, p.changed_at
    FROM sens.profiles p LEFT JOIN sens.codecs c ON c.id = p.codec_id
"""
_COMPILED: Final = """
    p.name, p.builtin_codec, c.name AS codec, v.number, v.sha256, v.source, p.metrics
    FROM sens.profiles p
    LEFT JOIN sens.codec_versions v ON v.codec_id = p.codec_id AND v.number = p.codec_version
    LEFT JOIN sens.codecs c ON c.id = p.codec_id
"""
_MOST_USERS: Final = 10


class TenantProfiles:
    """The profiles of one tenant, changed in the name of one caller."""

    def __init__(self, database: TenantDatabase, caller: Caller) -> None:
        self._database = database
        self._caller = caller

    async def by_name(self, *, after: str, limit: int) -> list[Profile]:
        """Return profiles by name: those after a name."""
        async with self._database.transaction() as connection:
            rows = await connection.fetch(_PROFILES + "WHERE p.name > $1 ORDER BY p.name LIMIT $2", after, limit)
        return [_profile(row) for row in rows]

    async def get(self, name: str) -> Profile | None:
        """Return a profile, None when the tenant has none with this name."""
        async with self._database.transaction() as connection:
            row = await connection.fetchrow(_PROFILES + "WHERE p.name = $1", name)
        return None if row is None else _profile(row)

    async def users(self, name: str) -> Users:
        """Return who uses a profile; of devices, the first ones."""
        async with self._database.transaction() as connection:
            sources = await connection.fetch(
                """
                SELECT s.name FROM sens.sources s, sens.profiles p
                WHERE p.name = $1 AND (s.default_profile = p.id OR s.profile_rules @> jsonb_build_array(jsonb_build_object('profile', p.id)))
                ORDER BY s.name
                """,
                name,
            )
            devices = await connection.fetch(
                """
                SELECT d.name FROM sens.device_profiles a JOIN sens.devices d ON d.id = a.device_id JOIN sens.profiles p ON p.id = a.profile_id
                WHERE p.name = $1 ORDER BY d.name LIMIT $2
                """,
                name,
                _MOST_USERS,
            )
        return Users([row[0] for row in sources], [row[0] for row in devices])

    async def put(self, profile: Profile) -> str:
        """Make or replace a profile; return ``created``, ``changed``, ``unchanged``, ``unknown_codec``, or ``too_many``."""
        document = profile._asdict() | {"changed_at": None}
        return await self._change(
            "SELECT sens.put_profile($1, $2::text::jsonb, $3, $4, $5)", profile.name, json.dumps(document)
        )

    async def delete(self, name: str) -> str:
        """Delete a profile; return ``deleted``, ``unknown``, or ``used``."""
        return await self._change("SELECT sens.delete_profile($1, $2, $3, $4)", name)

    async def of_device(self, device: str) -> tuple[bool, str | None]:
        """Tell whether there is a device, and return the profile that it was given by hand, None where it has none."""
        async with self._database.transaction() as connection:
            row = await connection.fetchrow(
                """
                SELECT p.name FROM sens.devices d
                LEFT JOIN sens.device_profiles a ON a.device_id = d.id LEFT JOIN sens.profiles p ON p.id = a.profile_id
                WHERE d.name = $1
                """,
                device,
            )
        return (False, None) if row is None else (True, row[0])

    async def give(self, device: str, profile: str | None) -> str:
        """Give a device a profile by hand, or none; return ``changed``, ``unchanged``, ``unknown_device``, or ``unknown_profile``."""
        return await self._change("SELECT sens.set_device_profile($1, $2, $3, $4, $5)", device, profile)

    async def _change(self, query: str, *arguments: object) -> str:
        async with self._database.transaction(readonly=False) as connection:
            outcome: str = await connection.fetchval(
                query, *arguments, self._caller.actor, self._caller.address, self._caller.request_id
            )
        return outcome


async def compiled(connection: Connection, ids: Collection[int]) -> dict[int, CompiledProfile]:
    """Return profiles of the current tenant, by their ids, with the sources of their codecs."""
    rows = await connection.fetch(f"SELECT p.id, {_COMPILED} WHERE p.id = ANY($1)", list(ids))
    return {row["id"]: stored_profile(row) for row in rows}


async def compiled_by_hand(connection: Connection, devices: Collection[str]) -> Mapping[str, CompiledProfile]:
    """Return the profiles that some devices of the current tenant were given by hand, by the devices' names."""
    rows = await connection.fetch(
        "SELECT d.name, a.profile_id FROM sens.device_profiles a JOIN sens.devices d ON d.id = a.device_id WHERE d.name = ANY($1)",
        list(devices),
    )
    profiles = await compiled(connection, {row["profile_id"] for row in rows})
    return {row["name"]: profiles[row["profile_id"]] for row in rows}


def _profile(row: asyncpg.Record) -> Profile:
    name, builtin_codec, codec, version, metrics, changed_at = row
    return Profile(name, builtin_codec, codec, version, json.loads(metrics), changed_at)
