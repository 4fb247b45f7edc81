"""An envelope as JetStream delivers it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import structlog
from nats.aio.msg import Msg

from sens_common import envelope
from sens_common.dead_letters import Origin
from sens_common.envelope import Message
from sens_common.topics import TOPICS
from sens_telemetry_worker.batch import StreamPosition

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, eq=False)
class StreamEnvelope:
    """An envelope taken from the stream, as `batch.Envelope`.

    Attributes:
        size: Bytes of its body.
    """

    position: StreamPosition
    stored_at: float
    messages: list[Message]
    replays: int
    received: Mapping[str, int]
    discarded: Mapping[str, int]
    size: int
    import_days: int
    _origins: Sequence[Origin]
    _delivery: Msg

    @classmethod
    def read(cls, delivery: Msg, stream_created_at: int) -> Self:
        """Read a JetStream message; `stream_created_at` in microseconds since the epoch."""
        position = StreamPosition(stream_created_at, delivery.metadata.sequence.stream)
        stored_at = delivery.metadata.timestamp.timestamp()
        headers = delivery.headers or {}
        replays = _small_number(headers, envelope.REPLAYS_HEADER)
        try:
            messages = envelope.decode(delivery.data)
        except ValueError as error:
            # Not ours, but not for us to drop either: it becomes a dead letter without a topic.
            log.warning(
                "the stream has a message that is not an envelope",
                subject=delivery.subject,
                sequence=position.sequence,
                error=str(error),
            )
            messages = [Message("", delivery.data, int(stored_at * 1e6))]
            headers = {}
        received = _counts(headers, envelope.RECEIVED_HEADER)
        if received is None:
            received = TOPICS.count_by_tenant([message.topic for message in messages])
        return cls(
            position=position,
            stored_at=stored_at,
            messages=messages,
            replays=replays,
            received=received,
            discarded=_counts(headers, envelope.DISCARDED_HEADER) or {},
            size=len(delivery.data),
            import_days=_small_number(headers, envelope.IMPORT_HEADER),
            _origins=_replayed_origins(headers),
            _delivery=delivery,
        )

    def origin(self, index: int) -> Origin:
        """See `batch.Envelope.origin`."""
        return _origin(self.position, index, self._origins, len(self.messages))

    async def acknowledge(self) -> None:
        """Settle the envelope."""
        await self._delivery.ack()

    async def keep_in_progress(self) -> None:
        """Begin the time limit for acknowledging again."""
        await self._delivery.in_progress()

    async def release(self, delay_seconds: float | None = None) -> None:
        """Give the envelope back, for another worker or for later."""
        await self._delivery.nak(delay=delay_seconds)


def messages_in(data: bytes, headers: Mapping[str, str], position: StreamPosition) -> list[tuple[Message, Origin]]:
    """Return the messages of an envelope, and where each came from first; what is no envelope has none."""
    try:
        messages = envelope.decode(data)
    except ValueError:
        return []
    origins = _replayed_origins(headers)
    return [(message, _origin(position, index, origins, len(messages))) for index, message in enumerate(messages)]


def _origin(position: StreamPosition, index: int, replayed: Sequence[Origin], count: int) -> Origin:
    """Return where a message of an envelope came from first."""
    return replayed[index] if len(replayed) == count else Origin(*position, index)


def _small_number(headers: Mapping[str, str], name: str) -> int:
    """Return the number in a header, 0 where there is none."""
    text = headers.get(name, "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0  # noqa: PLR2004


def _counts(headers: Mapping[str, str], name: str) -> dict[str, int] | None:
    """Return the counts by tenant in a header, None when there are none that can be read."""
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
