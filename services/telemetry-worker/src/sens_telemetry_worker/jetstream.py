"""The log, on NATS."""

import asyncio
import contextlib
import json
import time
from collections import deque
from collections.abc import AsyncIterator, Mapping
from typing import Final

import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import Error as NatsError
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

from sens_common import envelope
from sens_common.dead_letters import Origin
from sens_common.envelope import Message
from sens_common.errors import UnavailableError
from sens_common.jetstream import ensure_streams
from sens_common.names import (
    TELEMETRY_CONSUMER,
    TELEMETRY_STREAM,
)
from sens_common.settings import NatsSettings
from sens_common.stopping import wait_or_stop
from sens_telemetry_worker.accounting import Place, count_by_tenant
from sens_telemetry_worker.settings import BatchSettings

log = structlog.get_logger()

ACK_WAIT_SECONDS: Final = 10.0
"""An envelope that its worker neither settles nor holds for this long is given to another one."""

_HOLD_INTERVAL_SECONDS: Final = 3.0
_PULL_EXPIRES_SECONDS: Final = 20.0
_PULL_HEARTBEAT_SECONDS: Final = 1.0
_PULL_SILENCE_SECONDS: Final = 4.0
"""A request of which nothing is heard for this long, not even that it waits, is lost."""

_PULL_ENVELOPES: Final = 128
_PULL_BYTES: Final = 8 << 20
"""Envelopes of this size are asked for at once, and stored at once; one that is larger comes alone."""

_BEHIND_SECONDS: Final = 0.25
"""A worker is behind when the envelope that it takes next has been in the log for longer than this."""

_POSTPONED_SECONDS: Final = 30.0
_RESTORE_SECONDS: Final = 1.0
_MAX_ACK_PENDING: Final = 10_000


class LogEntry:
    """An envelope taken from the log, as `accounting.Entry`."""

    __slots__ = ("_message", "_origins", "discarded", "logged_at", "messages", "place", "received", "replays", "size")

    def __init__(self, message: Msg, stream_created_at: int) -> None:
        """Read a message; `stream_created_at` in microseconds since the epoch."""
        sequence = message.metadata.sequence.stream
        self.logged_at = message.metadata.timestamp.timestamp()
        self._message = message
        self.size = len(message.data)
        self.place = Place(stream_created_at, sequence)
        headers = message.headers or {}
        replays = headers.get(envelope.REPLAYS_HEADER, "")
        self.replays = int(replays) if replays.isascii() and replays.isdigit() and len(replays) < 10 else 0  # noqa: PLR2004
        try:
            self.messages = envelope.decode(message.data)
        except ValueError as error:
            # Not ours, but not for us to drop either: it becomes a dead letter without a topic.
            log.warning(
                "the log holds what is not an envelope", subject=message.subject, sequence=sequence, error=str(error)
            )
            self.messages = [Message("", message.data, int(self.logged_at * 1e6))]
            headers = {}
        received = _counts(headers, envelope.RECEIVED_HEADER)
        self.received = count_by_tenant(self.messages) if received is None else received
        self.discarded = _counts(headers, envelope.DISCARDED_HEADER) or {}
        self._origins = _replayed_origins(headers)

    def origin(self, index: int) -> Origin:
        """See `accounting.Entry.origin`."""
        if len(self._origins) == len(self.messages):
            return self._origins[index]
        return Origin(*self.place, index)

    async def acknowledge(self) -> None:
        """Settle the envelope."""
        await self._message.ack()

    async def hold(self) -> None:
        """Begin the time limit for settling anew."""
        await self._message.in_progress()

    async def release(self, delay_seconds: float | None = None) -> None:
        """Give the envelope back, for another worker or for later."""
        await self._message.nak(delay=delay_seconds)


def _counts(headers: Mapping[str, str], name: str) -> dict[str, int] | None:
    """Return the numbers by tenant in a header, None when there is none that can be read."""
    try:
        return envelope.decode_counts(headers[name]) if name in headers else None
    except ValueError as error:
        log.warning("an envelope's header can't be read", header=name, error=str(error))
        return None


def _replayed_origins(headers: Mapping[str, str]) -> list[Origin]:
    """Return the origins of replayed messages, in their order; none where it is no replay."""
    try:
        return envelope.decode_origins(headers[envelope.REPLAY_OF_HEADER])
    except (KeyError, ValueError):
        return []


class LogInbox:
    """The log, as `pipeline.Inbox`: a standing pull request to the durable consumer that all workers share.

    nats-py's own `fetch` either does not wait for more messages or waits for all of them; here the requests stay open and
    `take` decides how long to wait. The server says every second that a request still waits (NATS documentation, "Consumers",
    ``idle_heartbeat``), so that one which it has forgotten, after a restart for example, is noticed.

    A batch waits shortly for more messages, and longer when the worker is behind: then latency is lost already, and a larger
    batch costs less a message.

    Attributes:
        problem: Why nothing can be taken just now, None when all is well; for the readiness check.
    """

    def __init__(self, client: Client, settings: NatsSettings, batch: BatchSettings) -> None:
        self._client = client
        self._settings = settings
        self._batch_messages = batch.messages
        self._linger_seconds = batch.linger_milliseconds / 1000
        self._linger_seconds_behind = max(batch.linger_milliseconds, batch.linger_milliseconds_behind) / 1000
        self._stream_created_at = 0
        self._entries: deque[LogEntry] = deque()
        self._messages = 0
        self._bytes = 0
        self._arrived = asyncio.Event()
        self._requested = 0
        self._silent_at = 0.0
        self._consumer_missing = False
        self._inbox = client.new_inbox()
        self._subscription: Subscription | None = None
        self._turn = asyncio.Lock()
        self.problem: str | None = "not opened yet"

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Receive while the context is open; what was received and not taken is given back at its end.

        Raises:
            UnavailableError: JetStream does not answer, or refuses the streams or the consumer.
        """
        self._stream_created_at = await ensure_consumer(self._client, self._settings)
        self._subscription = await self._client.subscribe(self._inbox, cb=self._receive)
        self.problem = None
        try:
            yield
        finally:
            with contextlib.suppress(NatsError):
                await self._subscription.unsubscribe()
                for entry in self._entries:
                    await entry.release()

    async def take(self, stop: asyncio.Event, *, rejected_share: float = 0.0) -> list[LogEntry]:
        """See `pipeline.Inbox.take`. Lanes take turns; a batch is at most twice as large for what is rejected."""
        wanted = round(self._batch_messages / (1 - min(rejected_share, 0.5)))
        async with self._turn:
            while not self._entries:
                if stop.is_set():
                    return []
                if self._consumer_missing:
                    await self._restore(stop)
                    continue
                await self._request()
                await self._wait(stop, self._silent_at - time.monotonic())
            behind = time.time() - self._entries[0].logged_at > _BEHIND_SECONDS
            deadline = time.monotonic() + (self._linger_seconds_behind if behind else self._linger_seconds)
            while (
                self._messages < wanted
                and self._bytes < _PULL_BYTES
                and (left := deadline - time.monotonic()) > 0
                and not stop.is_set()
            ):
                await self._request()
                await self._wait(stop, left)
            taken: list[LogEntry] = []
            count = size = 0
            while self._entries:
                entry = self._entries[0]
                count += len(entry.messages)
                size += entry.size
                if taken and (count > wanted or size > _PULL_BYTES):
                    break
                taken.append(self._entries.popleft())
                self._messages -= len(entry.messages)
                self._bytes -= entry.size
            await self._request()
            return taken

    async def _restore(self, stop: asyncio.Event) -> None:
        """Make stream and consumer anew: somebody has removed them, or JetStream is not up yet."""
        try:
            self._stream_created_at = await ensure_consumer(self._client, self._settings)
        except UnavailableError as error:
            self.problem = str(error)
            log.warning("nothing can be taken from the log; trying again", error=str(error))
            await wait_or_stop(stop, _RESTORE_SECONDS)
        else:
            log.info("the log can be read again")
            self._consumer_missing = False
            self.problem = None

    @contextlib.asynccontextmanager
    async def holding(self, entries: list[LogEntry]) -> AsyncIterator[None]:
        """See `pipeline.Inbox.holding`; what waits for its turn is held as well."""
        holding = asyncio.create_task(self._hold(entries), name="hold envelopes")
        try:
            yield
        finally:
            holding.cancel()

    async def _hold(self, entries: list[LogEntry]) -> None:
        while True:
            await asyncio.sleep(_HOLD_INTERVAL_SECONDS)
            with contextlib.suppress(NatsError):
                for entry in [*entries, *self._entries]:
                    await entry.hold()

    async def acknowledge(self, entries: list[LogEntry]) -> None:
        """See `pipeline.Inbox.acknowledge`. An acknowledgement that gets lost makes the envelope come again, to no effect."""
        for entry in entries:
            try:
                await entry.acknowledge()
            except NatsError as error:
                log.warning("an envelope could not be acknowledged; it comes again", error=str(error))

    async def postpone(self, entries: list[LogEntry]) -> None:
        """See `pipeline.Inbox.postpone`."""
        for entry in entries:
            with contextlib.suppress(NatsError):
                await entry.release(_POSTPONED_SECONDS)

    async def _receive(self, message: Msg) -> None:
        self._silent_at = time.monotonic() + _PULL_SILENCE_SECONDS
        headers = (message.headers or {}) if not message.reply else {}
        status = headers.get("Status")
        if status is not None:
            # 100: it waits. 404, 408: nothing more for this request. 409: it would become too large, or the consumer is gone.
            # 503: there is no consumer to ask (NATS architecture decision record 13, "Pull Subscribe internals").
            if status != "100":
                self._requested = 0
            if status == "503" or (status == "409" and headers.get("Description", "") == "Consumer Deleted"):
                self._consumer_missing = True
        else:
            entry = LogEntry(message, self._stream_created_at)
            self._requested = max(0, self._requested - 1)
            self._entries.append(entry)
            self._messages += len(entry.messages)
            self._bytes += entry.size
        self._arrived.set()

    async def _request(self) -> None:
        """Keep enough envelopes on their way; ask for none while two batches' worth waits, in number or in size."""
        now = time.monotonic()
        if not self._client.is_connected:
            self._requested = 0  # a lost connection swallows a request
            self._silent_at = now + _PULL_SILENCE_SECONDS
            return
        if now > self._silent_at:
            self._requested = 0
        enough = self._messages >= 2 * self._batch_messages or self._bytes >= 2 * _PULL_BYTES
        if self._requested or enough or len(self._entries) >= _PULL_ENVELOPES:
            return
        self._requested = _PULL_ENVELOPES
        self._silent_at = now + _PULL_SILENCE_SECONDS
        request = {
            "batch": _PULL_ENVELOPES,
            "expires": int(_PULL_EXPIRES_SECONDS * 1e9),
            "idle_heartbeat": int(_PULL_HEARTBEAT_SECONDS * 1e9),
            # An envelope that is larger than this would never come.
            "max_bytes": max(_PULL_BYTES, self._client.max_payload + envelope.OVERHEAD_BYTES),
        }
        subject = f"$JS.API.CONSUMER.MSG.NEXT.{TELEMETRY_STREAM}.{TELEMETRY_CONSUMER}"
        with contextlib.suppress(NatsError):
            await self._client.publish(subject, json.dumps(request).encode(), reply=self._inbox)

    async def _wait(self, stop: asyncio.Event, seconds: float) -> None:
        self._arrived.clear()
        waiting = [asyncio.create_task(self._arrived.wait()), asyncio.create_task(stop.wait())]
        try:
            # A connection that is lost meanwhile wakes nobody; a second is soon enough to notice.
            await asyncio.wait(waiting, timeout=min(max(seconds, 0.0), 1.0), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waiting:
                task.cancel()


async def ensure_consumer(client: Client, settings: NatsSettings) -> int:
    """Make the streams and the durable consumer, if need be; return when the log was made, microseconds since the epoch.

    Raises:
        UnavailableError: JetStream does not answer, or refuses.
    """
    jetstream = client.jetstream()
    await ensure_streams(jetstream, settings)
    try:
        await jetstream.add_consumer(
            TELEMETRY_STREAM,
            ConsumerConfig(
                durable_name=TELEMETRY_CONSUMER,
                deliver_policy=DeliverPolicy.ALL,
                ack_policy=AckPolicy.EXPLICIT,
                ack_wait=ACK_WAIT_SECONDS,
                max_ack_pending=_MAX_ACK_PENDING,
                max_deliver=-1,
            ),
        )
        info = await jetstream.stream_info(TELEMETRY_STREAM)
    except (NatsError, TimeoutError) as error:
        reason = getattr(error, "description", None) or str(error) or type(error).__name__
        raise UnavailableError(
            f"JetStream refuses or does not answer for consumer {TELEMETRY_CONSUMER}: {reason}"
        ) from error
    return int(info.created.timestamp() * 1e6) if info.created is not None else 0
