"""The mock broker: ``python -m sens_mock_mqtt_broker``."""

import asyncio

from sens_common.lifecycle import run
from sens_common.operations import Heartbeat, serve_operations
from sens_mock_mqtt_broker.broker import run_broker
from sens_mock_mqtt_broker.settings import MockBrokerSettings

SERVICE = "mock-mqtt-broker"


async def main(settings: MockBrokerSettings, stop: asyncio.Event) -> None:
    """Wire the parts, and work until the stop."""
    heartbeat = Heartbeat()
    async with (
        run_broker(settings.broker) as broker,
        serve_operations(SERVICE, settings.operations, {"broker": broker.check}, heartbeat),
        asyncio.TaskGroup() as tasks,
    ):
        working = [
            tasks.create_task(heartbeat.keep(), name="heartbeat"),
            tasks.create_task(broker.watch(), name="watch the broker"),
        ]
        await stop.wait()
        for task in working:
            task.cancel()


if __name__ == "__main__":
    run(SERVICE, MockBrokerSettings, main)
