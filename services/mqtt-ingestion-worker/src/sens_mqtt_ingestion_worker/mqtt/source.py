"""The broker: opens connections to it."""

import asyncio
import contextlib
import functools
import ssl
from collections.abc import AsyncIterator, Sequence
from typing import Final, NamedTuple, Protocol

from sens_common.attempts import Attempts, Backoff
from sens_common.brokers import address_of
from sens_common.errors import SettingsError, UnavailableError
from sens_common.health import Problems
from sens_common.ingestion.clock import ReceiptClock
from sens_mqtt_ingestion_worker.filters import earlier_forms
from sens_mqtt_ingestion_worker.mqtt.connection import MqttConnection
from sens_mqtt_ingestion_worker.mqtt.session import SessionSettings
from sens_mqtt_ingestion_worker.pipeline import SourceUnavailableError
from sens_mqtt_ingestion_worker.source_routes import SourceRoutes

_RECORD_AGAIN_SECONDS: Final = 5.0
_REFUSED_AGAIN_SECONDS: Final = 60.0


class Target(NamedTuple):
    """Where a connection goes, and how.

    Attributes:
        broker: For people.
        settings: Of the broker and the session.
        hosts: Names or addresses, tried one after another.
        port: Of all of them.
        tls: Context of a client, None without TLS.
        server_name: Of the broker's certificate.
    """

    broker: str
    settings: SessionSettings
    hosts: Sequence[str]
    port: int
    tls: ssl.SSLContext | None
    server_name: str


class Broker(Protocol):
    """Finds out where the broker is."""

    @property
    def settings(self) -> SessionSettings:
        """Of the broker and the session; those of the user may be missing."""

    async def target(self) -> Target:
        """Return where the next connection goes.

        Raises:
            SourceUnavailableError: It goes nowhere; says why.
        """


class PlatformBroker:
    """The broker of the settings, as `Broker`."""

    def __init__(self, settings: SessionSettings, ca_file: str | None) -> None:
        """Take the settings.

        Raises:
            SettingsError: The certificate authority's file can't be used.
        """
        self.settings = settings
        host, port, is_tls = address_of(settings.url)
        try:
            tls = ssl.create_default_context(cafile=ca_file) if is_tls else None
        except OSError as error:
            raise SettingsError(f"SENS_MQTT__CA_FILE: can't be used as a certificate authority: {error}") from error
        self._target = Target(f"{host} port {port}", settings, [host], port, tls, host)

    async def target(self) -> Target:
        """See `Broker.target`."""
        return self._target


class SubscriptionRecord(Protocol):
    """Where it is kept what the session is subscribed to, since no broker tells it."""

    async def load(self) -> frozenset[str] | None:
        """Return the filters, or more than these; None when nothing is known of the session.

        Raises:
            UnavailableError: They can't be read.
        """

    async def save(self, filters: frozenset[str]) -> None:
        """Keep the filters.

        Raises:
            UnavailableError: They can't be kept.
        """


class MqttSource:
    """The broker, as `pipeline.Source`.

    A session keeps its subscriptions, also those that the settings no longer name; with two that match, every message comes twice.
    So the record of a session names at any moment at least the subscriptions that it has: it grows before the broker is asked to subscribe,
    and shrinks after the broker has unsubscribed. A crash in between leaves too many in the record; unsubscribing those has no effect.

    Attributes:
        subscriptions: What is wrong with the session's subscriptions; for the readiness check.
    """

    def __init__(
        self,
        broker: Broker,
        clock: ReceiptClock,
        record: SubscriptionRecord,
        routes: SourceRoutes | None = None,
        *,
        max_packet_bytes: int,
        subscriptions: Problems | None = None,
        refused_again_seconds: float = _REFUSED_AGAIN_SECONDS,
    ) -> None:
        """Prepare, without connecting.

        Args:
            broker: Where it is, and the session's settings.
            clock: For the receipt times.
            record: Of the session's subscriptions.
            routes: The sources on this broker; the session follows when they change.
            max_packet_bytes: Largest packet that is taken; the broker is told.
            subscriptions: Where to say what is wrong with those.
            refused_again_seconds: After which the broker is asked again for what it has refused.
        """
        self._broker = broker
        self._record = record
        self._routes = routes or SourceRoutes(broker.settings.topic_filters)
        self._recorded: frozenset[str] | None = None  # None: not read yet
        self._connection: MqttConnection | None = None
        self._is_over = False
        self.subscriptions = subscriptions or Problems("subscriptions")
        # What the record has too much is unsubscribed once more, to no effect: that makes the worker no less ready.
        self._recording = Attempts(
            Problems("session_record"),
            "save",
            "the session's subscriptions can't be recorded",
            retry_on=(UnavailableError,),
            why_says_all=True,
            backoff=Backoff(_RECORD_AGAIN_SECONDS, _RECORD_AGAIN_SECONDS),
        )
        self._max_packet_bytes = max_packet_bytes
        self._clock = clock
        self._refused_again_seconds = refused_again_seconds

    @contextlib.asynccontextmanager
    async def connect(self) -> AsyncIterator[MqttConnection]:
        """Open a connection, resume or begin the session, and subscribe. See `pipeline.Source.connect`."""
        target = await self._broker.target()
        try:
            recorded = await self._before_subscribing()
        except UnavailableError as error:
            raise SourceUnavailableError(str(error)) from error
        wanted = self._wanted
        connection = MqttConnection(
            target.settings, self._max_packet_bytes, self._clock, recorded - wanted, self._routes
        )
        try:
            await _open(connection, target)
        except BaseException:
            connection.abort()
            raise
        keeping = asyncio.create_task(connection.keep_alive(), name="mqtt keep-alive")
        settling = asyncio.create_task(self._keep_subscribed(connection, wanted), name="mqtt subscriptions")
        self._connection = connection
        try:
            yield connection
        except SourceUnavailableError as error:
            raise error.at(target.broker) from error
        finally:
            self._connection = None
            keeping.cancel()
            settling.cancel()
            if self._is_over:
                connection.close_for_good(sorted(self._recorded or ()))
            else:
                connection.close()

    def reconnect(self, why: str) -> None:
        """Close the connection, if there is one; the next one has another target."""
        if self._connection is not None:
            self._connection.close(why)

    def end_session(self) -> None:
        """Let the broker forget the session when the connection is closed."""
        self._is_over = True

    @property
    def _wanted(self) -> frozenset[str]:
        """What the session is to be subscribed to."""
        return frozenset(self._broker.settings.topic_filters) | self._routes.filters

    async def _before_subscribing(self) -> frozenset[str]:
        """Return the filters to which the session may be subscribed, once they are recorded together with those it is going to have."""
        recorded = self._recorded
        if recorded is None:
            recorded = await self._record.load()
        wanted = self._wanted
        more = wanted | (recorded if recorded is not None else earlier_forms(wanted))
        if more != recorded:
            await self._record.save(more)
        self._recorded = more
        return more

    async def _keep_subscribed(self, connection: MqttConnection, subscribed: frozenset[str]) -> None:
        """Record what the session is subscribed to whenever the broker has subscribed and unsubscribed, and change it with the sources."""
        await self._after_subscribing(connection, subscribed)
        while True:
            refused = self._routes.refused
            await self._changed_or_time_to_ask_again(refused)
            wanted = self._wanted
            more = wanted - subscribed | wanted & refused
            if not more and wanted == subscribed:
                continue
            try:
                await self._before_subscribing()
            except UnavailableError as error:
                self.subscriptions.set("change", "sources have changed, and the session can't follow yet", str(error))
                await asyncio.sleep(_RECORD_AGAIN_SECONDS)
                self._routes.ask_again()
                continue
            self.subscriptions.clear("change")
            connection.change_subscriptions(sorted(more), subscribed - wanted)
            await self._after_subscribing(connection, wanted)
            subscribed = wanted

    async def _changed_or_time_to_ask_again(self, refused: frozenset[str]) -> None:
        """Wait until the sources are others, or until what the broker has refused may be allowed by now."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._refused_again_seconds if refused else None):
                await self._routes.changed()

    async def _after_subscribing(self, connection: MqttConnection, subscribed: frozenset[str]) -> None:
        """Record what the session is subscribed to, once the broker has subscribed and unsubscribed."""
        refused = await connection.settled()
        for topic_filter, answer in connection.answers.items():
            self._routes.note_answer(topic_filter, answer)
        if refused:
            self.subscriptions.set(
                "left over",
                f"the broker does not end the session's earlier subscriptions ({', '.join(sorted(refused))});"
                " messages that these match may come twice",
            )
            return
        self.subscriptions.clear("left over")
        await self._recording.run(functools.partial(self._record_subscribed, subscribed))

    async def _record_subscribed(self, subscribed: frozenset[str]) -> None:
        if self._recorded != subscribed:
            await self._record.save(subscribed)
            self._recorded = subscribed


async def _open(connection: MqttConnection, target: Target) -> None:
    """Connect, and be let in.

    Raises:
        SourceUnavailableError: The broker can't be reached, or refuses us.
    """
    seconds = target.settings.connect_timeout_seconds
    try:
        async with asyncio.timeout(seconds):
            await _reach(connection, target, seconds)
            await connection.open()
    except TimeoutError as error:
        raise SourceUnavailableError(f"{target.broker} did not answer within {seconds:g} s") from error
    except ssl.SSLError as error:
        why = getattr(error, "verify_message", "") or error.reason or str(error)
        raise SourceUnavailableError(f"{target.broker}: TLS fails: {why}", "tls_error") from error
    except OSError as error:
        raise SourceUnavailableError(f"{target.broker} can't be reached: {error.strerror or error}") from error
    except ValueError as error:  # a name that no certificate can have
        raise SourceUnavailableError(f"{target.broker}: {error}") from error
    except SourceUnavailableError as error:
        raise error.at(target.broker) from error


async def _reach(connection: MqttConnection, target: Target, seconds: float) -> None:
    """Connect to the first address that answers; one that does not leaves the others their share of the time."""
    loop = asyncio.get_running_loop()
    name = target.server_name if target.tls is not None else None
    *others, last = target.hosts
    for host in others:
        try:
            async with asyncio.timeout(seconds / len(target.hosts)):
                await loop.create_connection(
                    lambda: connection, host, target.port, ssl=target.tls, server_hostname=name
                )
        except ssl.SSLError:
            raise
        except OSError:
            continue
        return
    await loop.create_connection(lambda: connection, last, target.port, ssl=target.tls, server_hostname=name)
