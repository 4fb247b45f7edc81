"""The broker: opens connections to it."""

import asyncio
import contextlib
import ssl
import urllib.parse
from collections.abc import AsyncIterator
from typing import Final

from sens_common.errors import SettingsError
from sens_mqtt_ingestion_worker.clock import ReceiptClock
from sens_mqtt_ingestion_worker.mqtt.connection import MqttConnection
from sens_mqtt_ingestion_worker.pipeline import SourceUnavailableError
from sens_mqtt_ingestion_worker.settings import MqttSettings

_DEFAULT_PORTS: Final = {"mqtt": 1883, "mqtts": 8883}


class MqttSource:
    """The broker, as `pipeline.Source`."""

    def __init__(self, settings: MqttSettings, clock: ReceiptClock, *, max_packet_bytes: int) -> None:
        """Prepare, without connecting.

        Args:
            settings: Of the broker and the session.
            clock: For the receipt times.
            max_packet_bytes: Largest packet that the log can take; the smaller of this and the setting is told to the broker.

        Raises:
            SettingsError: The certificate authority's file can't be used.
        """
        self._settings = settings
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
        connection = MqttConnection(settings, self._max_packet_bytes, self._clock)
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
            raise SourceUnavailableError(f"{broker}: {error}") from error
        except asyncio.CancelledError:
            connection.abort()
            raise
        keeping = asyncio.create_task(connection.keep_alive(), name="mqtt keep-alive")
        try:
            yield connection
        except SourceUnavailableError as error:
            raise SourceUnavailableError(f"{broker}: {error}") from error
        finally:
            keeping.cancel()
            connection.close()
