"""What the ingestion pipeline expects of the broker, held by the one in memory and by the session on a real one."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager
from typing import Protocol

import pytest

from sens_common.envelope import Message
from sens_common.ingestion.clock import ReceiptClock, time_slot
from sens_mqtt_ingestion_worker.mqtt import MqttSource, PlatformBroker
from sens_mqtt_ingestion_worker.pipeline import BrokerConnection, Delivery, Source, SourceUnavailableError
from sens_mqtt_ingestion_worker.settings import MqttSettings
from support.brokers import MqttBroker, mock_broker
from support.memory import MemoryConnection, MemoryRecord, MemorySource
from support.workers import Publisher

TOPIC = "sens/v1/demo/d1/telemetry"
PAYLOADS = [str(number).encode() for number in range(20)]


class Broker(Protocol):
    """A broker that knows no session yet."""

    @property
    def source(self) -> Source: ...

    async def publish(self) -> None:
        """Publish `PAYLOADS`."""

    async def stop(self) -> None:
        """End it."""


class BrokerInMemory:
    """Its first connection delivers and then ends, as the second one does at once."""

    def __init__(self) -> None:
        messages = [Message(TOPIC, payload, 1, number) for number, payload in enumerate(PAYLOADS, 1)]
        deliveries = [Delivery(part, frozenset()) for part in (messages[:5], messages[5:])]
        self.source = MemorySource(
            [
                MemoryConnection(deliveries, session_present=False, ends=True),
                MemoryConnection([], session_present=True, ends=True),
            ],
            asyncio.Event(),
        )

    async def publish(self) -> None:
        """Nothing to do: it delivers by itself."""

    async def stop(self) -> None:
        """Nothing to do: it ends by itself."""


class RunningBroker:
    def __init__(self, broker: MqttBroker, stop: Callable[[], None]) -> None:
        settings = MqttSettings(url=f"mqtt://{broker.host}:{broker.port_v5}", client_id="w")
        self.source = MqttSource(
            PlatformBroker(settings, None), ReceiptClock(time_slot("w")), MemoryRecord(), max_packet_bytes=1_000_000
        )
        self._broker = broker
        self._stop = stop

    def _publish(self) -> None:
        with Publisher(self._broker) as publisher:
            publisher.publish_all([(TOPIC, payload) for payload in PAYLOADS])

    async def publish(self) -> None:
        await asyncio.to_thread(self._publish)

    async def stop(self) -> None:
        await asyncio.to_thread(self._stop)


type Opener = Callable[[], AbstractAsyncContextManager[Broker]]


@pytest.fixture(params=["memory", "mqtt"])
def opened(request: pytest.FixtureRequest) -> Opener:
    if request.param == "memory":

        @asynccontextmanager
        async def open_memory() -> AsyncIterator[Broker]:
            yield BrokerInMemory()

        return open_memory

    @asynccontextmanager
    async def open_mqtt() -> AsyncIterator[Broker]:
        with ExitStack() as running:
            broker = running.enter_context(mock_broker())
            yield RunningBroker(broker, running.close)

    return open_mqtt


async def received(connection: BrokerConnection) -> list[Message]:
    """Receive as many messages as were published; each delivery has at least one."""
    messages: list[Message] = []
    while len(messages) < len(PAYLOADS):
        delivery = await connection.receive()
        assert delivery.messages
        messages += delivery.messages
    return messages


class TestConnection:
    async def test_receives_what_is_published_in_order(self, opened: Opener) -> None:
        async with opened() as broker, broker.source.connect() as connection:
            await broker.publish()
            messages = await received(connection)
            assert [(message.topic, message.payload) for message in messages] == [(TOPIC, each) for each in PAYLOADS]
            # By these the pipeline acknowledges and recognises them.
            assert len({message.packet_id for message in messages}) == len(PAYLOADS)
            assert 0 not in {message.packet_id for message in messages}

    async def test_says_whether_the_session_was_there_before(self, opened: Opener) -> None:
        async with opened() as broker:
            for session_present in (False, True):
                async with broker.source.connect() as connection:
                    assert connection.session_present is session_present

    async def test_fails_when_it_has_ended_and_takes_acknowledgements_to_no_effect(self, opened: Opener) -> None:
        async with opened() as broker, broker.source.connect() as connection:
            await broker.publish()
            messages = await received(connection)
            await broker.stop()
            with pytest.raises(SourceUnavailableError):
                await connection.receive()
            connection.acknowledge(messages)
            connection.probe_caught_up()


class TestBrokerThatIsAway:
    async def test_can_not_be_connected_to(self, opened: Opener) -> None:
        async with opened() as broker:
            for _ in range(2):
                async with broker.source.connect():
                    pass
            await broker.stop()
            with pytest.raises(SourceUnavailableError):
                async with broker.source.connect():
                    pass
