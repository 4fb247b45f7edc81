"""The mock broker: ``python -m sens_mock_mqtt_broker``."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping

from sens_common.lifecycle import run
from sens_common.operations import Check, Heartbeat, problem_check, serve_operations
from sens_mock_mqtt_broker.fleet import Fleet
from sens_mock_mqtt_broker.listening import client_host, run_broker
from sens_mock_mqtt_broker.publisher import Publisher, wall_clock
from sens_mock_mqtt_broker.settings import MockBrokerSettings

SERVICE = "mock-mqtt-broker"


async def main(settings: MockBrokerSettings, stop: asyncio.Event) -> None:
    """Wire the parts, and work until the stop."""
    heartbeat = Heartbeat()
    async with run_broker(settings.broker) as listener:
        checks: dict[str, Check] = {"broker": listener.check}
        work: dict[str, Callable[[], Coroutine[None, None, None]]] = {
            "heartbeat": heartbeat.keep,
            "watch the broker": listener.watch,
        }
        if settings.fleet.enabled:
            publisher = _publisher(settings)
            checks["fleet"] = problem_check(publisher)
            work["fleet"] = publisher.run

        def flow(_answers: Mapping[str, str]) -> str:
            return listener.broker.unread.sentence()

        async with (
            serve_operations(SERVICE, settings.operations, checks, heartbeat, flow),
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
