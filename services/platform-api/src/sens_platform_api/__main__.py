"""The API: ``python -m sens_platform_api``."""

import asyncio
from functools import partial

from nats.aio.client import Client

from sens_common.connections import ConnectionLimits
from sens_common.jetstream import connect, nats_check, nats_note
from sens_common.lifecycle import run
from sens_common.operations import Heartbeat, serve
from sens_platform_api.app import public_app
from sens_platform_api.database import open_pools
from sens_platform_api.dead_letters.jetstream import ReplayLog
from sens_platform_api.keys.repository import StoredKeys
from sens_platform_api.keys.service import Authenticator
from sens_platform_api.live.service import LiveHub
from sens_platform_api.operations.endpoints import SERVICE
from sens_platform_api.operations.repository import database_problem, roles_note, schema_problem
from sens_platform_api.operations.service import ApiReadiness
from sens_platform_api.registry.service import keep_deleting
from sens_platform_api.services import Services
from sens_platform_api.settings import ApiSettings
from sens_platform_api.streaming import Answers
from sens_platform_api.tenants.jetstream import LimitsBucket
from sens_platform_api.tenants.service import keep_telling_limits


async def main(settings: ApiSettings, stop: asyncio.Event) -> None:
    """Wire the parts, and serve until the stop."""
    client, heartbeat = Client(), Heartbeat()
    live = LiveHub(client, settings.limits)
    async with open_pools(settings.api_database(), SERVICE, settings.limits) as (pool, key_pool):
        services = Services(
            limits=settings.limits,
            pool=pool,
            authenticator=Authenticator(StoredKeys(key_pool)),
            replay_log=ReplayLog(client),
            live=live,
            heartbeat=heartbeat,
            answers=Answers(settings.limits),
            readiness=ApiReadiness(
                {
                    "database": partial(database_problem, key_pool),
                    "schema": partial(schema_problem, key_pool),
                    "nats": nats_check(client),
                },
                partial=frozenset({"nats"}),
                notes={"database_roles": partial(roles_note, key_pool), "nats": nats_note(client)},
            ),
        )
        async with (
            serve(
                public_app(services, settings.http, settings.https),
                settings.http.host,
                settings.http.port,
                graceful_seconds=3,
                trusted_proxies=settings.http.trusted_proxies,
                limits=ConnectionLimits(settings.limits.connections, settings.limits.header_seconds),
            ),
            asyncio.TaskGroup() as tasks,
        ):
            deleting = tasks.create_task(keep_deleting(pool), name="delete measurements")
            # Measurements are served, and the process is healthy, also while NATS is still missing.
            beating = tasks.create_task(heartbeat.keep(), name="heartbeat")
            async with connect(settings.nats, SERVICE, client=client, stop=stop):
                telling = tasks.create_task(keep_telling_limits(key_pool, LimitsBucket(client)), name="limits")
                await stop.wait()
                live.close()
                telling.cancel()
            beating.cancel()
            deleting.cancel()


if __name__ == "__main__":
    run(SERVICE, ApiSettings, main)
