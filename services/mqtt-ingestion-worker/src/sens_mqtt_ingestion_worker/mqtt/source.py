"""The broker: opens connections to it."""

import asyncio
import contextlib
import functools
import ssl
import urllib.parse
from collections.abc import AsyncIterator
from typing import Final, Protocol

from sens_common.attempts import Attempts, Backoff
from sens_common.errors import SettingsError, UnavailableError
from sens_common.health import Problems
from sens_common.ingestion.clock import ReceiptClock
from sens_mqtt_ingestion_worker.filters import earlier_forms
from sens_mqtt_ingestion_worker.mqtt.connection import MqttConnection
from sens_mqtt_ingestion_worker.pipeline import SourceUnavailableError
from sens_mqtt_ingestion_worker.settings import MqttSettings
from sens_mqtt_ingestion_worker.source_routes import SourceRoutes

_DEFAULT_PORTS: Final = {"mqtt": 1883, "mqtts": 8883}
_RECORD_AGAIN_SECONDS: Final = 5.0


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
        settings: MqttSettings,
        clock: ReceiptClock,
        record: SubscriptionRecord,
        routes: SourceRoutes | None = None,
        *,
        max_packet_bytes: int,
    ) -> None:
        """Prepare, without connecting.

        Args:
            settings: Of the broker and the session.
            clock: For the receipt times.
            record: Of the session's subscriptions.
            routes: The sources on this broker; the session follows when they change.
            max_packet_bytes: Largest packet that the stream can take; the smaller of this and the setting is told to the broker.

        Raises:
            SettingsError: The certificate authority's file can't be used.
        """
        self._settings = settings
        self._record = record
        self._routes = routes or SourceRoutes(settings.topic_filters)
        self._recorded: frozenset[str] | None = None  # None: not read yet
        self.subscriptions = Problems("subscriptions")
        # What the record has too much is unsubscribed once more, to no effect: that makes the worker no less ready.
        self._recording = Attempts(
            Problems("session_record"),
            "save",
            "the session's subscriptions can't be recorded",
            retry_on=(UnavailableError,),
            why_says_all=True,
            backoff=Backoff(_RECORD_AGAIN_SECONDS, _RECORD_AGAIN_SECONDS),
        )
        self._max_packet_bytes = min(settings.max_packet_bytes, max_packet_bytes)
        parts = urllib.parse.urlsplit(settings.url)
        self._host = parts.hostname or ""
        self._port = parts.port or _DEFAULT_PORTS[parts.scheme]
        self._tls: ssl.SSLContext | None = None
        if parts.scheme == "mqtts":
            try:
                self._tls = ssl.create_default_context(cafile=settings.ca_file)
            except OSError as error:
                raise SettingsError(f"SENS_MQTT__CA_FILE: can't be used as a certificate authority: {error}") from error
        self._clock = clock

    @contextlib.asynccontextmanager
    async def connect(self) -> AsyncIterator[MqttConnection]:
        """Open a connection, resume or begin the session, and subscribe. See `pipeline.Source.connect`."""
        settings = self._settings
        loop = asyncio.get_running_loop()
        broker = f"{self._host} port {self._port}"
        try:
            recorded = await self._before_subscribing()
        except UnavailableError as error:
            raise SourceUnavailableError(str(error)) from error
        wanted = self._wanted
        connection = MqttConnection(settings, self._max_packet_bytes, self._clock, recorded - wanted, self._routes)
        try:
            async with asyncio.timeout(settings.connect_timeout_seconds):
                await loop.create_connection(lambda: connection, self._host, self._port, ssl=self._tls)
                await connection.open()
        except TimeoutError as error:
            connection.abort()
            raise SourceUnavailableError(
                f"{broker} did not answer within {settings.connect_timeout_seconds:g} s"
            ) from error
        except OSError as error:
            raise SourceUnavailableError(f"{broker} can't be reached: {error.strerror or error}") from error
        except SourceUnavailableError as error:
            connection.abort()
            raise type(error)(f"{broker}: {error}") from error
        except asyncio.CancelledError:
            connection.abort()
            raise
        keeping = asyncio.create_task(connection.keep_alive(), name="mqtt keep-alive")
        settling = asyncio.create_task(self._keep_subscribed(connection, wanted), name="mqtt subscriptions")
        try:
            yield connection
        except SourceUnavailableError as error:
            raise type(error)(f"{broker}: {error}") from error
        finally:
            keeping.cancel()
            settling.cancel()
            connection.close()

    @property
    def _wanted(self) -> frozenset[str]:
        """What the session is to be subscribed to."""
        return frozenset(self._settings.topic_filters) | self._routes.filters

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
            await self._routes.changed()
            wanted = self._wanted
            if wanted == subscribed:
                continue
            try:
                await self._before_subscribing()
            except UnavailableError as error:
                self.subscriptions.set("change", "sources have changed, and the session can't follow yet", str(error))
                await asyncio.sleep(_RECORD_AGAIN_SECONDS)
                self._routes.ask_again()
                continue
            self.subscriptions.clear("change")
            connection.change_subscriptions(sorted(wanted - subscribed), subscribed - wanted)
            await self._after_subscribing(connection, wanted)
            subscribed = wanted

    async def _after_subscribing(self, connection: MqttConnection, subscribed: frozenset[str]) -> None:
        """Record what the session is subscribed to, once the broker has subscribed and unsubscribed."""
        refused = await connection.settled()
        for topic_filter, refusal in connection.answers.items():
            self._routes.note_answer(topic_filter, refusal)
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
