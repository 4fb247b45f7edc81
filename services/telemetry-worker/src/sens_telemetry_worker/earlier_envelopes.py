"""What envelopes announce that are before a batch and not settled, as `birth_reading.EarlierEnvelopes`."""

import asyncio
from collections.abc import Iterable, Sequence
from typing import Final, Protocol

from sens_telemetry_worker.batch import Envelope, StreamPosition
from sens_telemetry_worker.birth_reading import SentEarlier, may_announce

_TOGETHER: Final = 16
"""Envelopes that are read at once."""


class Unsettled(Protocol):
    """Knows which envelopes are settled."""

    async def before(self, position: StreamPosition) -> set[int]:
        """Return the sequences of the envelopes before one that are not settled."""


class Stream(Protocol):
    """The stream."""

    async def sent(self, position: StreamPosition) -> list[SentEarlier]:
        """Return the messages of an envelope; none where it is not there any more.

        Raises:
            StoreUnavailableError: The stream can't be asked.
        """


class UnsettledAnnouncements:
    """Reads each envelope once, and remembers what it announces until it is settled."""

    def __init__(self, unsettled: Unsettled, stream: Stream) -> None:
        self._unsettled = unsettled
        self._stream = stream
        self._known: dict[StreamPosition, list[SentEarlier]] = {}

    async def announcements(
        self, own: Sequence[Envelope], until: StreamPosition
    ) -> tuple[list[SentEarlier], StreamPosition]:
        """See `birth_reading.EarlierEnvelopes.announcements`."""
        for envelope in own:
            self._known.setdefault(envelope.position, _announcing(_sent(envelope)))
        positions = {envelope.position for envelope in own}
        found = await self._unsettled.before(until)
        wanted = sorted({StreamPosition(until.stream_created_at, sequence) for sequence in found} - positions)
        missing = [position for position in wanted if position not in self._known]
        for start in range(0, len(missing), _TOGETHER):
            part = missing[start : start + _TOGETHER]
            read = await asyncio.gather(*(self._stream.sent(position) for position in part))
            self._known |= {position: _announcing(sent) for position, sent in zip(part, read, strict=True)}
        first = min([*positions, *wanted])
        self._known = {position: each for position, each in self._known.items() if position >= first}
        return [each for position in wanted for each in self._known.get(position, ())], first


def _sent(envelope: Envelope) -> Iterable[SentEarlier]:
    return (SentEarlier(message, envelope.origin(index)) for index, message in enumerate(envelope.messages))


def _announcing(sent: Iterable[SentEarlier]) -> list[SentEarlier]:
    return [each for each in sent if may_announce(each.message.topic)]
