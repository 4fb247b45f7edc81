"""The mock broker: ``python -m sens_mock_mqtt_broker``."""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine

from sens_common.health import Check
from sens_common.lifecycle import run
from sens_common.operations import Describe, Heartbeat, serve_operations
from sens_mock_mqtt_broker.fleet import Fleet
from sens_mock_mqtt_broker.listening import client_host, run_broker
from sens_mock_mqtt_broker.publisher import Publisher, wall_clock
from sens_mock_mqtt_broker.settings import MockBrokerSettings

SERVICE = "mock-mqtt-broker"


type Work = dict[str, Callable[[], Coroutine[None, None, None]]]


async def main(settings: MockBrokerSettings, stop: asyncio.Event) -> None:
    """Wire the parts, and work until the stop."""
    heartbeat = Heartbeat()
    checks: dict[str, Check] = {}
    work: Work = {"heartbeat": heartbeat.keep}
    describe: Describe | None = None
    async with contextlib.AsyncExitStack() as cleanup:
        if settings.broker.enabled:
            listener = await cleanup.enter_async_context(run_broker(settings.broker))
            checks["broker"] = listener.check
            work["watch the broker"] = listener.watch
            describe = listener.describe
        if settings.fleet.enabled:
            publisher = _publisher(settings)
            checks["fleet"] = publisher.problems.check
            work["fleet"] = publisher.run
        async with (
            serve_operations(SERVICE, settings.operations, checks, heartbeat, describe),
            asyncio.TaskGroup() as tasks,
        ):
            working = [tasks.create_task(start(), name=name) for name, start in work.items()]
            await stop.wait()
            for task in working:
                task.cancel()


def _publisher(settings: MockBrokerSettings) -> Publisher:
    fleet = Fleet.create(
        seed=settings.fleet.seed,
        tenant=settings.fleet.tenant,
        devices=settings.fleet.devices,
        rate=settings.fleet.rate,
        malformed_share=settings.fleet.malformed_share,
        start=wall_clock(),
    )
    return Publisher(fleet, client_host(settings.broker.host), settings.broker.port)


if __name__ == "__main__":
    run(SERVICE, MockBrokerSettings, main)
