"""The telemetry worker: ``python -m sens_telemetry_worker``."""

import asyncio

from nats.aio.client import Client

from sens_common.jetstream import connect, nats_check
from sens_common.lifecycle import run
from sens_common.operations import Check, Heartbeat, not_started, problem_check, serve_operations
from sens_telemetry_worker.decoders import decoder
from sens_telemetry_worker.flow import Flow
from sens_telemetry_worker.guard import DeadLetterGuard
from sens_telemetry_worker.history import History
from sens_telemetry_worker.jetstream import DeadLetterStream, LogInbox
from sens_telemetry_worker.live import LivePublisher
from sens_telemetry_worker.pipeline import Pipeline
from sens_telemetry_worker.routing import Router
from sens_telemetry_worker.settings import TelemetrySettings
from sens_telemetry_worker.timescale.database import Database, open_pool
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
        store = TimescaleStore(database)
        dead_letters = DeadLetterStream(client)
        feed = LivePublisher(client)
        router = Router(TimescaleRegistry(database), payload_format)
        history = History(jetstream, settings.history, flow, guard)
        pipeline = Pipeline(
            inbox, router=router, store=store, dead_letters=dead_letters, feed=feed, guard=guard, flow=flow
        )
        checks |= {
            "log": problem_check(inbox),
            "database": database.check,
            "store": pipeline.problems.check,
            "dead_letters": problem_check(dead_letters),
            "lanes": flow.check,
            "streams": problem_check(history),
        }
        async with inbox.open(), feed.open(), asyncio.TaskGroup() as tasks:
            background = [
                tasks.create_task(store.keep_partitions_ahead(), name="partitions ahead"),
                tasks.create_task(history.keep_trimmed(), name="trim the log"),
            ]
            lanes = [tasks.create_task(pipeline.run(stop), name=f"lane {number}") for number in range(batch.lanes)]
            await asyncio.gather(*lanes)
            for task in background:
                task.cancel()


if __name__ == "__main__":
    run(SERVICE, TelemetrySettings, main)
