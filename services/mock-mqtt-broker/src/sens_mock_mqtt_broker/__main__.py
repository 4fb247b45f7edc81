"""The mock broker: ``python -m sens_mock_mqtt_broker``."""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Sequence

from sens_common.health import Check
from sens_common.lifecycle import run
from sens_common.operations import Heartbeat, serve_operations
from sens_common.readiness import Describe
from sens_mock_mqtt_broker.fleet import Fleet
from sens_mock_mqtt_broker.listening import Listener, client_host, run_broker
from sens_mock_mqtt_broker.publisher import Audience, Publisher, wall_clock
from sens_mock_mqtt_broker.settings import MockBrokerSettings

SERVICE = "mock-mqtt-broker"


type Work = dict[str, Callable[[], Coroutine[None, None, None]]]


async def main(settings: MockBrokerSettings, stop: asyncio.Event) -> None:
    """Wire the parts, and work until the stop."""
    heartbeat = Heartbeat()
    checks: dict[str, Check] = {}
    work: Work = {"heartbeat": heartbeat.keep}
    sentences: list[Describe] = []
    listener: Listener | None = None
    async with contextlib.AsyncExitStack() as cleanup:
        if settings.broker.enabled:
            listener = await cleanup.enter_async_context(run_broker(settings.broker))
            checks["broker"] = listener.check
            work["watch the broker"] = listener.watch
            sentences.append(listener.describe)
        if settings.fleet.enabled:
            publisher = _publisher(settings, listener)
            checks["fleet"] = publisher.problems.check
            work["fleet"] = publisher.run
            sentences.append(publisher.describe)
        async with (
            serve_operations(SERVICE, settings.operations, checks, heartbeat, joined(sentences)),
            asyncio.TaskGroup() as tasks,
        ):
            working = [tasks.create_task(start(), name=name) for name, start in work.items()]
            await stop.wait()
            for task in working:
                task.cancel()


def joined(sentences: Sequence[Describe]) -> Describe:
    """Return what says everything that the parts have to say."""
    return lambda answers: "; ".join(filter(None, (describe(answers) for describe in sentences)))


def _publisher(settings: MockBrokerSettings, audience: Audience | None) -> Publisher:
    fleet = Fleet.create(
        seed=settings.fleet.seed,
        tenant=settings.fleet.tenant,
        devices=settings.fleet.devices,
        rate=settings.fleet.rate,
        malformed_share=settings.fleet.malformed_share,
        start=wall_clock(),
    )
    return Publisher(fleet, client_host(settings.broker.host), settings.broker.port, audience=audience)


if __name__ == "__main__":
    run(SERVICE, MockBrokerSettings, main)
