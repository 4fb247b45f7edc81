"""The telemetry worker: ``python -m sens_telemetry_worker``."""

import asyncio

from nats.aio.client import Client

from sens_common.health import Check
from sens_common.jetstream import connect, nats_check
from sens_common.lifecycle import run
from sens_common.operations import Heartbeat, not_started, problem_check, serve_operations
from sens_telemetry_worker.decoders import decoder
from sens_telemetry_worker.flow import Flow
from sens_telemetry_worker.guard import DeadLetterGuard
from sens_telemetry_worker.history import History
from sens_telemetry_worker.jetstream import LogInbox
from sens_telemetry_worker.letters import Quota
from sens_telemetry_worker.live import LivePublisher
from sens_telemetry_worker.moving import Moving
from sens_telemetry_worker.pipeline import Pipeline
from sens_telemetry_worker.routing import Router
from sens_telemetry_worker.settings import TelemetrySettings
from sens_telemetry_worker.timescale.bookkeeping import Bookkeeping
from sens_telemetry_worker.timescale.database import Database, open_pool
from sens_telemetry_worker.timescale.former_letters import FormerLetters
from sens_telemetry_worker.timescale.registry import TimescaleRegistry
from sens_telemetry_worker.timescale.store import TimescaleStore

SERVICE = "telemetry-worker"


async def main(settings: TelemetrySettings, stop: asyncio.Event) -> None:
    """Wire the parts, and work until the stop."""
    payload_format = decoder(settings.decoder)
    batch = settings.batch
    heartbeat = Heartbeat()
    guard = DeadLetterGuard(settings.dead_letters.max_share, settings.dead_letters.window_messages)
    flow = Flow()
    client = Client()
    pool_settings = settings.worker_database().model_copy(update={"pool_size": batch.lanes + 2})
    checks: dict[str, Check] = {
        "nats": nats_check(client),
        "dead_letter_share": problem_check(guard),
        "log": not_started,
    }
    notes: dict[str, Check] = {}
    async with (
        serve_operations(SERVICE, settings.operations, checks, heartbeat, flow.describe, notes=notes),
        open_pool(pool_settings, SERVICE) as pool,
        connect(settings.nats, SERVICE, client=client, stop=stop),
    ):
        jetstream = client.jetstream()
        inbox = LogInbox(client, settings.nats, batch)
        database = Database(pool, pool_settings)
        notes["database_roles"] = database.roles_note
        unknown_tenants = Quota(
            settings.dead_letters.unknown_count_limit, settings.dead_letters.unknown_byte_limit, 0, 0
        )
        store = TimescaleStore(database, unknown_tenants)
        books = Bookkeeping(database, unknown_tenants, guard.expect)
        feed = LivePublisher(client)
        router = Router(TimescaleRegistry(database), payload_format)
        history = History(jetstream, settings.history, flow=flow, guard=guard, remembered=books)
        moving = Moving(jetstream, FormerLetters(database))
        pipeline = Pipeline(inbox, router=router, store=store, feed=feed, guard=guard, flow=flow)
        checks |= {
            "log": problem_check(inbox),
            "database": database.check,
            "store": pipeline.problems.check,
            "lanes": flow.check,
            "streams": problem_check(history),
        }
        async with inbox.open(), feed.open(), asyncio.TaskGroup() as tasks:
            background = [
                tasks.create_task(store.keep_partitions_ahead(), name="partitions ahead"),
                tasks.create_task(history.keep_trimmed(), name="trim the log"),
                tasks.create_task(books.keep(settings.history.trim_interval_seconds), name="keep the books"),
                tasks.create_task(moving.keep_moving(), name="move the dead letters of before"),
            ]
            lanes = [tasks.create_task(pipeline.run(stop), name=f"lane {number}") for number in range(batch.lanes)]
            await asyncio.gather(*lanes)
            for task in background:
                task.cancel()


if __name__ == "__main__":
    run(SERVICE, TelemetrySettings, main)
