"""What the session on a broker expects of where its subscriptions are recorded, held by the one in memory and by JetStream."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest

from sens_common.jetstream import connect
from sens_common.settings import NatsSettings
from sens_mqtt_ingestion_worker.mqtt.source import SubscriptionRecord
from sens_mqtt_ingestion_worker.sessions import SessionRecord
from support.memory import MemoryRecord

type Opener = Callable[[], AbstractAsyncContextManager[SubscriptionRecord]]


@pytest.fixture(params=["memory", "jetstream"])
def opened(request: pytest.FixtureRequest) -> Opener:
    """Open the record of one session, and the same one again."""
    if request.param == "memory":
        memory = MemoryRecord()

        @asynccontextmanager
        async def open_memory() -> AsyncIterator[SubscriptionRecord]:
            yield memory

        return open_memory
    settings: NatsSettings = request.getfixturevalue("nats")

    @asynccontextmanager
    async def open_jetstream() -> AsyncIterator[SubscriptionRecord]:
        async with connect(settings, "test") as client:
            yield SessionRecord(client.jetstream(), settings, "w", "mqtt://a:1")

    return open_jetstream


class TestRecord:
    async def test_knows_nothing_of_a_new_session(self, opened: Opener) -> None:
        async with opened() as record:
            assert await record.load() is None

    @pytest.mark.parametrize("filters", [{"sens/#"}, {"$share/sens/sens/v1/+/+/telemetry", "ö/+"}, set()])
    async def test_keeps_what_was_saved_last(self, opened: Opener, filters: set[str]) -> None:
        async with opened() as record:
            await record.save(frozenset({"before"}))
            await record.save(frozenset(filters))
            assert await record.load() == frozenset(filters)

    async def test_is_there_after_a_restart(self, opened: Opener) -> None:
        async with opened() as record:
            await record.save(frozenset({"sens/#"}))
        async with opened() as record:
            assert await record.load() == frozenset({"sens/#"})
