"""The broker: sessions, routing, and clients that come and go (MQTT 5.0, section 4).

One process, one event loop, everything in memory. What a client can make it hold is bounded, and each bound has a metric.
"""

import asyncio
import secrets
from collections import Counter
from collections.abc import Sequence
from typing import Final

import structlog

from sens_mock_mqtt_broker import metrics
from sens_mock_mqtt_broker.connection import ClientConnection
from sens_mock_mqtt_broker.messages import ApplicationMessage
from sens_mock_mqtt_broker.received import NEVER_EXPIRES, Connect, FilterRequest, Will
from sens_mock_mqtt_broker.session import Session
from sens_mock_mqtt_broker.settings import BrokerSettings
from sens_mock_mqtt_broker.topics import Share, Subscription, SubscriptionTree, matches, parse_filter, topic_name
from sens_mock_mqtt_broker.unread import UnreadTopics
from sens_mock_mqtt_broker.wire import PacketError, ReasonCode

log = structlog.get_logger()

CONNECT_SECONDS: Final = 10.0
"""Time in which a client has to say CONNECT."""

PACKET_SECONDS: Final = 60.0
"""Time in which a packet that has begun has to be there."""

MOST_RETAINED: Final = 10_000
MOST_SUBSCRIPTIONS: Final = 1000
"""Of one session."""

_SWEEP_SECONDS: Final = 1.0


class Broker:
    """Everything that clients share; made where an event loop runs."""

    def __init__(self, settings: BrokerSettings) -> None:
        self.largest_packet = settings.max_packet_bytes
        self.largest_unfinished_bytes = max(settings.buffer_bytes, 2 * settings.max_packet_bytes)
        self.unfinished_bytes = 0
        self.unread = UnreadTopics()
        self._settings = settings
        self._time = asyncio.get_running_loop().time
        self._sessions: dict[str, Session] = {}
        self._clients: dict[Session, ClientConnection] = {}
        self._wills: dict[Session, asyncio.TimerHandle] = {}
        self._connections: dict[ClientConnection, None] = {}
        self._subscriptions: SubscriptionTree[Session] = SubscriptionTree()
        self._retained: dict[bytes, ApplicationMessage] = {}
        self._retained_bytes = 0
        self._has_subscribed = asyncio.Event()

    def reads(self, topics: Sequence[str]) -> bool:
        """Tell whether somebody has subscribed to one of the topics."""
        for topic in map(str.encode, topics):
            receivers = self._subscriptions.receivers(len(topic).to_bytes(2) + topic)
            if receivers.sessions or receivers.shares:
                return True
        return False

    async def arrives(self, topics: Sequence[str]) -> None:
        """Wait until somebody has subscribed to one of the topics."""
        while not self.reads(topics):
            self._has_subscribed.clear()
            await self._has_subscribed.wait()

    async def sweep(self) -> None:
        """End connections of clients that have been silent for too long, for ever."""
        while True:
            now = self._time()
            for connection in list(self._connections):
                if (
                    connection.is_unfinished
                    and now - connection.waiting_since
                    > (CONNECT_SECONDS if connection.session is None else PACKET_SECONDS)
                ) or 0 < 1.5 * connection.keep_alive_seconds < now - connection.heard_at:
                    connection.end(ReasonCode.KEEP_ALIVE_TIMEOUT)
            await asyncio.sleep(_SWEEP_SECONDS)

    def close(self) -> None:
        """End all connections; wills are not published, for nobody is left to read them."""
        for connection in list(self._connections):
            connection.will = None
            connection.end(ReasonCode.SERVER_SHUTTING_DOWN)

    def opened(self, connection: ClientConnection) -> None:
        """A connection has come. Those that have not said CONNECT can't keep others out: the oldest of too many is ended."""
        self._connections[connection] = None
        metrics.CLIENTS.set(len(self._connections))
        if len(self._connections) > 2 * self._settings.max_connections:
            silent = next((one for one in self._connections if one.session is None and one.ended is None), None)
            if silent is not None:
                silent.end(ReasonCode.SERVER_BUSY)

    def closed(self, connection: ClientConnection) -> None:
        """A connection has gone."""
        self._connections.pop(connection, None)
        metrics.CLIENTS.set(len(self._connections))
        session = connection.session
        if session is not None and self._clients.get(session) is connection:
            self._leave(session, connection)

    def connect(self, connection: ClientConnection, packet: Connect) -> tuple[Session, bool]:
        """Give a client its session; tell whether it is an earlier one (section 3.1.2.4).

        Raises:
            PacketError: There are too many clients.
        """
        before = self._sessions.get(packet.client_id) if packet.client_id else None
        other = None if before is None else self._clients.get(before)
        if before is not None and other is not None:
            other.end(ReasonCode.SESSION_TAKEN_OVER)
            self._leave(before, other)
            before = self._sessions.get(packet.client_id)
        self._make_room(connection)
        if before is not None and packet.clean_start:
            self._remove(before)
            before = None
        session = before or self._new_session(packet.client_id)
        if session.end is not None:
            session.end.cancel()
            session.end = None
        if (will := self._wills.pop(session, None)) is not None:
            will.cancel()
        session.expiry_seconds = packet.session_expiry_seconds
        self._clients[session] = connection
        return session, before is not None

    def subscribe(
        self, session: Session, requests: Sequence[FilterRequest]
    ) -> tuple[list[int], list[tuple[ApplicationMessage, int]]]:
        """Subscribe a session; return the codes of SUBACK, and retained messages with their flags (section 3.8.4)."""
        codes: list[int] = []
        retained: list[tuple[ApplicationMessage, int]] = []
        for text, qos, no_local, retain_as_published, handling in requests:
            topic_filter = parse_filter(text)
            known = text in session.subscriptions
            if topic_filter is None:
                codes.append(ReasonCode.TOPIC_FILTER_INVALID)
                continue
            if not known and len(session.subscriptions) >= MOST_SUBSCRIPTIONS:
                codes.append(ReasonCode.QUOTA_EXCEEDED)
                continue
            subscription = Subscription(qos, no_local, retain_as_published)
            session.subscriptions[text] = topic_filter, subscription
            self._subscriptions.add(topic_filter, session, subscription)
            self._has_subscribed.set()
            codes.append(qos)
            if topic_filter.share is None and (handling == 0 or (handling == 1 and not known)):
                retained += [
                    (message, min(qos, message.qos) << 1 | 1)
                    for message in self._retained.values()
                    if matches(topic_filter.levels, topic_name(message.topic))
                ]
        return codes, retained

    def unsubscribe(self, session: Session, filters: Sequence[str]) -> list[int]:
        """Take subscriptions back; return the codes of UNSUBACK (section 3.11.3)."""
        codes: list[int] = []
        for text in filters:
            known = session.subscriptions.pop(text, None)
            if known is None:
                codes.append(ReasonCode.NO_SUBSCRIPTION_EXISTED)
            else:
                self._subscriptions.remove(known[0], session)
                codes.append(ReasonCode.SUCCESS)
        return codes

    def publish(self, message: ApplicationMessage, publisher: Session | None = None) -> ReasonCode:
        """Pass a message on; return what its publisher is told.

        Raises:
            PacketError: Its topic is none.
        """
        receivers = self._subscriptions.receivers(message.topic)
        if message.retain:
            self._retain(message)
        if not receivers.sessions and not receivers.shares:
            if not message.retain:
                self.unread.count(message.topic)
            return ReasonCode.NO_MATCHING_SUBSCRIBERS
        for session, subscription in receivers.sessions:
            if subscription.no_local and session is publisher:
                continue
            flags = (min(subscription.qos, message.qos)) << 1
            session.deliver(message, flags | message.retain if subscription.retain_as_published else flags)
        for share in receivers.shares:
            session, subscription = _choose(share)
            session.deliver(message, min(message.qos, subscription.qos) << 1)
        return ReasonCode.SUCCESS

    def _retain(self, message: ApplicationMessage) -> None:
        before = self._retained.pop(message.topic, None)
        if before is not None:
            self._retained_bytes -= before.size
        if not message.payload:
            return
        if len(self._retained) >= MOST_RETAINED or self._retained_bytes + message.size > self._settings.buffer_bytes:
            metrics.NOT_RETAINED.inc()
            return
        self._retained[message.topic] = message
        self._retained_bytes += message.size

    def _new_session(self, client_id: str) -> Session:
        self._forget_one_too_many()
        session = Session(
            client_id or f"auto-{secrets.token_hex(8)}",
            buffer_bytes=self._settings.buffer_bytes,
            mark_repeated=self._settings.mark_repeated,
            clock=self._time,
        )
        self._sessions[session.client_id] = session
        metrics.SESSIONS.set(len(self._sessions))
        return session

    def _forget_one_too_many(self) -> None:
        """Keep no more sessions of clients that are away than clients may be there: the one away the longest goes."""
        if len(self._sessions) < 2 * self._settings.max_connections:
            return
        away = [session for session in self._sessions.values() if session not in self._clients]
        if away:
            oldest = min(away, key=lambda session: session.away_since)
            log.warning("a session was forgotten, for there are too many", client_id=oldest.client_id)
            self._remove(oldest)

    def _make_room(self, newcomer: ClientConnection) -> None:
        """See that there is room for a client: an address that has more than half of them gives one up to another address.

        Raises:
            PacketError: There is none.
        """
        if len(self._clients) < self._settings.max_connections:
            return
        address, count = Counter(one.address for one in self._clients.values()).most_common(1)[0]
        if address == newcomer.address or count <= self._settings.max_connections / 2:
            log.warning("a client was refused, for there are too many", address=newcomer.address)
            raise PacketError(ReasonCode.SERVER_BUSY, "there are too many clients")
        silent = min((one for one in self._clients.values() if one.address == address), key=lambda one: one.heard_at)
        log.warning("a client was ended, for its address has too many", address=address)
        silent.end(ReasonCode.QUOTA_EXCEEDED)
        if silent.session is not None:
            self._leave(silent.session, silent)

    def _leave(self, session: Session, connection: ClientConnection) -> None:
        """A session's client has gone: its will is due, and its session, now or later."""
        session.detach()
        session.away_since = self._time()
        del self._clients[session]
        will, connection.will = connection.will, None
        later = asyncio.get_running_loop().call_later
        if will is not None:
            delay = min(will.delay_seconds, session.expiry_seconds)
            if delay:
                self._wills[session] = later(delay, self._publish_will, will, session)
            else:
                self._publish_will(will)
        if not session.expiry_seconds:
            self._remove(session)
        elif session.expiry_seconds != NEVER_EXPIRES:
            session.end = later(session.expiry_seconds, self._remove, session)

    def _publish_will(self, will: Will, session: Session | None = None) -> None:
        if session is not None:
            self._wills.pop(session, None)
        expires_at = None
        if will.expiry_seconds is not None:
            expires_at = self._time() + will.expiry_seconds
        self.publish(
            ApplicationMessage(
                will.topic,
                will.payload,
                will.qos,
                int(will.retain),
                will.properties,
                expires_at,
            )
        )

    def _remove(self, session: Session) -> None:
        """Forget a session."""
        if self._sessions.get(session.client_id) is not session:
            return
        del self._sessions[session.client_id]
        metrics.SESSIONS.set(len(self._sessions))
        self.unsubscribe(session, list(session.subscriptions))
        if session.end is not None:
            session.end.cancel()


def _choose(share: Share[Session]) -> tuple[Session, Subscription]:
    """Return the member of a share that gets a message: one that can take it at once, else one that is there, else any."""
    best = None
    for member in share.in_turn():
        if member[0].has_room:
            return member
        if best is None or (member[0].is_connected and not best[0].is_connected):
            best = member
    if best is None:
        raise AssertionError("a share without members is removed with its last one")
    return best
