"""A telemetry worker that stores and decodes again, with a stream in memory."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

import asyncpg

from sens_common.database import connect
from sens_common.dead_letters import Origin
from sens_common.envelope import Message
from sens_common.settings import DatabaseSettings
from sens_common.topics import SOURCES
from sens_payloads.codecs.javascript import JavascriptCodecs
from sens_payloads.codecs.sandbox.sandboxes import Sandbox
from sens_payloads.frame_decoding import Codecs
from sens_payloads.frames import FrameDecoder
from sens_telemetry_worker.batch_building import BatchBuilder
from sens_telemetry_worker.codec_runs.runner import CodecRunner
from sens_telemetry_worker.codec_runs.runs import StreamMessage, StreamState, microseconds, moment
from sens_telemetry_worker.decoders import decoder
from sens_telemetry_worker.guard import DeadLetterGuard
from sens_telemetry_worker.timescale.codec_runs import StoredRuns
from sens_telemetry_worker.timescale.database import Database, open_pool
from sens_telemetry_worker.timescale.redecoding import Redecoder
from sens_telemetry_worker.timescale.registry import REFRESH_SECONDS, TimescaleRegistry
from sens_telemetry_worker.timescale.store import TimescaleStore
from support.memory import MemoryEnvelope, MemoryInbox
from support.parts import NO_QUOTA
from support.pipelines import pipeline_of
from support.rollups import refresh_up_to

EUI: Final = "70b3d57ed0a1b2c3"
HOUR: Final = 3_600_000_000
STREAM: Final = 1_700_000_000_000_000
"""When the stream was made."""
NOW: Final = int(time.time()) // 3600 * HOUR - 6 * HOUR
"""A whole hour of today or yesterday: what is kept may not be old."""
CODEC: Final = "INSERT INTO sens.codecs (tenant_id, name) SELECT id, 'own' FROM sens.tenants WHERE name = 'demo'"


def version(number: int, body: str) -> str:
    """Return the statement that adds a version; its body is that of `decodeUplink`, and has `b`, the bytes."""
    source = f"function decodeUplink(input) {{ var b = input.bytes; {body} }}"
    return f"""
        INSERT INTO sens.codec_versions (codec_id, number, source, sha256, examples, created_by)
        SELECT id, {number}, $c${source}$c$, sha256(convert_to($c${source}$c$, 'UTF8')), '[]', 'somebody' FROM sens.codecs WHERE name = 'own'
    """  # noqa: S608 - constants of tests


class MemoryStream:
    """The stream, as `codec_runs.runner.Stream`."""

    def __init__(self) -> None:
        self.envelopes: dict[int, list[Message]] = {}
        self.settled = 0
        self.first = 1

    async def state(self) -> StreamState:
        return StreamState(STREAM, self.first, max(self.envelopes, default=0), self.settled)

    async def first_since(self, _at: int, state: StreamState) -> int:
        return state.first

    async def messages(self, first: int, past: int, created_at: int) -> list[StreamMessage]:
        return [
            StreamMessage(Origin(created_at, sequence, index), message)
            for sequence in range(max(first, self.first), past)
            for index, message in enumerate(self.envelopes.get(sequence, ()))
        ]


class RedecodingWorker:
    """What a telemetry worker does with envelopes and runs."""

    def __init__(self, settings: DatabaseSettings, database: Database, frames: FrameDecoder) -> None:
        self.settings = settings
        self.now = 0.0
        self.stream = MemoryStream()
        registry = TimescaleRegistry(database, clock=lambda: self.now)
        self.builder = BatchBuilder(registry, decoder("native"), frames)
        self.store = TimescaleStore(database, NO_QUOTA)
        self.redecoder = Redecoder(database, self.store.partitions)
        self.runner = CodecRunner(StoredRuns(database), self.redecoder, self.stream, registry, frames)

    async def execute(self, *statements: str) -> None:
        """Change something, and let the time pass until it is known."""
        owner = await connect(self.settings, "test")
        try:
            for statement in statements:
                await owner.execute(statement)
        finally:
            await owner.close()
        self.now += REFRESH_SECONDS

    async def fetch(self, query: str, *arguments: object) -> list[tuple[Any, ...]]:
        owner = await connect(self.settings, "test")
        try:
            return [tuple(row) for row in await owner.fetch(query, *arguments)]
        finally:
            await owner.close()

    async def settle(self, *frames: Mapping[int, str], device: str = EUI, settled: bool = True) -> None:
        """Store an envelope of messages; each has the devices' bytes by the minutes after `NOW`."""
        messages = [
            Message(
                SOURCES.topic("demo", "field", "netmore/up"),
                uplinks(frame, device),
                NOW + min(frame) * 60_000_000 + 1_000_000 + index,
            )
            for index, frame in enumerate(frames)
        ]
        await self.settle_messages(messages, settled=settled)

    async def settle_messages(self, messages: list[Message], *, settled: bool = True) -> None:
        """Store an envelope."""
        sequence = max(self.stream.envelopes, default=0) + 1
        self.stream.envelopes[sequence] = messages
        if settled:
            await self.store_envelope(sequence)
            self.stream.settled = sequence

    async def store_envelope(self, sequence: int) -> None:
        """Store what the stream has."""
        stop = asyncio.Event()
        inbox = MemoryInbox([[MemoryEnvelope(sequence, self.stream.envelopes[sequence], stream=STREAM)]], stop)
        await pipeline_of(inbox, builder=self.builder, store=self.store, guard=DeadLetterGuard(1, 1)).run(stop)

    async def begin(self, number: int, kind: str = "redecode", **document: object) -> int:
        """Begin a run over the hours since `NOW`; return its id."""
        whole = {
            "kind": kind,
            "device": EUI,
            "first": "2020-01-01T00:00:00Z",
            "past": "2100-01-01T00:00:00Z",
            "codec": "own",
            "number": number,
        } | document
        owner = await connect(self.settings, "test")
        try:
            async with owner.transaction():
                await owner.execute(
                    "SELECT set_config('sens.tenant_id', (SELECT id::text FROM sens.tenants WHERE name = 'demo'), true)"
                )
                row = await owner.fetchrow(
                    "SELECT * FROM sens.begin_codec_run($1::text::jsonb, 'somebody', NULL, NULL)",
                    json.dumps(whole),
                )
        finally:
            await owner.close()
        assert row is not None
        assert row["outcome"] == "begun"
        run: int = row["run"]
        return run

    async def as_tenant(self, query: str, *arguments: object) -> object:
        """Ask for something in the name of the tenant, again while it has to wait: it may delete a name every 0.2 s."""
        owner = await connect(self.settings, "test")
        try:
            while True:
                with contextlib.suppress(asyncpg.LockNotAvailableError):
                    async with owner.transaction():
                        await owner.execute(
                            "SELECT set_config('sens.tenant_id', (SELECT id::text FROM sens.tenants WHERE name = 'demo'), true)"
                        )
                        return await owner.fetchval(query, *arguments)
        finally:
            await owner.close()

    async def delete(self, first: int, past: int) -> None:
        """Delete readings from a minute after `NOW` on and before another."""
        times = (f"to_timestamp({NOW // 1_000_000 + 60 * minute})" for minute in (first, past))
        await self.as_tenant(f"SELECT sens.delete_range('{EUI}', NULL, {', '.join(times)}, 'somebody', NULL, NULL)")
        await self.finish_deletions()

    async def delete_metric(self, metric: str, first: int | None = None, past: int = 0) -> None:
        """Delete a metric as a whole, or the device's values of it from a minute after `NOW` on and before another."""
        if first is None:
            await self.as_tenant(f"SELECT sens.delete_metric('{metric}', NULL, 'somebody', NULL, NULL)")
        else:
            times = (f"to_timestamp({NOW // 1_000_000 + 60 * minute})" for minute in (first, past))
            await self.as_tenant(
                f"SELECT sens.delete_range('{EUI}', '{metric}', {', '.join(times)}, 'somebody', NULL, NULL)"
            )
        await self.finish_deletions()

    async def delete_device(self) -> None:
        """Delete the device, and all that is stored of it."""
        await self.as_tenant(f"SELECT sens.delete_device('{EUI}', 'somebody', NULL, NULL)")
        await self.finish_deletions()

    async def finish_deletions(self) -> None:
        """Do what was asked to be deleted, and let the time pass until it is known."""
        while await self.fetch("SELECT * FROM sens.continue_deletion(1000)"):
            pass
        self.now += REFRESH_SECONDS

    async def refresh_rollups(self) -> None:
        """Bring everything before the end of the day after `NOW` into the rollups."""
        owner = await connect(self.settings, "test")
        try:
            await refresh_up_to(owner, moment(NOW + 5 * HOUR))
        finally:
            await owner.close()

    async def replay_letters(self) -> None:
        """Replay all dead letters, as the API does."""
        rows = await self.fetch(
            "SELECT topic, payload, received_at, stream, sequence, number, replays FROM sens.dead_letters ORDER BY id"
        )
        sequence = max(self.stream.envelopes, default=0) + 1
        messages = [Message(topic, payload, microseconds(at)) for topic, payload, at, *_ in rows]
        origins = [Origin(*row[3:6]) for row in rows]
        self.stream.envelopes[sequence] = messages
        stop = asyncio.Event()
        envelope = MemoryEnvelope(sequence, messages, stream=STREAM, replays=rows[0][6] + 1, origins=origins)
        await pipeline_of(
            MemoryInbox([[envelope]], stop), builder=self.builder, store=self.store, guard=DeadLetterGuard(1, 1)
        ).run(stop)
        self.stream.settled = sequence
        await self.execute(f"DELETE FROM sens.dead_letters WHERE replays = {rows[0][6]}")  # noqa: S608 - a number

    async def run(self, number: int, kind: str = "redecode", **document: object) -> dict[str, Any]:
        """Do a run; return its report."""
        run = await self.begin(number, kind, **document)
        while await self.runner.step():
            pass
        return await self.report(run)

    async def report(self, run: int) -> dict[str, Any]:
        """Return the report of a run, with its outcome and failure."""
        ((report, outcome, failure),) = await self.fetch(
            "SELECT report::text, outcome, failure FROM sens.codec_runs WHERE id = $1", run
        )
        document: dict[str, Any] = json.loads(report) | {"outcome": outcome, "failure": failure}
        return document

    async def values(self) -> dict[tuple[str, int, str], float | str]:
        """Return what is stored, by device, minutes after `NOW`, and metric."""
        rows = await self.fetch(
            "SELECT d.name, (extract(epoch FROM r.ts) * 1000000)::bigint, m.name, v.number, v.string"
            " FROM sens.readings r JOIN sens.metric_sets s ON s.id = r.metric_set_id JOIN sens.devices d ON d.id = r.device_id"
            " CROSS JOIN LATERAL (SELECT * FROM unnest(s.number_ids, r.numbers) AS n (metric, number), LATERAL (SELECT NULL::text AS string) x"
            " UNION ALL SELECT t.metric, NULL, t.string FROM unnest(s.text_ids, r.texts) AS t (metric, string)) v"
            " JOIN sens.metrics m ON m.id = v.metric WHERE num_nonnulls(v.number, v.string) > 0"
        )
        return {
            (device, (ts - NOW) // 60_000_000, metric): number if string is None else string
            for device, ts, metric, number, string in rows
        }


def uplinks(frame: Mapping[int, str], device: str = EUI) -> bytes:
    """Return a message of Netmore with the device's bytes by the minutes after `NOW`."""
    return json.dumps(
        [
            {"devEui": device, "timestamp": _time(minute), "payload": payload, "fPort": "2"}
            for minute, payload in frame.items()
        ]
    ).encode()


def message_of(frames: Mapping[str, str]) -> Message:
    """Return a message with the bytes of several devices, at `NOW`."""
    body = [
        {"devEui": device, "timestamp": _time(0), "payload": payload, "fPort": "2"}
        for device, payload in frames.items()
    ]
    return Message(SOURCES.topic("demo", "field", "netmore/up"), json.dumps(body).encode(), NOW + 1_000_000)


def _time(minute: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S.000000Z", time.gmtime(NOW // 1_000_000 + 60 * minute))


SOURCE: Final = """
    INSERT INTO sens.sources (tenant_id, name, transport, topic_filter, format, default_profile, keep_frames)
    SELECT tenant_id, 'field', 'mqtt', 'netmore/#', 'netmore', id, 30 FROM sens.profiles
"""
PROFILE: Final = """
    INSERT INTO sens.profiles (tenant_id, name, codec_id, codec_version) SELECT tenant_id, 'climate', id, 1 FROM sens.codecs WHERE name = 'own'
"""


@asynccontextmanager
async def redecoding_worker(
    settings: DatabaseSettings, *versions: str, frames: FrameDecoder | None = None
) -> AsyncIterator[RedecodingWorker]:
    """Give a worker with a tenant, a codec with versions, and a source that keeps its messages; its profile names the first version."""
    async with open_pool(settings, "test") as pool, Sandbox() as sandbox:
        it = RedecodingWorker(settings, Database(pool, settings), frames or Codecs(JavascriptCodecs(sandbox)))
        await it.execute("INSERT INTO sens.tenants (name) VALUES ('demo')", CODEC)
        await it.execute(*(version(index, body) for index, body in enumerate(versions, start=1)), PROFILE, SOURCE)
        yield it
