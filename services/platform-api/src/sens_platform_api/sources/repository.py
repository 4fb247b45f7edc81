"""A tenant's sources in the database, changed by the functions of migrations 0019 and 0022."""

import json
from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any, Final, Literal, NamedTuple

import asyncpg
import msgspec

from sens_common.brokers import Broker, address_of
from sens_common.dead_letters import Origin
from sens_payloads.formats.sparkplug_births import Birth, Publisher
from sens_payloads.formats.sparkplug_history import EDGE_NODE, Announcement, History
from sens_payloads.formats.sparkplug_topics import device_name_of
from sens_payloads.profiles import Profile
from sens_payloads.sources import Source as CompiledSource
from sens_payloads.stored import stored_source
from sens_platform_api.caller import Caller
from sens_platform_api.postgresql import Connection, TenantDatabase
from sens_platform_api.profiles.repository import compiled, compiled_by_hand

type Transport = Literal["mqtt", "http"]


class Rule(NamedTuple):
    """Which devices have a profile: a pattern of their names, in which ``*`` stands for any characters, and the profile's name."""

    device: str
    profile: str


class Source(NamedTuple):
    """How a stream of messages comes in.

    Attributes:
        name: Its name.
        transport: ``mqtt`` or ``http``.
        topic_filter: Of MQTT, None for HTTP.
        format: Name of its network format.
        settings: Of the format.
        registers_devices: Whether devices that are not known are registered.
        radio: Whether values of the radio are stored.
        default_profile: Name of the profile of devices that no rule fits.
        profile_rules: The first one that fits holds.
        enabled: Whether messages are taken.
        broker: Of its own, None for the platform's.
        keep_frames: For how many days its messages are kept, so that they can be decoded again; None: not at all.
        created_at: None before it is stored.
        changed_at: None before it is stored.
    """

    name: str
    transport: Transport
    topic_filter: str | None
    format: str
    settings: dict[str, Any]
    registers_devices: bool
    radio: bool
    default_profile: str | None
    profile_rules: list[Rule]
    enabled: bool
    broker: Broker | None = None
    keep_frames: int | None = None
    created_at: datetime | None = None
    changed_at: datetime | None = None


class Put(NamedTuple):
    """What became of a source.

    Attributes:
        outcome: ``created``, ``changed``, ``unchanged``, ``too_many``, ``unknown_profile``, ``overlap``, or ``session``.
        detail: The profile that is not known; the source of the tenant that has the topics, or the session at the broker, None where it is
            another tenant's.
    """

    outcome: str
    detail: str | None


_ANNOUNCEMENTS: Final = """
    SELECT b.device, b.stream, b.sequence, b.number, b.is_birth, b.bd_seq, b.follows_forgotten
    FROM sens.edge_nodes e JOIN sens.births b ON b.edge_node_id = e.id
    WHERE e.source_id = $1 AND e.name = $2 AND b.device IN ('', $3)
"""
_BIRTH: Final = """
    SELECT b.content FROM sens.edge_nodes e JOIN sens.births b ON b.edge_node_id = e.id
    WHERE e.source_id = $1 AND e.name = $2 AND (b.device, b.stream, b.sequence, b.number) = ($3, $4, $5, $6)
"""
_NOW: Final = Origin(1 << 62, 0, 0)
"""Behind everything in the stream."""
_SOURCES: Final = """
    SELECT s.name, s.transport, s.topic_filter, s.format, s.settings, s.registers_devices, s.radio, p.name AS default_profile,
        s.profile_rules, s.enabled, s.broker, s.keep_frames, s.created_at, s.changed_at
    FROM sens.sources s LEFT JOIN sens.profiles p ON p.id = s.default_profile
"""


class TenantSources:
    """The sources of one tenant, changed in the name of one caller."""

    def __init__(self, database: TenantDatabase, caller: Caller) -> None:
        self._database = database
        self._caller = caller

    async def by_name(self, *, after: str, limit: int) -> list[Source]:
        """Return sources by name: those after a name."""
        async with self._database.transaction() as connection:
            rows = await connection.fetch(_SOURCES + "WHERE s.name > $1 ORDER BY s.name LIMIT $2", after, limit)
            return await _sources(connection, rows)

    async def get(self, name: str) -> Source | None:
        """Return a source, None when the tenant has none with this name."""
        async with self._database.transaction() as connection:
            found = await _sources(connection, await connection.fetch(_SOURCES + "WHERE s.name = $1", name))
        return found[0] if found else None

    async def put(self, source: Source) -> Put:
        """Make or replace a source."""
        document = source._asdict() | {"profile_rules": [rule._asdict() for rule in source.profile_rules]}
        async with self._database.transaction(readonly=False) as connection:
            row = await connection.fetchrow(
                "SELECT outcome, detail FROM sens.put_source($1, $2::text::jsonb, $3, $4, $5)",
                source.name,
                json.dumps(document | {"broker": _stored(source.broker), "created_at": None, "changed_at": None}),
                self._caller.actor,
                self._caller.address,
                self._caller.request_id,
            )
            assert row is not None  # noqa: S101 - for the type checker: it returns one row in any case
            put = Put(*row)
            if put.outcome in {"created", "changed", "unchanged"} and await connection.fetchval(
                "SELECT sens.set_keep_frames($1, $2, $3, $4, $5)",
                source.name,
                source.keep_frames,
                self._caller.actor,
                self._caller.address,
                self._caller.request_id,
            ):
                return put._replace(outcome="changed" if put.outcome == "unchanged" else put.outcome)
        return put

    async def delete(self, name: str) -> str:
        """Delete a source; return ``deleted``, ``unknown``, or ``used``: it is enabled."""
        async with self._database.transaction(readonly=False) as connection:
            outcome: str = await connection.fetchval(
                "SELECT sens.delete_source($1, $2, $3, $4)",
                name,
                self._caller.actor,
                self._caller.address,
                self._caller.request_id,
            )
        return outcome

    async def compiled(self, name: str) -> CompiledSource | None:
        """Return a source as the telemetry worker uses it, None when the tenant has none with this name.

        Raises:
            SettingsError: It can't be used.
        """
        async with self._database.transaction() as connection:
            row = await connection.fetchrow(
                "SELECT id, name, format, settings, registers_devices, radio, default_profile, profile_rules FROM sens.sources WHERE name = $1",
                name,
            )
            if row is None:
                return None
            ids = {rule["profile"] for rule in json.loads(row["profile_rules"])} | {row["default_profile"]}
            profiles = await compiled(connection, ids - {None})
        return stored_source(row, profiles)

    async def profiles_by_hand(self, devices: Collection[str]) -> Mapping[str, Profile]:
        """Return the profiles that some devices were given by hand, by the devices' names."""
        async with self._database.transaction() as connection:
            return await compiled_by_hand(connection, devices)

    async def last_birth(self, source_id: int, publisher: Publisher) -> Birth | None:
        """Return the birth that explains what a publisher of Sparkplug B sends now, None where none has come."""
        device = device_name_of(publisher) if publisher.device else EDGE_NODE
        edge_node = device_name_of(publisher._replace(device=""))
        async with self._database.transaction() as connection:
            rows = await connection.fetch(_ANNOUNCEMENTS, source_id, edge_node, device)
            history = History(Announcement(Origin(*row[1:4]), row[0], *row[4:7]) for row in rows)
            found = history.explaining(device, _NOW)
            if found is None:
                return None
            content = await connection.fetchval(_BIRTH, source_id, edge_node, device, *found.position)
        return msgspec.msgpack.decode(content, type=Birth)


def _stored(broker: Broker | None) -> dict[str, Any] | None:
    """Return what the database has of a broker: the members, and by what brokers and sessions are told apart."""
    if broker is None:
        return None
    return msgspec.structs.asdict(broker) | {"address": str(address_of(broker.url)), "session": broker.client_id or ""}


async def _sources(connection: Connection, rows: list[asyncpg.Record]) -> list[Source]:
    """Return sources, with the names of the profiles in their rules."""
    rules = [json.loads(row["profile_rules"]) for row in rows]
    ids = {rule["profile"] for each in rules for rule in each}
    found = await connection.fetch("SELECT id, name FROM sens.profiles WHERE id = ANY($1)", list(ids))
    names: dict[int, str] = {row["id"]: row["name"] for row in found}
    return [
        Source(
            **{
                **row,
                "settings": json.loads(row["settings"]),
                "profile_rules": [Rule(rule["device"], names[rule["profile"]]) for rule in each],
                "broker": None if row["broker"] is None else msgspec.json.decode(row["broker"], type=Broker),
            }
        )
        for row, each in zip(rows, rules, strict=True)
    ]
