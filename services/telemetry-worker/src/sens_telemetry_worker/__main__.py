"""The telemetry worker: ``python -m sens_telemetry_worker``."""

import asyncio

from nats.aio.client import Client

from sens_common.health import Check, Problems
from sens_common.jetstream import connect, nats_check
from sens_common.lifecycle import run
from sens_common.operations import Heartbeat, serve_operations
from sens_common.readiness import not_started
from sens_payloads.codecs.javascript import JavascriptCodecs
from sens_payloads.codecs.sandbox.sandboxes import Sandbox
from sens_payloads.frame_decoding import Codecs
from sens_telemetry_worker.batch_building import BatchBuilder
from sens_telemetry_worker.birth_reading import BirthReader
from sens_telemetry_worker.codec_runs.runner import CodecRunner
from sens_telemetry_worker.counted_codecs import CountedCodecs, note_end
from sens_telemetry_worker.decoders import decoder
from sens_telemetry_worker.earlier_envelopes import UnsettledAnnouncements
from sens_telemetry_worker.guard import DeadLetterGuard
from sens_telemetry_worker.jetstream.dead_letter_migration import DeadLetterMigration
from sens_telemetry_worker.jetstream.history import StreamHistory
from sens_telemetry_worker.jetstream.inbox import StreamInbox
from sens_telemetry_worker.jetstream.past_consumer import StreamPastConsumer
from sens_telemetry_worker.jetstream.trimming import StreamTrimmer
from sens_telemetry_worker.letters import Quota
from sens_telemetry_worker.live import LivePublisher
from sens_telemetry_worker.nats_live import NatsLiveFeed
from sens_telemetry_worker.pipeline import Pipeline
from sens_telemetry_worker.settings import TelemetrySettings
from sens_telemetry_worker.status import TelemetryStatus
from sens_telemetry_worker.timescale.birth_reading import TimescaleBirths
from sens_telemetry_worker.timescale.bookkeeping import Bookkeeping
from sens_telemetry_worker.timescale.codec_runs import StoredRuns
from sens_telemetry_worker.timescale.database import Database, open_pool
from sens_telemetry_worker.timescale.explained_letters import ExplainedLetters
from sens_telemetry_worker.timescale.migrated_letters import MigratedLetters
from sens_telemetry_worker.timescale.redecoding import Redecoder
from sens_telemetry_worker.timescale.registry import TimescaleRegistry
from sens_telemetry_worker.timescale.rollups import RollupRefresher
from sens_telemetry_worker.timescale.store import TimescaleStore
from sens_telemetry_worker.timescale.unsettled import UnsettledEnvelopes

SERVICE = "telemetry-worker"


async def main(settings: TelemetrySettings, stop: asyncio.Event) -> None:
    """Wire the parts, and work until the stop."""
    payload_format = decoder(settings.decoder)
    batch = settings.batch
    letters = settings.dead_letters
    guard = DeadLetterGuard(letters.max_share, letters.window_messages)
    status = TelemetryStatus()
    background = Problems("background")
    client = Client()
    pool_settings = settings.worker_database().model_copy(update={"pool_size": batch.lanes + 3})
    guard.export_metrics()
    status.export_metrics()
    checks: dict[str, Check] = {
        "nats": nats_check(client),
        "dead_letter_share": guard.problems.check,
        "stream": not_started,
    }
    notes: dict[str, Check] = {"background": background.check}
    async with (
        serve_operations(SERVICE, settings.operations, checks, Heartbeat(), status.describe, notes=notes),
        open_pool(pool_settings, SERVICE) as pool,
        connect(settings.nats, SERVICE, client=client, stop=stop),
        Sandbox(
            allow_without_seccomp=settings.codecs.allow_without_seccomp,
            max_children=settings.codecs.max_processes,
            note_end=note_end,
        ) as sandbox,
    ):
        jetstream = client.jetstream()
        database = Database(pool, pool_settings)
        unknown_tenants = Quota(letters.unknown_count_limit, letters.unknown_byte_limit, 0, 0)
        inbox = StreamInbox(client, settings.nats, batch)
        store = TimescaleStore(database, unknown_tenants)
        books = Bookkeeping(database, unknown_tenants, guard.expect)
        trimmer = StreamTrimmer(jetstream, settings.history, status=status, guard=guard, settled=books)
        migration = DeadLetterMigration(jetstream, MigratedLetters(database))
        rollups = RollupRefresher(database, settings.rollups, status)
        feed = NatsLiveFeed(client)
        stream = StreamPastConsumer(client)
        explained = ExplainedLetters(database, stream)
        earlier = UnsettledAnnouncements(UnsettledEnvelopes(database, stream), stream)
        registry, codecs = TimescaleRegistry(database), Codecs(CountedCodecs(JavascriptCodecs(sandbox)))
        redecoder = Redecoder(database, store.partitions)
        runner = CodecRunner(StoredRuns(database), redecoder, StreamHistory(jetstream), registry, codecs)
        births = BirthReader(TimescaleBirths(database), earlier)
        pipeline = Pipeline(
            inbox,
            builder=BatchBuilder(registry, payload_format, codecs, births),
            guard=guard,
            store=store,
            live=LivePublisher(feed, payload_format),
            status=status,
        )
        notes |= {"accounts": books.problems.check, "database_roles": database.roles_note}
        async with inbox.open(), feed.open(), asyncio.TaskGroup() as tasks:
            checks |= {
                "stream": inbox.problems.check,
                "database": database.check,
                "earlier_measurements": store.former_rows.check,
                "store": pipeline.problems.check,
                "lanes": status.check,
                "stream_limits": trimmer.problems.check,
            }
            keepers = [
                tasks.create_task(store.partitions.keep_ahead(background), name="partitions ahead"),
                tasks.create_task(trimmer.keep_trimmed(background), name="trim the stream"),
                tasks.create_task(books.keep(settings.history.trim_interval_seconds), name="keep the books"),
                tasks.create_task(rollups.keep_refreshed(background), name="refresh the rollups"),
                tasks.create_task(explained.keep_replaying(background), name="replay explained letters"),
                tasks.create_task(migration.keep_migrating(background), name="migrate former dead letters"),
                tasks.create_task(runner.keep_running(background), name="decode again"),
            ]
            lanes = [tasks.create_task(pipeline.run(stop), name=f"lane {index}") for index in range(batch.lanes)]
            await asyncio.gather(*lanes)
            for keeper in keepers:
                keeper.cancel()


if __name__ == "__main__":
    run(SERVICE, TelemetrySettings, main)
