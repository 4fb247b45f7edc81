"""Envelopes that were received and wait to be taken."""

from collections import deque
from collections.abc import Iterator

from sens_telemetry_worker.jetstream.envelope import StreamEnvelope


class BufferedEnvelopes:
    """A queue that knows how much waits in it.

    Attributes:
        message_count: Number of their messages.
        size: Bytes of their bodies.
    """

    def __init__(self) -> None:
        self._envelopes: deque[StreamEnvelope] = deque()
        self.message_count = 0
        self.size = 0

    def __len__(self) -> int:
        """Return the number of envelopes."""
        return len(self._envelopes)

    def __iter__(self) -> Iterator[StreamEnvelope]:
        """Yield them, the oldest first."""
        return iter(self._envelopes)

    @property
    def oldest(self) -> StreamEnvelope:
        """The next one to be taken."""
        return self._envelopes[0]

    def add(self, envelope: StreamEnvelope) -> None:
        """Add one that has arrived."""
        self._envelopes.append(envelope)
        self.message_count += len(envelope.messages)
        self.size += envelope.size

    def take(self, max_messages: int, max_size: int) -> list[StreamEnvelope]:
        """Take the oldest, at most so many messages and bytes but at least one envelope."""
        taken: list[StreamEnvelope] = []
        message_count = size = 0
        while self._envelopes:
            message_count += len(self.oldest.messages)
            size += self.oldest.size
            if taken and (message_count > max_messages or size > max_size):
                break
            envelope = self._envelopes.popleft()
            self.message_count -= len(envelope.messages)
            self.size -= envelope.size
            taken.append(envelope)
        return taken
