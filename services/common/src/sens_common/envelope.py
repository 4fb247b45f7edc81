"""The wire contract between the ingestion workers and the telemetry workers: one JetStream message is an envelope of MQTT messages.

The body is MessagePack: an array of arrays ``[topic, payload, received_at, packet_id]``:

- ``topic``: string, as published;
- ``payload``: binary, as published;
- ``received_at``: integer, microseconds since 1970-01-01T00:00:00Z, within a second of the clock, and never twice the same for a
  device, whichever replica received it, so that it can stand in for the time of a payload that carries none;
- ``packet_id``: integer, the MQTT packet identifier of the delivery (MQTT 5.0, section 2.2.1), 0 for QoS 0 and for replays.

Readers accept arrays with more elements than these, so that a newer writer can add some.

An array with a negative ``packet_id`` is the mark of a message that was discarded and that the broker may deliver again: `mark` makes it,
`decode` leaves it out.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Final

import msgspec

from sens_common.dead_letters import Origin

VERSION: Final = "1"
VERSION_HEADER: Final = "Sens-Envelope"
COUNT_HEADER: Final = "Sens-Count"
"""How many messages the envelope holds."""
TAIL_HEADER: Final = "Sens-Tail-From"
"""Stream sequence of the oldest envelope of this publisher that may hold messages the broker still counts as unacknowledged.
0 when that envelope is this one or unknown."""
CLOCK_HEADER: Final = "Sens-Clock"
"""The intervals in which this publisher may have given receipt times, since somebody set its clock: two JSON arrays of first and last,
microseconds since the epoch, one for each remainder that its times leave. Absent means: up to now, with its first remainder alone."""
REPLAYS_HEADER: Final = "Sens-Replays"
"""How often the messages of this envelope came from the dead letters; absent means never."""
REPLAY_OF_HEADER: Final = "Sens-Replay-Of"
"""Which dead letters the messages of a replay were: their origins (`dead_letters.Origin`), all of one stream. When it was made, hexadecimal, a
colon, and for each message, in their order and separated by commas, sequence, hyphen, index."""
RECEIVED_HEADER: Final = "Sens-Received"
"""How many messages of each tenant this envelope speaks for, those included that were discarded: a JSON object of the tenants in the
topics, `names.UNROUTED` where a topic names none."""
DISCARDED_HEADER: Final = "Sens-Discarded"
"""How many of those were discarded before this envelope, in the same form; absent means none."""
IMPORT_HEADER: Final = "Sens-Import"
"""The messages are lines of an import, and may lie so many days back, whatever else their tenant allows: a number in decimal. The API alone
writes it."""
OVERHEAD_BYTES: Final = 16_384
"""Room to leave in a NATS message for its headers, and in an envelope for everything beside topics and payloads."""
MESSAGE_ID_HEADER: Final = "Nats-Msg-Id"
"""JetStream's own deduplication header: a publish that is tried again carries the same one."""


class Message(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One MQTT message in an envelope."""

    topic: str
    payload: bytes
    received_at: int
    packet_id: int = 0


_ORIGINS: Final = re.compile(r"[0-9a-f]{1,15}:[0-9]{1,18}(-[0-9]{1,9})?(,[0-9]{1,18}(-[0-9]{1,9})?)*")
_encoder = msgspec.msgpack.Encoder()
_counts_decoder = msgspec.json.Decoder(dict[str, Annotated[int, msgspec.Meta(ge=0, lt=1 << 40)]])
_decoder = msgspec.msgpack.Decoder(list[Message])


def encode(messages: list[Message]) -> bytes:
    """Return the body of an envelope."""
    return _encoder.encode(messages)


def decode(body: bytes) -> list[Message]:
    """Return the messages of an envelope.

    Raises:
        ValueError: The body is not an envelope.
    """
    return [message for message in decode_with_marks(body) if message.packet_id >= 0]


def decode_with_marks(body: bytes) -> list[Message]:
    """Return the messages of an envelope, and the marks of those that were discarded, in the order in which they came from the broker.

    Raises:
        ValueError: The body is not an envelope.
    """
    try:
        return _decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:  # a ValidationError is a DecodeError
        raise ValueError(f"not an envelope: {error}") from error


def mark(message: Message) -> Message:
    """Return the mark of a message that was discarded: its packet identifier, negative, and a digest instead of its payload."""
    return Message("", digest(message), 0, -message.packet_id)


def digest(message: Message) -> bytes:
    """Return 8 bytes that stand for a message's topic and payload."""
    whole = hashlib.blake2b(message.topic.encode(errors="surrogatepass"), digest_size=8)
    whole.update(b"\0")  # no topic holds it (MQTT 5.0, section 4.7.3)
    whole.update(message.payload)
    return whole.digest()


def encode_origins(origins: Sequence[Origin]) -> str:
    """Return the origins of a replay's messages, at least one and all of one stream, as the value of `REPLAY_OF_HEADER`."""
    positions = ",".join(f"{origin.sequence}-{origin.message_index}" for origin in origins)
    return f"{origins[0].stream_created_at:x}:{positions}"


def decode_origins(header: str) -> list[Origin]:
    """Return the origins in the value of `REPLAY_OF_HEADER`.

    Raises:
        ValueError: The header is not of its form.
    """
    if not _ORIGINS.fullmatch(header):
        raise ValueError("not the origins of a replay")
    stream, _, positions = header.partition(":")
    parts = (position.partition("-") for position in positions.split(","))
    return [Origin(int(stream, 16), int(sequence), int(index or 0)) for sequence, _, index in parts]


def encode_counts(counts: Mapping[str, int]) -> str:
    """Return counts by tenant as the value of a header."""
    return msgspec.json.encode(counts).decode()


def decode_counts(header: str) -> dict[str, int]:
    """Return the counts by tenant in the value of a header.

    Raises:
        ValueError: The header is not a JSON object of numbers.
    """
    try:
        return _counts_decoder.decode(header)
    except (msgspec.DecodeError, RecursionError) as error:  # a ValidationError is a DecodeError
        raise ValueError(f"not counts by tenant: {error}") from error
