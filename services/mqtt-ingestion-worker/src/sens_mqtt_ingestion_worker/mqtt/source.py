"""The broker: opens connections to it."""

import asyncio
import contextlib
import ssl
import urllib.parse
from collections.abc import AsyncIterator
from typing import Final, Protocol

from sens_common.attempts import Attempts, Backoff
from sens_common.errors import SettingsError, UnavailableError
from sens_common.health import Problems
from sens_mqtt_ingestion_worker.clock import ReceiptClock
from sens_mqtt_ingestion_worker.filters import earlier_forms
from sens_mqtt_ingestion_worker.mqtt.connection import MqttConnection
from sens_mqtt_ingestion_worker.pipeline import SourceUnavailableError
from sens_mqtt_ingestion_worker.settings import MqttSettings

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
        self, settings: MqttSettings, clock: ReceiptClock, record: SubscriptionRecord, *, max_packet_bytes: int
    ) -> None:
        """Prepare, without connecting.

        Args:
            settings: Of the broker and the session.
            clock: For the receipt times.
            record: Of the session's subscriptions.
            max_packet_bytes: Largest packet that the stream can take; the smaller of this and the setting is told to the broker.

        Raises:
            SettingsError: The certificate authority's file can't be used.
        """
        self._settings = settings
        self._record = record
        self._wanted = frozenset(settings.topic_filters)
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
        connection = MqttConnection(settings, self._max_packet_bytes, self._clock, recorded - self._wanted)
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
        settling = asyncio.create_task(self._after_subscribing(connection), name="mqtt subscriptions")
        try:
            yield connection
        except SourceUnavailableError as error:
            raise type(error)(f"{broker}: {error}") from error
        finally:
            keeping.cancel()
            settling.cancel()
            connection.close()

    async def _before_subscribing(self) -> frozenset[str]:
        """Return the filters to which the session may be subscribed, once they are recorded together with those it is going to have."""
        if self._recorded is None:
            known = await self._record.load()
            recorded = self._wanted | (known if known is not None else earlier_forms(self._wanted))
            if recorded != known:
                await self._record.save(recorded)
            self._recorded = recorded
        return self._recorded

    async def _after_subscribing(self, connection: MqttConnection) -> None:
        """Record what the session is subscribed to, once the broker has subscribed and unsubscribed."""
        refused = await connection.settled()
        if refused:
            self.subscriptions.set(
                "left over",
                f"the broker does not end the session's earlier subscriptions ({', '.join(sorted(refused))});"
                " messages that these match may come twice",
            )
            return
        self.subscriptions.clear("left over")
        await self._recording.run(self._record_wanted)

    async def _record_wanted(self) -> None:
        if self._recorded != self._wanted:
            await self._record.save(self._wanted)
            self._recorded = self._wanted
