"""Publishes the fleet's messages when they are due, over one session that is opened again when it is lost."""

import asyncio
import secrets
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NoReturn, Protocol

import structlog

from sens_common.attempts import Attempts, Backoff
from sens_common.health import Problems
from sens_mock_mqtt_broker import metrics
from sens_mock_mqtt_broker.fleet import Fleet, FleetMessage
from sens_mock_mqtt_broker.mqtt import KEEP_ALIVE_SECONDS, Answers, PublishingSession, SessionEndedError, open_session

log = structlog.get_logger()

BATCH: Final = 500
"""Messages made and written in one go; small enough to leave the event loop its turns."""

PAUSE_SECONDS: Final = 0.005
"""Shortest pause, so that high rates are sent in batches."""

PING_SECONDS: Final = KEEP_ALIVE_SECONDS / 3
BEHIND_MICROSECONDS: Final = 60_000_000
"""Distance between schedule and clock at which the schedule starts again: the broker was away, the machine slept, or its clock was set."""

BACKOFF: Final = Backoff(0.1, 5)
READERS_BACKOFF: Final = Backoff(0.1, 1)

KEPT: Final = 500
"""Messages that are kept while nobody reads them; the oldest of more are dropped."""

_CONNECTION: Final = "connection"  # key of a problem
_READERS: Final = "readers"  # likewise
_WAITS: Final = "the fleet waits"


def wall_clock() -> int:
    """Return microseconds since 1970-01-01 UTC."""
    return time.time_ns() // 1000


class NobodyReadsError(Exception):
    """The broker has taken messages, and nobody has subscribed to their topics."""


class Audience(Protocol):
    """The subscribers of a broker that can be asked for them."""

    def reads(self, topics: Sequence[str]) -> bool:
        """Tell whether somebody has subscribed to one of the topics."""

    async def arrives(self, topics: Sequence[str]) -> None:
        """Wait until somebody has subscribed to one of the topics."""


class Publisher:
    """Publishes a fleet's messages.

    It waits with the first one until somebody reads it, as a sensor's owner would set up the reader first. A broker that can be asked says when
    that is so. Any other broker of MQTT 5 acknowledges a message that nobody reads with a reason code of its own ("No matching subscribers",
    MQTT 5.0, section 3.4.2.1): then the message is kept and sent again after a while. When a whole round of sensors comes back unread
    later, it waits again.

    Attributes:
        problems: Why nothing is published; for the readiness check.
        readers: That nobody reads what the fleet would publish; no trouble of the fleet's own.
    """

    def __init__(
        self,
        fleet: Fleet,
        host: str,
        port: int,
        *,
        audience: Audience | None = None,
        clock: Callable[[], int] = wall_clock,
        backoff: Backoff = BACKOFF,
        readers_backoff: Backoff = READERS_BACKOFF,
    ) -> None:
        self._fleet = fleet
        self._host = host
        self._port = port
        self._audience = audience
        self._clock = clock
        self._backoff = backoff
        self._readers_backoff = readers_backoff
        self._client_id = f"sens-mock-fleet-{secrets.token_hex(4)}"
        self._next = 0
        self._again: list[FleetMessage] = []
        self._has_readers = False
        self._unread: deque[FleetMessage] = deque(maxlen=len(fleet.sensors))  # since one was read
        self.readers = Problems("fleet_readers")
        self.problems = Problems("fleet")
        self.problems.set(_CONNECTION, "not connected yet", level="debug")

    async def run(self) -> None:
        """Publish for ever; connect again, ever more patiently, when the connection is lost."""
        attempts = Attempts(
            self.problems,
            _CONNECTION,
            "the fleet is not connected",
            retry_on=(SessionEndedError,),
            why_says_all=True,
            backoff=self._backoff,
        )
        async for attempt in attempts:
            with attempt:
                async with open_session(self._host, self._port, self._client_id) as session:
                    attempt.succeed()
                    metrics.CONNECTIONS.inc()
                    await self._use(session)

    async def _use(self, session: PublishingSession) -> None:
        metrics.CONNECTED.set(1)
        log.info("fleet is publishing", devices=len(self._fleet.sensors), rate=self._fleet.rate)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(session.receive(), name="take acknowledgements")
                tasks.create_task(self._publish(session), name="publish")
        finally:
            metrics.CONNECTED.set(0)
            # Not acknowledged means not known to have arrived: sent again, as QoS 1 asks (MQTT 5.0, section 4.4).
            self._again = [*session.take_answers().unread, *session.unacknowledged, *self._again]

    async def _publish(self, session: PublishingSession) -> NoReturn:
        while True:
            if not self._has_readers:
                await self._find_readers(session)
            await session.wait_for_room()
            await session.publish(await self._due(session, min(BATCH, session.room)))
            self._look_for_readers(session.take_answers())
            await asyncio.sleep(self._pause())

    async def _due(self, session: PublishingSession, room: int) -> list[FleetMessage]:
        """Wait until messages are due, keeping the session alive meanwhile; return them."""
        quiet_since = time.monotonic()
        while not (messages := self._take(room)):
            if time.monotonic() - quiet_since > PING_SECONDS:
                await session.ping()
                quiet_since = time.monotonic()
            await asyncio.sleep(self._pause())
        return messages

    def _look_for_readers(self, answers: Answers) -> None:
        """Take note of whether anybody reads; if a whole round of sensors was not read, its messages are sent again."""
        if answers.read:
            self._unread.clear()
        self._unread.extend(answers.unread)
        if len(self._unread) == self._unread.maxlen:
            self._again = [*self._unread, *self._again]
            self._unread.clear()
            self._has_readers = False

    async def _find_readers(self, session: PublishingSession) -> None:
        """Wait until somebody reads the fleet's messages; if that takes time, the schedule begins then."""
        if self._audience is not None:
            has_waited = await self._await_audience(self._audience, session)
        else:
            has_waited = await self._try_until_read(session)
        if has_waited:
            self._restart(self._clock())
        self._has_readers = True

    async def _await_audience(self, audience: Audience, session: PublishingSession) -> bool:
        topics = self._fleet.topics
        if audience.reads(topics):
            return False
        self.readers.set(_READERS, _WAITS, self._nobody, level="info")
        arriving = asyncio.create_task(audience.arrives(topics), name="wait for a subscriber")
        try:
            while not (await asyncio.wait({arriving}, timeout=PING_SECONDS))[0]:
                await session.ping()
        finally:
            arriving.cancel()
        self.readers.clear(_READERS)
        return True

    async def _try_until_read(self, session: PublishingSession) -> bool:
        attempts = Attempts(
            self.readers, _READERS, _WAITS, words=str, retry_on=(NobodyReadsError,), backoff=self._readers_backoff
        )
        count = 0
        async for attempt in attempts:
            with attempt:
                count = attempt.number
                await self._try(session)
        return count > 1

    async def _try(self, session: PublishingSession) -> None:
        """Send what nobody has read yet, and one message more, in case somebody reads that sensor alone.

        Raises:
            NobodyReadsError: Nobody reads any of it.
        """
        await session.publish(await self._due(session, min(len(self._again) + 1, session.room)))
        await session.wait_for_answers()
        answers = session.take_answers()
        self._again = [*answers.unread, *self._again]
        if not answers.read:
            metrics.SKIPPED.inc(max(0, len(self._again) - KEPT))
            self._again = self._again[-KEPT:]
            raise NobodyReadsError(self._nobody)

    def describe(self, _answers: Mapping[str, str]) -> str:
        """Tell that nobody reads, for ``/readyz``; empty while somebody does."""
        return self.readers.problem or ""

    @property
    def _nobody(self) -> str:
        return f"nobody reads {self._fleet.topic_filter}"

    def _take(self, room: int) -> list[FleetMessage]:
        """Return the messages that are due, those to be sent again first, as far as there is room."""
        messages, self._again = self._again[:room], self._again[room:]
        now = self._clock()
        self._keep_up(now)
        for _ in range(room - len(messages)):
            if self._fleet.due(self._next) > now:
                break
            message = self._fleet.message(self._next)
            self._next += 1
            if message is not None:
                messages.append(message)
        return messages

    def _keep_up(self, now: int) -> None:
        behind = now - self._fleet.due(self._next)
        # A slow schedule's next message may be far ahead: one interval is no sign of a clock that was set back.
        ahead = -behind - 1_000_000 / self._fleet.rate
        if behind <= BEHIND_MICROSECONDS and ahead <= BEHIND_MICROSECONDS:
            return
        if behind > 0:
            metrics.SKIPPED.inc(int(behind * self._fleet.rate / 1_000_000))
        self._restart(now)

    def _restart(self, now: int) -> None:
        self._fleet = self._fleet.starting(now)
        self._next = 0

    def _pause(self) -> float:
        """Return seconds until the next message is due or a ping may be."""
        if self._again:
            return 0
        seconds = (self._fleet.due(self._next) - self._clock()) / 1_000_000
        return min(max(seconds, PAUSE_SECONDS), PING_SECONDS)
