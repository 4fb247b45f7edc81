"""Dead letters on their way back into the stream: with the times of their first receipt, and where they came from first."""

import hashlib
import itertools
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from sens_common import envelope
from sens_common.dead_letters import Origin
from sens_common.names import REPLAY_PUBLISHER, TELEMETRY_SUBJECT
from sens_common.topics import TOPICS

REPLAY_SUBJECT: Final = f"{TELEMETRY_SUBJECT}.{REPLAY_PUBLISHER}"
_ENVELOPE_MESSAGES: Final = 500
_MESSAGE_OVERHEAD_BYTES: Final = 32  # of MessagePack around topic, payload, time and packet id


class ReplayedMessage(NamedTuple):
    """A dead letter's message.

    Attributes:
        topic: As published.
        payload: The whole.
        received_at: When it was received first, microseconds since the epoch.
        origin: Where it came from first.
        replays: How often it was replayed before.
    """

    topic: str
    payload: bytes
    received_at: int
    origin: Origin
    replays: int


class ReplayEnvelope(NamedTuple):
    """A message for the stream, of which publishing it twice has no effect."""

    body: bytes
    headers: dict[str, str]


def envelopes(messages: Sequence[ReplayedMessage], max_payload: int) -> Iterator[ReplayEnvelope]:
    """Yield the envelopes of replayed messages.

    Storing the same message twice has no effect, and one that is refused again has one dead letter.

    Args:
        messages: Any.
        max_payload: Bytes that a message in NATS may have.
    """
    for together in _together(messages, max_payload - envelope.OVERHEAD_BYTES):
        origins = envelope.encode_origins([each.origin for each in together])
        replays = together[0].replays
        identity = hashlib.sha256(f"{origins} {replays}".encode()).hexdigest()
        yield ReplayEnvelope(
            envelope.encode([envelope.Message(each.topic, each.payload, each.received_at) for each in together]),
            {
                envelope.VERSION_HEADER: envelope.VERSION,
                envelope.COUNT_HEADER: str(len(together)),
                envelope.RECEIVED_HEADER: envelope.encode_counts(
                    TOPICS.count_by_tenant([each.topic for each in together])
                ),
                envelope.REPLAYS_HEADER: str(replays + 1),
                envelope.REPLAY_OF_HEADER: origins,
                envelope.MESSAGE_ID_HEADER: f"replay-{identity}",
            },
        )


def _together(messages: Sequence[ReplayedMessage], max_bytes: int) -> Iterator[list[ReplayedMessage]]:
    """Yield messages that go into one envelope: of one stream, replayed equally often, not too many or too large together."""

    def alike(message: ReplayedMessage) -> tuple[int, int]:
        return message.origin.stream_created_at, message.replays

    for _, group in itertools.groupby(sorted(messages, key=alike), alike):
        together: list[ReplayedMessage] = []
        size = 0
        for message in group:
            length = len(message.topic.encode()) + len(message.payload) + _MESSAGE_OVERHEAD_BYTES
            if together and (len(together) == _ENVELOPE_MESSAGES or size + length > max_bytes):
                yield together
                together, size = [], 0
            together.append(message)
            size += length
        yield together
