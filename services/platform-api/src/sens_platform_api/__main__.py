"""The API: ``python -m sens_platform_api``."""

import asyncio
from functools import partial

from nats.aio.client import Client

from sens_common.connections import ConnectionLimits
from sens_common.health import Check, Problems
from sens_common.jetstream import connect, nats_check, nats_note
from sens_common.lifecycle import run
from sens_common.operations import Heartbeat, Operations, serve
from sens_payloads.codecs.javascript import JavascriptCodecs
from sens_payloads.codecs.sandbox.sandboxes import Sandbox
from sens_payloads.frame_decoding import Codecs
from sens_platform_api.app import create_app
from sens_platform_api.codecs.checking import SandboxCheck
from sens_platform_api.codecs.endpoints import CHECK
from sens_platform_api.current_caller import POOL
from sens_platform_api.dead_letters.endpoints import STREAM
from sens_platform_api.dead_letters.jetstream import TelemetryStream
from sens_platform_api.erasures.endpoints import CONTROL, ERASURE
from sens_platform_api.erasures.jetstream import ControlStream
from sens_platform_api.erasures.repository import StoredControl
from sens_platform_api.erasures.service import keep_applying
from sens_platform_api.imports.endpoints import IMPORTS, PACE
from sens_platform_api.imports.jetstream import ImportStream
from sens_platform_api.imports.pace import Pace
from sens_platform_api.keys.authenticator import Authenticator
from sens_platform_api.keys.repository import StoredKeys
from sens_platform_api.live.endpoints import KEYS, LIVE
from sens_platform_api.live.nats import NatsLive
from sens_platform_api.live.repository import DatabaseMeanings
from sens_platform_api.measurements.endpoints import ANSWERS, TABLES
from sens_platform_api.middleware.authentication import Gate
from sens_platform_api.operations.endpoints import OPERATIONS, SERVICE
from sens_platform_api.operations.repository import database_problem, roles_note, schema_problem
from sens_platform_api.operations.service import public_readiness
from sens_platform_api.postgresql import open_pools
from sens_platform_api.registry.repository import StoredDeletions
from sens_platform_api.registry.service import keep_deleting
from sens_platform_api.retention.repository import StoredExpiry
from sens_platform_api.retention.service import keep_expiring, keep_expiring_frames, keep_measuring, keep_observing
from sens_platform_api.settings import ApiSettings
from sens_platform_api.sources.endpoints import FRAMES, STATES
from sens_platform_api.sources.jetstream import SourceStates
from sens_platform_api.sql_logins.repository import StoredSessions
from sens_platform_api.sql_logins.service import keep_ending
from sens_platform_api.streaming import AnswerCounter
from sens_platform_api.tenants.jetstream import LimitsBucket
from sens_platform_api.tenants.repository import IngestionLimits
from sens_platform_api.tenants.service import keep_telling_limits


async def main(settings: ApiSettings, stop: asyncio.Event) -> None:
    """Wire the parts, and serve until the stop."""
    limits, client, heartbeat = settings.limits, Client(), Heartbeat()
    background = Problems("background")
    sandbox = Sandbox(
        allow_without_seccomp=settings.codecs.allow_without_seccomp, max_children=settings.codecs.max_processes
    )
    async with open_pools(settings.api_database(), SERVICE, limits) as (pool, key_pool), sandbox:
        keys = Authenticator(StoredKeys(key_pool))
        live = NatsLive(client, limits, DatabaseMeanings(pool))
        checks: dict[str, Check] = {
            "database": partial(database_problem, key_pool),
            "schema": partial(schema_problem, key_pool),
            "nats": nats_check(client),
        }
        notes: dict[str, Check] = {"database_roles": partial(roles_note, key_pool), "nats": nats_note(client)}
        readiness = public_readiness(checks, partial=frozenset({"nats"}), notes=notes)
        parts = [
            POOL.provided(pool),
            KEYS.provided(keys),
            STREAM.provided(TelemetryStream(client)),
            IMPORTS.provided(ImportStream(client)),
            PACE.provided(Pace(limits.import_lines_per_second)),
            CONTROL.provided(control := ControlStream(client, settings.nats.replicas)),
            ERASURE.provided(settings.erasure),
            CHECK.provided(SandboxCheck(sandbox)),
            FRAMES.provided(Codecs(JavascriptCodecs(sandbox))),
            STATES.provided(SourceStates(client)),
            LIVE.provided(live),
            ANSWERS.provided(AnswerCounter(limits.answers, limits.answers_per_tenant)),
            TABLES.provided(AnswerCounter(limits.tables, limits.tables_per_tenant)),
            OPERATIONS.provided(Operations(SERVICE, readiness, heartbeat)),
        ]
        app = create_app(Gate(keys, limits), parts, settings)
        async with (
            serve(
                app,
                settings.http.host,
                settings.http.port,
                graceful_seconds=3,
                trusted_proxies=settings.http.trusted_proxies,
                limits=ConnectionLimits(limits.connections, limits.header_seconds),
            ),
            asyncio.TaskGroup() as tasks,
        ):
            deleting = tasks.create_task(keep_deleting(StoredDeletions(pool), background), name="delete measurements")
            expiring = tasks.create_task(keep_expiring(StoredExpiry(pool), background), name="expire")
            forgetting = tasks.create_task(
                keep_expiring_frames(StoredExpiry(pool), background), name="expire kept messages"
            )
            measuring = tasks.create_task(keep_measuring(StoredExpiry(pool), background), name="measure sizes")
            observing = tasks.create_task(keep_observing(StoredExpiry(pool), background), name="observe retention")
            ending = tasks.create_task(keep_ending(StoredSessions(key_pool), background), name="end long transactions")
            # Measurements are served, and the process is healthy, also while NATS is still missing.
            beating = tasks.create_task(heartbeat.keep(), name="heartbeat")
            async with connect(settings.nats, SERVICE, client=client, stop=stop):
                telling = tasks.create_task(
                    keep_telling_limits(IngestionLimits(key_pool), LimitsBucket(client), background), name="limits"
                )
                applying = tasks.create_task(
                    keep_applying(control, StoredControl(pool), background), name="apply erasures"
                )
                await stop.wait()
                live.close()
                telling.cancel()
                applying.cancel()
            beating.cancel()
            deleting.cancel()
            expiring.cancel()
            forgetting.cancel()
            measuring.cancel()
            observing.cancel()
            ending.cancel()


if __name__ == "__main__":
    run(SERVICE, ApiSettings, main)
