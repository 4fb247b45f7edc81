"""The time of a message's receipt: what the machine's clock says, and never twice the same, also when somebody sets the clock.

The receipt time stands in for the time of a payload without one, and (device, time) is a measurement's key. So it has to be near the
truth and unique, over restarts and among replicas. It follows the clock at once, forward and back. What then keeps it unique:

- Receipt times are `STEP` microseconds apart, and a replica uses those that leave one remainder: two replicas that share a
  subscription never give the same one.
- A clock that is set back passes an interval again in which times were given already. There a second remainder is used, half a `STEP`
  away. The used intervals of each remainder are known, and every envelope carries them (`ReceiptClock.header`), so that a successor
  knows them too.
- When an interval is passed for the third time, times may repeat; that is logged and counted.

A clock is set when it moves against the one that nobody can set (CLOCK_BOOTTIME, which also counts while the machine sleeps).
"""

import re
import time
import zlib
from collections.abc import Callable
from typing import Final, NamedTuple

import msgspec
import structlog

from sens_common.envelope import Message
from sens_common.ingestion import metrics
from sens_common.names import fold_eui

log = structlog.get_logger()

STEP: Final = 16
"""Microseconds between the receipt times of two messages."""

_JUMP: Final = 500_000
"""Microseconds by which the clock may be off before it has jumped. Set back by less than that, times go on slowly until it is there."""

_AHEAD: Final = 250_000
"""When receipt times are so many microseconds ahead of the clock, messages of different devices may have the same."""

_MARGIN: Final = 2_000_000
"""Microseconds before a used interval at which its remainder is given up: more than one read from the broker can fill."""

_TRUSTED_AFTER: Final = 300_000_000
"""Microseconds after which the time that a clock was set to counts as right."""

_FORGOTTEN_AFTER: Final = 7 * 86_400_000_000
"""Microseconds after which it no longer matters what the clock did; it had to be set back by more than that."""

_MAX_INTERVALS: Final = 8
"""Used intervals that are kept of each remainder; then the two oldest become one."""

_MAX_READINGS: Final = 5
_QUICK_READING: Final = 10_000  # microseconds
_NEVER: Final = 1 << 62
_BOOT_CLOCK: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class UsedInterval(NamedTuple):
    """Times that may have been given with one remainder: microseconds since the epoch, both included."""

    first: int
    last: int


type _IntervalsByRemainder = tuple[list[UsedInterval], list[UsedInterval]]

_decoder: Final = msgspec.json.Decoder(_IntervalsByRemainder)


def boot_time_ns() -> int:
    """Return the nanoseconds since the machine started."""
    return time.clock_gettime_ns(_BOOT_CLOCK)


class ReceiptClock:
    """Gives the receipt times of one session, or of another publisher."""

    def __init__(
        self, slot: int, *, wall_ns: Callable[[], int] = time.time_ns, steady_ns: Callable[[], int] = boot_time_ns
    ) -> None:
        """Start without knowing what the session gave before; see `recall`.

        Args:
            slot: Remainder of its times when divided by `STEP`: `time_slot` or `last_slot`.
            wall_ns: The machine's clock, nanoseconds since the epoch.
            steady_ns: One that nobody can set, nanoseconds since any moment.
        """
        self._wall_ns = wall_ns
        self._steady_ns = steady_ns
        self._remainders = (slot, (slot + STEP // 2) % STEP)
        self._used_intervals: _IntervalsByRemainder = ([], [])  # without the current interval
        self._remainder_index = 0  # of the active one
        self._remainder_valid_until = _NEVER
        # The current interval. Times before the start of this process are unknown, so all of them count as given.
        self._first_given = 0
        self._last_given = 0
        self._offset = self._trusted_offset = wall_ns() // 1000 - steady_ns() // 1000
        self._set_at = 0

    def export_metrics(self) -> None:
        """Let the metrics look here whenever they are asked for."""
        metrics.CLOCK_OFF_SECONDS.set_function(lambda: self._clock_error() / 1e6)

    def next(self) -> tuple[int, bool]:
        """Return the receipt time of the next message, and whether the times run ahead of the clock: see `numbered_by_device`.

        Further messages that came with it follow each `STEP` later; `note_given` has to be told the last one.
        """
        now = self._wall_ns() // 1000
        if not -_JUMP < now - self._steady_ns() // 1000 - self._offset < _JUMP:
            now = self._read_clock()
        at = now if now > self._last_given else self._last_given + 1
        at += (self._remainders[self._remainder_index] - at) % STEP
        if at >= self._remainder_valid_until:
            self._choose_remainder(at)
            at += (self._remainders[self._remainder_index] - at) % STEP
        return at, at - now > _AHEAD

    def note_given(self, last: int) -> None:
        """Take note of the last time that was given."""
        self._last_given = last

    # A clock that is set.

    def _read_clock(self) -> int:
        """Read both clocks at once, and follow the machine's where it was set; return what that says."""
        now = after = 0
        for _ in range(_MAX_READINGS):  # a process can stand still between two readings
            before = self._steady_ns() // 1000
            now = self._wall_ns() // 1000
            after = self._steady_ns() // 1000
            if after - before < _QUICK_READING:
                break
        offset = now - after
        if abs(offset - self._offset) >= _JUMP:
            self._note_jump(now, offset, offset - self._offset)
        return now

    def _note_jump(self, now: int, offset: int, by: int) -> None:
        self._offset = offset
        self._set_at = now - offset
        if abs(offset - self._trusted_offset) < _JUMP:
            self._trusted_offset = offset
        metrics.CLOCK_JUMPS.inc()
        log.warning(
            "the machine's clock was set; messages without a time get what it says now",
            seconds=round(by / 1e6, 3),
            off_seconds=round((offset - self._trusted_offset) / 1e6, 3),
        )
        self._end_interval()
        self._choose_remainder(now)

    def _clock_error(self) -> int:
        """Return by how many microseconds the clock is off, as far as this process knows."""
        self._read_clock()
        if self._trusted_offset != self._offset and self._steady_ns() // 1000 - self._set_at > _TRUSTED_AFTER:
            self._trusted_offset = self._offset
        return self._offset - self._trusted_offset

    async def check(self) -> str | None:
        """Answer as a readiness check: a clock that was set is a problem until it is back, or nobody has set it for five minutes."""
        off = self._clock_error()
        if not off:
            return None
        seconds = (self._steady_ns() // 1000 - self._set_at) / 1e6
        return (
            f"the machine's clock was set {abs(off) / 1e6:,.1f} s {'forward' if off > 0 else 'back'} {seconds:.0f} s ago;"
            " messages without a time get what it says: is it right?"
        )

    # Used intervals, and which remainder is active.

    def _choose_remainder(self, at: int) -> None:
        """Choose the active remainder for a time, and when to choose again."""
        free = [
            index
            for index, intervals in enumerate(self._used_intervals)
            if not any(interval.first - _MARGIN <= at <= interval.last for interval in intervals)
        ]
        if not free:
            metrics.CLOCK_EXHAUSTED.inc()
            log.warning(
                "this time is passed for the third time; messages without a time may get the same as earlier ones"
            )
        index = free[0] if free else 0
        if index != self._remainder_index or not self._last_given:
            self._end_interval()
            self._remainder_index, self._first_given = index, at
        edges = (
            edge
            for intervals in self._used_intervals
            for interval in intervals
            for edge in (interval.first - _MARGIN, interval.last + 1)
        )
        self._remainder_valid_until = min((edge for edge in edges if edge > at), default=_NEVER)

    def _end_interval(self) -> None:
        """Add the current interval to the used ones."""
        if self._last_given:
            self._add_used_interval(self._remainder_index, UsedInterval(self._first_given, self._last_given))
        self._last_given = 0

    def _add_used_interval(self, remainder_index: int, added: UsedInterval) -> None:
        merged: list[UsedInterval] = []
        for interval in sorted([*self._used_intervals[remainder_index], added]):
            if merged and interval.first <= merged[-1].last + 1:
                merged[-1] = UsedInterval(merged[-1].first, max(merged[-1].last, interval.last))
            else:
                merged.append(interval)
        while len(merged) > _MAX_INTERVALS:
            merged[:2] = [UsedInterval(merged[0].first, merged[1].last)]
        self._used_intervals[remainder_index][:] = merged

    @property
    def header(self) -> str | None:
        """The used intervals by remainder, for `recall`; None while they need not be told."""
        if not any(self._used_intervals) and not self._first_given and not self._remainder_index:
            return None
        ends = [interval.last for intervals in self._used_intervals for interval in intervals]
        newest = max(ends, default=0)
        if not self._remainder_index and newest < self._last_given - _FORGOTTEN_AFTER:
            self._used_intervals[0].clear()
            self._used_intervals[1].clear()
            self._first_given = 0
            return None
        current = [UsedInterval(self._first_given, self._last_given)] if self._last_given else []
        first, second = self._used_intervals
        by_remainder = (first, [*second, *current]) if self._remainder_index else ([*first, *current], second)
        return msgspec.json.encode(by_remainder).decode()

    def recall(self, header: str | None, newest: int) -> None:
        """Take note of what this session gave in an earlier process.

        Args:
            header: Of its newest envelope.
            newest: Receipt time of its newest message, 0 if it has none.
        """
        now = self._read_clock()
        ahead = newest - now
        if header is None and ahead < _JUMP and not any(self._used_intervals):
            self._last_given = max(self._last_given, newest)
            return
        if ahead >= _JUMP:
            self._trusted_offset = self._offset + ahead
            self._set_at = now - self._offset
            metrics.CLOCK_JUMPS.inc()
            log.warning(
                "this session's newest message in the stream is from the future: the machine's clock was set back",
                seconds=round(ahead / 1e6, 3),
            )
        recalled: _IntervalsByRemainder = ([UsedInterval(0, newest)], [])
        if header is not None:
            try:
                recalled = _decoder.decode(header)
            except msgspec.DecodeError as error:
                recalled[1].append(UsedInterval(0, newest))
                log.warning("what an envelope says of the receipt times before it can't be read", error=str(error))
        self._end_interval()
        for index, intervals in enumerate(recalled):
            for interval in intervals:
                self._add_used_interval(index, interval)
        self._choose_remainder(now)


def numbered_by_device(messages: list[Message], first: int) -> list[Message]:
    """Return the messages with receipt times that count from `first` for each device: only those of one device do not share them.

    More than 62,500 messages a second, each with a time of its own, would run ahead of the clock.
    """
    next_times: dict[str, int] = {}
    numbered = []
    for message in messages:
        device = fold_eui(message.topic)  # an EUI is one device in any of its spellings
        at = next_times.get(device, first)
        next_times[device] = at + STEP
        numbered.append(Message(message.topic, message.payload, at, message.packet_id))
    return numbered


def time_slot(client_id: str) -> int:
    """Return the remainder of a session's receipt times; the number at the end of its name tells replicas apart."""
    number = re.search(r"[0-9]+$", client_id)
    return (int(number[0]) if number else zlib.crc32(client_id.encode())) % STEP


def last_slot(publisher: str) -> int:
    """Return the remainder of the receipt times of what comes by HTTP; these count from the last one down.

    So as long as there are no more than four replicas of each kind of worker, no two of them share a time: a device may send both ways.

    >>> last_slot("sens-http-ingestion-worker-0"), time_slot("sens-mqtt-ingestion-worker-0")
    (15, 0)
    """
    return STEP - 1 - time_slot(publisher)
