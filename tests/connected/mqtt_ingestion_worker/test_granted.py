"""What a broker grants of a subscription: less than it is asked for, or nothing."""

import asyncio
import contextlib
import errno
from collections.abc import AsyncIterator, Callable, Sequence

import pytest

from sens_common.brokers import Version
from sens_common.health import Problems
from sens_common.ingestion.clock import ReceiptClock, time_slot
from sens_common.source_states import SourceState
from sens_common.tenant_limits import MqttSource as Source
from sens_mqtt_ingestion_worker.brokers.broker import TenantSession
from sens_mqtt_ingestion_worker.mqtt import MqttConnection, MqttSource
from sens_mqtt_ingestion_worker.mqtt.source import Target
from sens_mqtt_ingestion_worker.source_routes import TenantRoutes
from support.granting_broker import GrantingBroker, granting_broker
from support.memory import MemoryRecord
from support.servers import HOST, eventually

VERSIONS: list[Version] = ["5", "3.1.1"]


class ReachedBroker:
    """Where the test's broker is, as `mqtt.source.Broker`."""

    def __init__(self, broker: GrantingBroker, hosts: Sequence[str]) -> None:
        self.settings = TenantSession(f"mqtt://{HOST}:{broker.port}", "w", broker.version, False, 10, 60, 30, 5)
        self._port = broker.port
        self._hosts = hosts

    async def target(self) -> Target:
        return Target("the broker", self.settings, self._hosts, self._port, None, HOST)


@contextlib.asynccontextmanager
async def session(broker: GrantingBroker, routes: TenantRoutes, *hosts: str) -> AsyncIterator[MqttConnection]:
    source = MqttSource(
        ReachedBroker(broker, hosts or (HOST,)),
        ReceiptClock(time_slot("w")),
        MemoryRecord(),
        routes,
        max_packet_bytes=100_000,
        refused_again_seconds=0.01,
    )
    async with asyncio.timeout(20), source.connect() as connection:
        yield connection


@pytest.fixture
def routes() -> TenantRoutes:
    """One source of a tenant."""
    routes = TenantRoutes("demo", Problems("brokers"))
    routes.set({"demo": [Source("house", "tele/#")]})
    return routes


async def reaches(routes: TenantRoutes, status: str, reason: str) -> SourceState:
    async def look() -> SourceState | None:
        found = routes.states(1.0)["demo"]["house"]
        return found if (found.status, found.reason) == (status, reason) else None

    found = await eventually(look, f"the source is {status} {reason}")
    assert found is not None
    return found


@pytest.mark.parametrize("version", VERSIONS)
class TestBroker:
    async def test_that_grants_qos_0_only_is_used_and_the_source_says_what_is_lost(
        self, version: Version, routes: TenantRoutes
    ) -> None:
        async with granting_broker(version, 0) as broker, session(broker, routes) as connection:
            state = await reaches(routes, "connected", "at_most_once")
            assert "lost" in state.detail
            broker.publish("tele/x", b"1")
            (message,) = (await connection.receive()).messages
            assert (message.topic, message.payload, message.packet_id) == ("ingest/v1/demo/house/tele/x", b"1", 0)

    async def test_that_refuses_is_asked_again_until_it_grants(self, version: Version, routes: TenantRoutes) -> None:
        async with granting_broker(version, 0x80) as broker, session(broker, routes):
            await reaches(routes, "failed", "subscription_refused")
            broker.code = 1
            await reaches(routes, "connected", "")
            assert routes.problems.problem is None


async def test_an_address_that_nothing_leads_to_leaves_the_others(
    routes: TenantRoutes, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = asyncio.get_running_loop()
    connect = loop.create_connection

    async def create_connection(
        protocol: Callable[[], MqttConnection], host: str, *rest: object, **more: object
    ) -> object:
        if host == "2001:db8::1":
            raise OSError(errno.ENETUNREACH, "Network is unreachable")
        return await connect(protocol, host, *rest, **more)  # type: ignore[call-overload]

    monkeypatch.setattr(loop, "create_connection", create_connection)
    async with granting_broker("5", 1) as broker, session(broker, routes, "2001:db8::1", HOST):
        await reaches(routes, "connected", "")


async def test_a_refusal_says_the_brokers_reason(routes: TenantRoutes) -> None:
    async with granting_broker("5", 0x87) as broker, session(broker, routes):
        state = await reaches(routes, "failed", "subscription_refused")
        assert state.detail == "the broker refuses the subscription to tele/#: not authorized"
