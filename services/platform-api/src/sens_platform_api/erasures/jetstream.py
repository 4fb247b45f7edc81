"""The stream ``CONTROL`` (`sens_common.control`), which keeps erasures for longer than any backup of the database."""

import contextlib
from collections.abc import AsyncIterator, Iterator

import structlog
from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.js.api import DiscardPolicy, RetentionPolicy, StorageType, StreamConfig
from nats.js.errors import NotFoundError

from sens_common.control import ERASURE_SUBJECT, Erasure, decode, encode
from sens_common.errors import UnavailableError, words_of
from sens_common.names import CONTROL_STREAM, CONTROL_SUBJECT
from sens_platform_api.erasures.service import Position

log = structlog.get_logger()


class ControlStream:
    """The stream in JetStream; it is made with the first erasure."""

    def __init__(self, client: Client, replicas: int) -> None:
        self._client = client
        self._replicas = replicas

    async def publish(self, erasure: Erasure) -> None:
        """See `service.Control.publish`."""
        with self._translated_errors():
            jetstream = self._client.jetstream()
            try:
                await jetstream.stream_info(CONTROL_STREAM)
            except NotFoundError:
                await jetstream.add_stream(
                    StreamConfig(
                        name=CONTROL_STREAM,
                        description="Erasures, which are carried out again after a restore of the database",
                        subjects=[f"{CONTROL_SUBJECT}.>"],
                        retention=RetentionPolicy.LIMITS,
                        storage=StorageType.FILE,
                        discard=DiscardPolicy.NEW,
                        num_replicas=self._replicas,
                        allow_direct=True,
                        deny_delete=True,
                        deny_purge=True,
                    )
                )
                log.info("stream created", stream=CONTROL_STREAM)
            await jetstream.publish(ERASURE_SUBJECT, encode(erasure), stream=CONTROL_STREAM)

    async def after(self, position: Position) -> AsyncIterator[tuple[Position, Erasure | None]]:
        """See `service.Control.after`."""
        with self._translated_errors():
            jetstream = self._client.jetstream()
            try:
                info = await jetstream.stream_info(CONTROL_STREAM)
            except NotFoundError:
                return
            created = 0 if info.created is None else int(info.created.timestamp() * 1e6)
            first = position.sequence + 1 if position.stream == created else 1
            for sequence in range(max(first, info.state.first_seq), info.state.last_seq + 1):
                message = await jetstream.get_msg(CONTROL_STREAM, seq=sequence)
                yield Position(created, sequence), _erasure(message.data or b"", sequence)

    @contextlib.contextmanager
    def _translated_errors(self) -> Iterator[None]:
        if not self._client.is_connected:
            raise UnavailableError(
                "NATS can't be reached; an erasure has to wait for it, because it is written there first"
            )
        try:
            yield
        except (NatsError, TimeoutError, OSError) as error:
            raise UnavailableError(f"NATS does not do what is needed: {words_of(error)}") from error


def _erasure(body: bytes, sequence: int) -> Erasure | None:
    try:
        return decode(body)
    except ValueError as error:
        log.warning("a message of the stream CONTROL is not understood", sequence=sequence, error=str(error))
        return None
