"""One session at a broker of a tenant's own: the same pipeline as for the platform's broker, with bounds of its own."""

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Mapping
from typing import Final, NamedTuple

from sens_common.attempts import Backoff
from sens_common.envelope import Message
from sens_common.health import Problems
from sens_common.ingestion.rates import Rates
from sens_common.source_states import SourceState
from sens_mqtt_ingestion_worker import metrics
from sens_mqtt_ingestion_worker.brokers.broker import TenantBroker
from sens_mqtt_ingestion_worker.brokers.plans import Plan
from sens_mqtt_ingestion_worker.mqtt import MqttConnection, MqttSource
from sens_mqtt_ingestion_worker.pipeline import Pipeline, SourceUnavailableError, Stream
from sens_mqtt_ingestion_worker.source_routes import Failure, TenantRoutes
from sens_mqtt_ingestion_worker.status import IngestionStatus

_BACKOFF: Final = Backoff(1, 60, stable_seconds=30)
_LOOK_SECONDS: Final = 2.0


class Parts(NamedTuple):
    """What a session is made of.

    Attributes:
        broker: Where it is.
        source: Connections to it.
        routes: Its sources.
        stream: Where its messages go.
        rates: Of its tenant.
        problems: What is wrong with it.
        window: Largest number of unacknowledged messages that the broker may have.
    """

    broker: TenantBroker
    source: MqttSource
    routes: TenantRoutes
    stream: Stream
    rates: Rates
    problems: Problems
    window: int


class BrokerSession:
    """A session, from its plan to its end.

    Attributes:
        status: What it holds.
        rates: Of its tenant.
        routes: Its sources.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._failure: Failure | None = None
        self._stop = asyncio.Event()
        self._try_again = asyncio.Event()
        self.rates = parts.rates
        self.routes = parts.routes
        self.status = IngestionStatus(connected=metrics.BROKERS_CONNECTED)
        self._follow_sources(parts.broker.plan)

    async def run(self) -> None:
        """Work until the end; what is under way then is stored and acknowledged first."""
        looking = asyncio.create_task(self._follow_credential(), name="a credential's files")
        try:
            await Pipeline(
                self,
                self._parts.stream,
                self.status,
                self._parts.rates,
                receive_max=self._parts.window,
                backoff=_BACKOFF,
                problems=self._parts.problems,
                sleep=self._pause,
            ).run(self._stop)
        finally:
            looking.cancel()

    @contextlib.asynccontextmanager
    async def connect(self) -> AsyncIterator[MqttConnection]:
        """Open a connection, and remember why there is none; see `pipeline.Source.connect`."""
        try:
            async with self._parts.source.connect() as connection:
                self._failure = None
                yield connection
        except SourceUnavailableError as error:
            self._failure = Failure(error.reason, str(error))
            raise

    def follow(self, plan: Plan) -> None:
        """Let the session be as a plan of the same key has it."""
        broker = self._parts.broker
        other_broker = plan.broker != broker.plan.broker
        broker.plan = plan
        self._follow_sources(plan)
        if other_broker:
            self._connect_again("the source has another broker, credential or version")

    def end(self, *, for_good: bool) -> None:
        """End it; for good, when nobody wants its messages any more: then the broker is to forget it."""
        if for_good:
            self._parts.source.end_session()
        self._stop.set()
        self._try_again.set()

    def states(self) -> Mapping[str, SourceState]:
        """Return how its sources do, by name."""
        found = self._parts.routes.states(self.status.connected_since, self._failure)
        return found.get(self._parts.broker.plan.tenant, {})

    def _follow_sources(self, plan: Plan) -> None:
        self._parts.routes.set({plan.tenant: plan.sources})

    async def _follow_credential(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            if self._parts.broker.has_changed:
                self._connect_again("the credential's files have changed")

    def _connect_again(self, why: str) -> None:
        self._parts.source.reconnect(why)
        self._try_again.set()

    async def _pause(self, seconds: float) -> None:
        """Pause between two attempts, so that brokers that are back are not all asked at once; shorter when there is a reason to try."""
        self._try_again.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds * random.uniform(0.5, 1)):  # noqa: S311 - no secret
                await self._try_again.wait()


class PacedStream:
    """A stream that takes so many messages a second: a broker that sends as fast as it can is kept waiting, and nobody else is."""

    def __init__(self, stream: Stream, messages_per_second: int) -> None:
        self._stream = stream
        self._seconds_each = 1 / messages_per_second
        self._free_at = 0.0

    async def tail(self, count: int) -> list[Message]:
        """See `pipeline.Stream.tail`."""
        return await self._stream.tail(count)

    async def publish(self, messages: list[Message], discarded: Mapping[int, str]) -> None:
        """See `pipeline.Stream.publish`; after a burst, the next one waits."""
        await asyncio.sleep(self._free_at - time.monotonic())
        await self._stream.publish(messages, discarded)
        now = time.monotonic()
        self._free_at = max(now - 1, self._free_at) + len(messages) * self._seconds_each
