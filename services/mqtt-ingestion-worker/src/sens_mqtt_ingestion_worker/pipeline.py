"""From the broker to the stream: receive, drop copies, publish, acknowledge. The order is the promise.

A message is acknowledged to the broker only after the stream has stored it, and messages are acknowledged in the order in which they
came. While the stream takes one envelope, messages gather for the next one; so envelopes grow with the load and nothing waits when there is none.
"""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Final, NamedTuple, Protocol, Self

import structlog

from sens_common.attempts import Attempt, Attempts, Backoff
from sens_common.envelope import Message
from sens_common.errors import StoppedError
from sens_common.health import Problems
from sens_common.ingestion.metrics import PUBLISHED
from sens_common.ingestion.rates import IDLE_SECONDS, Rates
from sens_common.source_states import Reason
from sens_common.stopping import Race
from sens_mqtt_ingestion_worker import metrics
from sens_mqtt_ingestion_worker.redelivery import RecentMessages, kept_message_count
from sens_mqtt_ingestion_worker.status import IngestionStatus, Waiting

log = structlog.get_logger()

BACKOFF: Final = Backoff(0.5, 5, stable_seconds=30)
"""Five seconds at most: a broker that has forgotten the session drops what comes until it is subscribed again."""

_LONGEST_AWAY_SECONDS: Final = 7 * 86_400.0

# Keys of problems.
_CONNECTION: Final = "connection"
_SESSION: Final = "session"
_TAKEN: Final = "another process has taken over this session within the last 30 s; is a second worker running with the same SENS_MQTT__CLIENT_ID?"


class SourceUnavailableError(Exception):
    """The broker can't be reached, refuses us, or has closed the connection; the text says which and why.

    Attributes:
        reason: The same as a word for programs.
    """

    def __init__(self, text: str, reason: Reason = "unreachable") -> None:
        super().__init__(text)
        self.reason: Reason = reason

    def at(self, broker: str) -> Self:
        """Return the same error with the broker's name in front."""
        return type(self)(f"{broker}: {self}", self.reason)


class SessionTakenError(SourceUnavailableError):
    """Another connection has taken over the session."""

    def __init__(self, text: str, reason: Reason = "session_taken") -> None:
        super().__init__(text, reason)


class SupersededError(Exception):
    """Another process has published as this session meanwhile; what the broker sends again has to be compared with its tail."""


class Delivery(NamedTuple):
    """What came from the broker at once.

    Attributes:
        messages: In the order of their arrival.
        flagged: Packet identifiers of those that came with the DUP flag.
        caught_up: Whether the broker had sent all that it had for the session before these came.
    """

    messages: list[Message]
    flagged: frozenset[int]
    caught_up: bool = False


class BrokerConnection(Protocol):
    """One connection to the broker, subscribed."""

    @property
    def session_present(self) -> bool:
        """Whether the broker has resumed a session that it kept."""

    @property
    def waiting(self) -> Waiting:
        """Messages that have come and were not received yet."""

    async def receive(self) -> Delivery:
        """Wait for messages and return all that are there, at least one.

        Raises:
            SourceUnavailableError: The connection has ended and nothing is left that the broker will not send again.
        """

    def acknowledge(self, messages: list[Message]) -> None:
        """Acknowledge messages of this connection; has no effect once it has ended, for then the broker sends them again."""

    def probe_caught_up(self) -> None:
        """Find out, when all that came is acknowledged, whether the broker has more for the session: see `Delivery.caught_up`."""


class Source(Protocol):
    """The broker."""

    def connect(self) -> AbstractAsyncContextManager[BrokerConnection]:
        """Open a connection that is closed with the context.

        Raises:
            SourceUnavailableError: The broker can't be reached or refuses us.
        """


class Stream(Protocol):
    """The stream that keeps the messages, in envelopes."""

    async def tail(self, count: int) -> list[Message]:
        """Return the newest messages that this session published, oldest first: `count` of them or a few more, if there are so many.

        A mark (`sens_common.envelope.mark`) stands for each one that was discarded.

        What is published from here on follows these messages.
        """

    async def publish(self, messages: list[Message], discarded: Mapping[int, str]) -> None:
        """Store messages, in order; returns once they are safe and tries again until then.

        Args:
            messages: As they came from the broker.
            discarded: Indices of those that are not stored, only counted and remembered, and the tenant of each.

        Raises:
            SupersededError: The session's newest messages are not those that are known here. Some of these may be stored; the
                tail, read again, tells which.
        """


class Pipeline:
    """The worker's one loop.

    Attributes:
        problems: What is wrong with the connection to the broker and with the session; for the readiness check.
    """

    def __init__(
        self,
        source: Source,
        stream: Stream,
        status: IngestionStatus,
        rates: Rates,
        *,
        receive_max: int,
        backoff: Backoff = BACKOFF,
        problems: Problems | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._source = source
        self._stream = stream
        self._status = status
        self._rates = rates
        self._backoff = backoff
        self._sleep = sleep
        self._took_at = time.monotonic()
        self._kept_message_count = kept_message_count(receive_max)
        self._recent = RecentMessages(self._kept_message_count)
        self.problems = problems if problems is not None else Problems("mqtt")
        self.problems.set(_CONNECTION, "not connected yet", level="debug")

    async def run(self, stop: asyncio.Event) -> None:
        """Work until the stop; messages under way then are stored and acknowledged first."""
        newest = await self._recall()
        self._rates.was_away(min(max(0.0, time.time() - newest / 1e6), _LONGEST_AWAY_SECONDS))
        attempts = Attempts(
            self.problems,
            _CONNECTION,
            "no connection to the broker",
            retry_on=(SourceUnavailableError,),
            why_says_all=True,
            backoff=self._backoff,
            stop=stop,
            sleep=self._sleep,
        )
        async for attempt in attempts:
            with attempt:
                await self._use_connection(attempt, stop)

    async def _use_connection(self, attempt: Attempt, stop: asyncio.Event) -> None:
        """Open a connection and forward what comes, until the stop.

        Raises:
            SourceUnavailableError: There is no connection, or no longer.
        """
        try:
            async with self._source.connect() as connection:
                self._opened(connection)
                attempt.succeed()
                with self._status.of(connection), self._alone_when_stable():
                    await self._forward(connection, stop)
        except SessionTakenError:
            self.problems.set(_SESSION, _TAKEN)
            raise
        except SupersededError as error:
            # A worker that was taken for dead and is not, or its successor: neither may publish what the other has published.
            metrics.SUPERSEDED.inc()
            self.problems.set(_SESSION, str(error))
            await self._recall()
            raise SourceUnavailableError("not connected again yet") from error

    @contextlib.contextmanager
    def _alone_when_stable(self) -> Iterator[None]:
        """While another process uses the session, each takes it from the other again and again: only a lasting connection ends that."""
        timer = asyncio.get_running_loop().call_later(self._backoff.stable_seconds, self.problems.clear, _SESSION)
        try:
            yield
        finally:
            timer.cancel()

    async def _recall(self) -> int:
        """Know the session's newest messages from the stream; return when the newest one was received, 0 if there is none."""
        self._recent = RecentMessages(self._kept_message_count)
        tail = await self._stream.tail(self._kept_message_count)
        self._recent.remember(tail)
        return max((message.received_at for message in tail), default=0)

    def _opened(self, connection: BrokerConnection) -> None:
        self._recent.connection_opened(session_present=connection.session_present)
        if not connection.session_present:
            self._rates.was_idle()  # nothing can have waited in the broker
        metrics.CONNECTIONS.inc()
        log.info("connected to the broker", session_present=connection.session_present)

    async def _forward(self, connection: BrokerConnection, stop: asyncio.Event) -> None:
        with Race(stop) as race, contextlib.suppress(StoppedError):
            while True:
                if self._recent.searching:
                    connection.probe_caught_up()
                delivery = await self._next(connection, race)
                metrics.RECEIVED.inc(len(delivery.messages))
                self._status.hold(delivery.messages)
                new = self._recent.without_copies(delivery.messages, delivery.flagged, caught_up=delivery.caught_up)
                metrics.REDELIVERED.inc(len(delivery.messages) - len(new))
                if new:
                    over = self._rates.over(new)
                    await self._stream.publish(new, over)
                    self._recent.remember(new)
                    PUBLISHED.inc(len(new) - len(over))
                    self._status.discarded(Counter(over.values()))
                connection.acknowledge(delivery.messages)
                self._status.hold([])

    async def _next(self, connection: BrokerConnection, race: Race) -> Delivery:
        """Receive, and let the rates know how long nothing could be taken, or that nothing was there.

        What is received in the instant of the stop is not acknowledged; the broker sends it again.

        Raises:
            StoppedError: The stop came first.
        """
        began = time.monotonic()
        if began - self._took_at > IDLE_SECONDS:
            self._rates.was_away(began - self._took_at)
        try:
            return await race.run(connection.receive())
        finally:
            self._took_at = time.monotonic()
            if self._took_at - began > IDLE_SECONDS:
                self._rates.was_idle()
