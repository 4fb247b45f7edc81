"""What MQTT sessions are subscribed to, in a JetStream key-value bucket: no broker tells it."""

import hashlib
from typing import Final

import msgspec
import structlog
from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.api import KeyValueConfig, StorageType
from nats.js.errors import BucketNotFoundError, KeyNotFoundError
from nats.js.kv import KeyValue

from sens_common.errors import UnavailableError, words_of
from sens_common.names import SESSIONS_BUCKET, subject_token
from sens_common.settings import NatsSettings

log = structlog.get_logger()

_decoder: Final = msgspec.json.Decoder(frozenset[str])


class SessionRecord:
    """The record of one session, as `mqtt.source.SubscriptionRecord`: a key for each client identifier and broker, a JSON array of filters."""

    def __init__(self, jetstream: JetStreamContext, nats: NatsSettings, client_id: str, broker: str) -> None:
        self._jetstream = jetstream
        self._replicas = nats.replicas
        digest = hashlib.sha256(broker.encode()).hexdigest()[:16]
        # A key allows fewer characters than a subject's token (NATS documentation, "Key/Value Store").
        self._key = f"{subject_token(client_id).replace('%', '=')}.{digest}"

    async def load(self) -> frozenset[str] | None:
        """See `mqtt.source.SubscriptionRecord.load`."""
        try:
            found = await (await self._bucket()).get(self._key)
        except KeyNotFoundError:
            return None
        except (NatsError, TimeoutError, OSError) as error:
            raise UnavailableError(
                f"NATS does not tell what this session is subscribed to: {words_of(error)}"
            ) from error
        try:
            return _decoder.decode(found.value or b"")
        except msgspec.DecodeError as error:
            log.warning("the record of the session's subscriptions can't be read", key=self._key, error=str(error))
            return None

    async def save(self, filters: frozenset[str]) -> None:
        """See `mqtt.source.SubscriptionRecord.save`."""
        try:
            await (await self._bucket()).put(self._key, msgspec.json.encode(sorted(filters)))
        except (NatsError, TimeoutError, OSError) as error:
            raise UnavailableError(
                f"NATS does not keep what this session is subscribed to: {words_of(error)}"
            ) from error

    async def _bucket(self) -> KeyValue:
        try:
            return await self._jetstream.key_value(SESSIONS_BUCKET)
        except BucketNotFoundError:
            return await self._jetstream.create_key_value(
                KeyValueConfig(
                    SESSIONS_BUCKET,
                    description="What the MQTT sessions of the ingestion workers are subscribed to",
                    storage=StorageType.FILE,
                    replicas=self._replicas,
                )
            )
