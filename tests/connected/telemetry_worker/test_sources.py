"""Sources as the database has them: read by the worker, changed under it, and counted like everything else."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sens_common.database import connect
from sens_common.envelope import Message
from sens_common.settings import DatabaseSettings
from sens_common.topics import SOURCES
from sens_payloads.codecs.javascript import JavascriptCodecs
from sens_payloads.codecs.sandbox.sandboxes import Sandbox
from sens_payloads.frame_decoding import Codecs
from sens_telemetry_worker.batch_building import BatchBuilder
from sens_telemetry_worker.decoders import decoder
from sens_telemetry_worker.guard import DeadLetterGuard
from sens_telemetry_worker.timescale.database import Database, open_pool
from sens_telemetry_worker.timescale.registry import REFRESH_SECONDS, TimescaleRegistry
from sens_telemetry_worker.timescale.store import TimescaleStore
from support.memory import MemoryEnvelope, MemoryInbox
from support.parts import NO_QUOTA
from support.pipelines import pipeline_of

NOW = 1_788_508_809_000_000  # 2026-09-04T08:00:09Z
EUI = "70b3d57ed0a1b2c3"
SOURCE = "INSERT INTO sens.sources (tenant_id, name, transport, topic_filter, format) SELECT id, 'field', 'mqtt', 'netmore/#', 'netmore' FROM sens.tenants"
PROFILE = """
    INSERT INTO sens.profiles (tenant_id, name, builtin_codec, metrics)
    SELECT id, 'climate', 'cayenne_lpp', '{"temperature_3": {"name": "temperature", "unit": "Cel"}}' FROM sens.tenants
"""
RULE = """
    UPDATE sens.sources s SET profile_rules = jsonb_build_array(jsonb_build_object('device', '70b3*', 'profile', p.id)) FROM sens.profiles p
"""

ERASURE = f"""
    INSERT INTO sens.erasures (tenant_id, device_hash, erased_at, deletion_id)
    SELECT id, sha256('{EUI}'), to_timestamp({NOW // 1_000_000 + 60}), 1 FROM sens.tenants
"""  # noqa: S608 - constants

CODEC = """
    INSERT INTO sens.codec_versions (codec_id, number, source, sha256, examples, created_by)
    SELECT id, 1, source, sha256(convert_to(source, 'UTF8')), '[]', 'somebody'
    FROM sens.codecs, (VALUES ($$function decodeUplink(input) {
        if (input.bytes[0] == 255) { return nothing.there; }
        return {data: {n: input.bytes[0] + input.fPort}};
    }$$)) AS code (source)
"""


def uplink(second: int, payload: str = "03670110056700ff") -> bytes:
    """Return a message of Netmore with a frame in Cayenne LPP: 27.2 and 25.5 °C."""
    time = f"2026-09-04T08:00:{second:02d}.000000Z"
    return json.dumps([{"devEui": EUI, "timestamp": time, "payload": payload, "fPort": "2", "rssi": "-73"}]).encode()


class Worker:
    """What a telemetry worker does with envelopes, and what the database says then."""

    def __init__(self, settings: DatabaseSettings, database: Database, sandbox: Sandbox) -> None:
        self.settings = settings
        self.now = 0.0
        registry = TimescaleRegistry(database, clock=lambda: self.now)
        self.builder = BatchBuilder(registry, decoder("native"), Codecs(JavascriptCodecs(sandbox)))
        self.store = TimescaleStore(database, NO_QUOTA)
        self.sequence = 0

    async def execute(self, *statements: str) -> None:
        """Change something, and let the time pass until it is known."""
        owner = await connect(self.settings, "test")
        try:
            for statement in statements:
                await owner.execute(statement)
        finally:
            await owner.close()
        self.now += REFRESH_SECONDS

    async def fetch(self, query: str) -> list[tuple[object, ...]]:
        owner = await connect(self.settings, "test")
        try:
            return [tuple(row) for row in await owner.fetch(query)]
        finally:
            await owner.close()

    async def settle(self, *bodies: bytes, source: str = "field") -> None:
        """Settle one envelope of messages from a source."""
        stop = asyncio.Event()
        self.sequence += 1
        messages = [
            Message(SOURCES.topic("demo", source, "netmore/up"), body, NOW + index) for index, body in enumerate(bodies)
        ]
        inbox = MemoryInbox([[MemoryEnvelope(self.sequence, messages)]], stop)
        await pipeline_of(inbox, builder=self.builder, store=self.store, guard=DeadLetterGuard(1, 1)).run(stop)

    async def values(self) -> list[tuple[object, ...]]:
        return await self.fetch(
            "SELECT d.name, m.name, v.value FROM sens.readings r JOIN sens.metric_sets s ON s.id = r.metric_set_id"
            " JOIN sens.devices d ON d.id = r.device_id, unnest(s.number_ids, r.numbers) AS v (metric, value)"
            " JOIN sens.metrics m ON m.id = v.metric ORDER BY 1, 2"
        )

    async def letters(self) -> list[tuple[object, ...]]:
        return await self.fetch(
            "SELECT reason, device, topic, tenant_id IS NOT NULL FROM sens.dead_letters ORDER BY id"
        )


@asynccontextmanager
async def worker(settings: DatabaseSettings) -> AsyncIterator[Worker]:
    async with open_pool(settings, "test") as pool, Sandbox() as sandbox:
        it = Worker(settings, Database(pool, settings), sandbox)
        await it.execute("INSERT INTO sens.tenants (name) VALUES ('demo')", SOURCE)
        yield it


class TestSource:
    async def test_gives_a_frame_to_the_codec_of_its_profile(self, database: DatabaseSettings) -> None:
        async with worker(database) as it:
            await it.execute(PROFILE, RULE)

            await it.settle(uplink(1))

            assert await it.values() == [(EUI, "temperature", 27.2), (EUI, "temperature_5", 25.5)]

    async def test_knows_within_seconds_what_was_changed(self, database: DatabaseSettings) -> None:
        async with worker(database) as it:
            await it.settle(uplink(1))
            before = await it.letters()
            await it.execute(PROFILE, RULE, "UPDATE sens.sources SET radio = true")
            await it.settle(uplink(1))

            assert before == [("no_codec", EUI, "ingest/v1/demo/field/netmore/up", True)]
            assert await it.values() == [
                (EUI, "lorawan.rssi", -73),
                (EUI, "temperature", 27.2),
                (EUI, "temperature_5", 25.5),
            ]

    async def test_that_is_new_is_known_with_its_first_message(self, database: DatabaseSettings) -> None:
        async with worker(database) as it:
            await it.settle(uplink(1))
            await it.execute(PROFILE, SOURCE.replace("field", "new").replace("netmore/#", "other/#"), RULE)
            it.now -= REFRESH_SECONDS

            await it.settle(uplink(2), source="new")

            assert await it.values() == [(EUI, "temperature", 27.2), (EUI, "temperature_5", 25.5)]

    async def test_that_is_deleted_or_can_not_be_used_leaves_dead_letters(self, database: DatabaseSettings) -> None:
        async with worker(database) as it:
            await it.execute("UPDATE sens.sources SET format = 'of_tomorrow'")
            await it.settle(uplink(1))
            await it.execute("DELETE FROM sens.sources")
            await it.settle(uplink(2))

            assert [letter[0] for letter in await it.letters()] == ["unknown_source", "unknown_source"]

    async def test_counts_what_carries_no_measurements_apart(self, database: DatabaseSettings) -> None:
        async with worker(database) as it:
            await it.execute(PROFILE, RULE)

            await it.settle(uplink(1), uplink(1), uplink(2, ""), b"[]", uplink(3, "0367"))
            counts = await it.fetch(
                "SELECT received, stored, duplicate, without_measurements, dead_lettered, unaccounted FROM sens.conservation()"
            )

            assert counts == [(5, 1, 1, 1, 2, 0)]

    async def test_says_which_value_of_a_metric_conflicts(self, database: DatabaseSettings) -> None:
        async with worker(database) as it:
            await it.execute(PROFILE, RULE)

            await it.settle(uplink(1))
            await it.settle(uplink(1, "03670111"))
            details = await it.fetch("SELECT reason, detail FROM sens.dead_letters")

            assert [reason for reason, _ in details] == ["conflicting_value"]
            assert "'temperature' is already stored as 27.2" in str(details[0][1])


class TestDevice:
    async def test_chosen_by_hand_has_that_profile(self, database: DatabaseSettings) -> None:
        async with worker(database) as it:
            await it.execute(
                PROFILE,
                f"INSERT INTO sens.devices (tenant_id, name) SELECT id, '{EUI}' FROM sens.tenants",  # noqa: S608 - a constant
                "INSERT INTO sens.device_profiles SELECT d.id, p.id FROM sens.devices d, sens.profiles p",
            )

            await it.settle(uplink(1))

            assert (EUI, "temperature", 27.2) in await it.values()

    async def test_has_the_source_that_named_it_last(self, database: DatabaseSettings) -> None:
        async with worker(database) as it:
            await it.execute(PROFILE, RULE)
            noted = "SELECT d.name, s.name FROM sens.device_sources JOIN sens.devices d ON d.id = device_id JOIN sens.sources s ON s.id = source_id"
            await it.settle(uplink(1))
            assert await it.fetch(noted) == [(EUI, "field")]

            await it.execute(SOURCE.replace("'field'", "'other'").replace("netmore/#", "other/#"), RULE)
            await it.settle(uplink(2), source="other")
            assert await it.fetch(noted) == [(EUI, "other")]

    async def test_that_was_erased_gets_nothing_of_before(self, database: DatabaseSettings) -> None:
        async with worker(database) as it:
            await it.execute(PROFILE, RULE)
            await it.settle(uplink(1))
            await it.execute(
                ERASURE,
                "DELETE FROM sens.readings",
                "DELETE FROM sens.devices",
                "UPDATE sens.name_generation SET generation = generation + 1",
            )
            await it.settle(uplink(2))

            assert await it.values() == []
            assert await it.letters() == []


class TestCodecOfATenant:
    async def test_decodes_frames_and_leaves_dead_letters_of_its_mistakes(self, database: DatabaseSettings) -> None:
        async with worker(database) as it:
            await it.execute(
                "INSERT INTO sens.codecs (tenant_id, name) SELECT id, 'mine' FROM sens.tenants",
                CODEC,
                "INSERT INTO sens.profiles (tenant_id, name, codec_id, codec_version) SELECT tenant_id, 'mine', id, 1 FROM sens.codecs",
                RULE,
            )

            await it.settle(uplink(1, "05"), uplink(2, "ff"), uplink(3, "06"))
            details = await it.fetch("SELECT reason, detail FROM sens.dead_letters")

            assert sorted(await it.values()) == [(EUI, "n", 7.0), (EUI, "n", 8.0)]
            assert [reason for reason, _ in details] == ["codec_error"]
            assert "line 2" in str(details[0][1])


class TestVersionOfACodec:
    async def test_is_never_changed(self, database: DatabaseSettings) -> None:
        async with worker(database) as it:
            await it.execute(
                "INSERT INTO sens.codecs (tenant_id, name) SELECT id, 'mine' FROM sens.tenants",
                "INSERT INTO sens.codec_versions (codec_id, number, source, sha256, examples, created_by)"
                " SELECT id, 1, '…', sha256('…'), '[]', 'somebody' FROM sens.codecs",
            )
            try:
                await it.execute("UPDATE sens.codec_versions SET source = 'other'")
            except Exception as error:  # noqa: BLE001 - its words are what is asked for
                refusal = str(error)

            assert refusal == "a version of a codec is never changed; make another version"
