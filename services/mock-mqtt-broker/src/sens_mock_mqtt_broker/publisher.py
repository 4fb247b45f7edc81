"""Publishes the fleet's messages when they are due, over one session that is opened again when it is lost."""

import asyncio
import secrets
import time
from collections.abc import Callable
from typing import Final, NoReturn

import structlog

from sens_common.attempts import Attempts, Backoff
from sens_common.health import Problems
from sens_mock_mqtt_broker import metrics
from sens_mock_mqtt_broker.fleet import Fleet, Message
from sens_mock_mqtt_broker.mqtt import KEEP_ALIVE_SECONDS, Session, SessionEndedError, open_session

log = structlog.get_logger()

BATCH: Final = 500
"""Messages made and written in one go; small enough to leave the event loop its turns."""

PAUSE_SECONDS: Final = 0.005
"""Shortest pause, so that high rates are sent in batches."""

PING_SECONDS: Final = KEEP_ALIVE_SECONDS / 3
BEHIND_MICROSECONDS: Final = 60_000_000
"""Distance between schedule and clock at which the schedule starts anew: the broker was away, the machine slept, or its clock was set."""

BACKOFF: Final = Backoff(0.1, 5)

_CONNECTION: Final = "connection"  # key of a problem


def wall_clock() -> int:
    """Return microseconds since 1970-01-01 UTC."""
    return time.time_ns() // 1000


class Publisher:
    """Publishes a fleet's messages.

    Attributes:
        problems: Why nothing is published; for the readiness check.
    """

    def __init__(
        self,
        fleet: Fleet,
        host: str,
        port: int,
        *,
        clock: Callable[[], int] = wall_clock,
        backoff: Backoff = BACKOFF,
    ) -> None:
        self._fleet = fleet
        self._host = host
        self._port = port
        self._clock = clock
        self._backoff = backoff
        self._client_id = f"sens-mock-fleet-{secrets.token_hex(4)}"
        self._next = 0
        self._again: list[Message] = []
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

    async def _use(self, session: Session) -> None:
        metrics.CONNECTED.set(1)
        log.info("fleet is publishing", devices=len(self._fleet.sensors), rate=self._fleet.rate)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(session.receive(), name="take acknowledgements")
                tasks.create_task(self._publish(session), name="publish")
        finally:
            metrics.CONNECTED.set(0)
            # Not acknowledged means not known to have arrived: sent again, as QoS 1 asks (MQTT 5.0, section 4.4).
            self._again = [*session.unacknowledged, *self._again]

    async def _publish(self, session: Session) -> NoReturn:
        quiet_since = time.monotonic()
        while True:
            await session.wait_for_room()
            messages = self._take(min(BATCH, session.room))
            if messages:
                await session.publish(messages)
                quiet_since = time.monotonic()
            elif time.monotonic() - quiet_since > PING_SECONDS:
                await session.ping()
                quiet_since = time.monotonic()
            await asyncio.sleep(self._pause())

    def _take(self, room: int) -> list[Message]:
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
        self._fleet = self._fleet.starting(now)
        self._next = 0

    def _pause(self) -> float:
        """Return seconds until the next message is due or a ping may be."""
        if self._again:
            return 0
        seconds = (self._fleet.due(self._next) - self._clock()) / 1_000_000
        return min(max(seconds, PAUSE_SECONDS), PING_SECONDS)
