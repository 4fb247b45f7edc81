"""The time of a message's receipt: what the machine's clock says, and never twice the same, also when somebody sets the clock.

The receipt time stands in for the time of a payload without one, and (device, time) is a measurement's key. So it has to be near the
truth and unique, over restarts and among replicas. It follows the clock at once, forward and back. What then keeps it unique:

- Receipt times are `STEP` microseconds apart, and a replica uses those that leave one remainder: two replicas that share a
  subscription never give the same one.
- A clock that is set back passes a stretch of time again in which times were given already. There a second remainder is used, half a
  `STEP` away. Which stretches were given with which remainder is known, and every envelope carries it (`ReceiptClock.header`), so that
  a successor knows it too.
- When a stretch is passed for the third time, times may repeat; that is logged and counted.

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
from sens_mqtt_ingestion_worker import metrics

log = structlog.get_logger()

STEP: Final = 16
"""Microseconds between the receipt times of two messages."""

_JUMP: Final = 500_000
"""Microseconds by which the clock may be off before it has jumped. Set back by less than that, times go on slowly until it is there."""

_CROWDED: Final = 250_000
"""When receipt times are so many microseconds ahead of the clock, messages of different devices may have the same."""

_MARGIN: Final = 2_000_000
"""Microseconds before a stretch at which its remainder is given up: more than one read from the broker can fill."""

_TRUSTED_AFTER: Final = 300_000_000
"""Microseconds after which the time that a clock was set to counts as right."""

_FORGOTTEN_AFTER: Final = 7 * 86_400_000_000
"""Microseconds after which it no longer matters what the clock did; it had to be set back by more than that."""

_STRETCHES: Final = 8
_READINGS: Final = 5
_QUICK: Final = 10_000
_NEVER: Final = 1 << 62
_BOOT_CLOCK: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class _Stretch(NamedTuple):
    """Times that may have been given, microseconds since the epoch, both included."""

    first: int
    last: int


type _Given = tuple[list[_Stretch], list[_Stretch]]

_decoder: Final = msgspec.json.Decoder(_Given)


def boot_time_ns() -> int:
    """Return the nanoseconds since the machine started."""
    return time.clock_gettime_ns(_BOOT_CLOCK)


class ReceiptClock:
    """Gives the receipt times of one session."""

    def __init__(
        self, client_id: str, *, wall_ns: Callable[[], int] = time.time_ns, steady_ns: Callable[[], int] = boot_time_ns
    ) -> None:
        """Start without knowing what the session gave before; see `recall`.

        Args:
            client_id: The session's name; the number at its end tells replicas apart.
            wall_ns: The machine's clock, nanoseconds since the epoch.
            steady_ns: One that nobody can set, nanoseconds since any moment.
        """
        self._wall_ns = wall_ns
        self._steady_ns = steady_ns
        slot = time_slot(client_id)
        self._remainders = (slot, (slot + STEP // 2) % STEP)
        self._given: _Given = ([], [])  # by remainder; without the current stretch
        self._which = 0
        self._first = (
            0  # of the current stretch; times before the start of this process are unknown, so all of them count
        )
        self._last = 0
        self._until = _NEVER
        self._offset = self._trusted = wall_ns() // 1000 - steady_ns() // 1000
        self._set_at = 0

    def export_metrics(self) -> None:
        """Let the metrics look here whenever they are asked for."""
        metrics.CLOCK_OFF_SECONDS.set_function(lambda: self._off() / 1e6)

    def next(self) -> tuple[int, bool]:
        """Return the receipt time of the next message, and whether the times are crowded: see `crowd`.

        Further messages that came with it follow each `STEP` later; `gave` has to be told the last one.
        """
        now = self._wall_ns() // 1000
        if not -_JUMP < now - self._steady_ns() // 1000 - self._offset < _JUMP:
            now = self._look()
        at = now if now > self._last else self._last + 1
        at += (self._remainders[self._which] - at) % STEP
        if at >= self._until:
            self._choose(at)
            at += (self._remainders[self._which] - at) % STEP
        return at, at - now > _CROWDED

    def gave(self, last: int) -> None:
        """Take note of the last time that was given."""
        self._last = last

    # A clock that is set.

    def _look(self) -> int:
        """Look at both clocks at once, and follow this one where it was set; return what it says."""
        now = after = 0
        for _ in range(_READINGS):  # a process can stand still between two looks
            before = self._steady_ns() // 1000
            now = self._wall_ns() // 1000
            after = self._steady_ns() // 1000
            if after - before < _QUICK:
                break
        offset = now - after
        if abs(offset - self._offset) >= _JUMP:
            self._jumped(now, offset, offset - self._offset)
        return now

    def _jumped(self, now: int, offset: int, by: int) -> None:
        self._offset = offset
        self._set_at = now - offset
        if abs(offset - self._trusted) < _JUMP:
            self._trusted = offset
        metrics.CLOCK_JUMPS.inc()
        log.warning(
            "the machine's clock was set; messages without a time get what it says now",
            seconds=round(by / 1e6, 3),
            off_seconds=round((offset - self._trusted) / 1e6, 3),
        )
        self._end_run()
        self._choose(now)

    def _off(self) -> int:
        """Return by how many microseconds the clock is off, as far as this process knows."""
        self._look()
        if self._trusted != self._offset and self._steady_ns() // 1000 - self._set_at > _TRUSTED_AFTER:
            self._trusted = self._offset
        return self._offset - self._trusted

    async def check(self) -> str | None:
        """Answer as a readiness check: a clock that was set is a problem until it is back, or nobody has set it for five minutes."""
        off = self._off()
        if not off:
            return None
        seconds = (self._steady_ns() // 1000 - self._set_at) / 1e6
        return (
            f"the machine's clock was set {abs(off) / 1e6:,.1f} s {'forward' if off > 0 else 'back'} {seconds:.0f} s ago;"
            " messages without a time get what it says: is it right?"
        )

    # Stretches of time, and which remainder is used in each.

    def _choose(self, at: int) -> None:
        """Choose the remainder for a time, and when to choose again."""
        free = [
            which
            for which, stretches in enumerate(self._given)
            if not any(stretch.first - _MARGIN <= at <= stretch.last for stretch in stretches)
        ]
        if not free:
            metrics.CLOCK_EXHAUSTED.inc()
            log.warning(
                "this time is passed for the third time; messages without a time may get the same as earlier ones"
            )
        which = free[0] if free else 0
        if which != self._which or not self._last:
            self._end_run()
            self._which, self._first = which, at
        edges = (
            edge
            for stretches in self._given
            for stretch in stretches
            for edge in (stretch.first - _MARGIN, stretch.last + 1)
        )
        self._until = min((edge for edge in edges if edge > at), default=_NEVER)

    def _end_run(self) -> None:
        """Keep the times that were given until now as a stretch."""
        if self._last:
            self._keep(self._which, _Stretch(self._first, self._last))
        self._last = 0

    def _keep(self, which: int, stretch: _Stretch) -> None:
        merged: list[_Stretch] = []
        for each in sorted([*self._given[which], stretch]):
            if merged and each.first <= merged[-1].last + 1:
                merged[-1] = _Stretch(merged[-1].first, max(merged[-1].last, each.last))
            else:
                merged.append(each)
        while len(merged) > _STRETCHES:
            merged[:2] = [_Stretch(merged[0].first, merged[1].last)]
        self._given[which][:] = merged

    @property
    def header(self) -> str | None:
        """The stretches in which times were given, for `recall`; None while they need not be told."""
        if not any(self._given) and not self._first and not self._which:
            return None
        newest = max(stretch.last for stretches in self._given for stretch in stretches) if any(self._given) else 0
        if not self._which and newest < self._last - _FORGOTTEN_AFTER:
            self._given[0].clear()
            self._given[1].clear()
            self._first = 0
            return None
        now = [_Stretch(self._first, self._last)] if self._last else []
        first, second = self._given
        return msgspec.json.encode((first, [*second, *now]) if self._which else ([*first, *now], second)).decode()

    def recall(self, header: str | None, newest: int) -> None:
        """Take note of what this session gave in an earlier process.

        Args:
            header: Of its newest envelope.
            newest: Receipt time of its newest message, 0 if it has none.
        """
        now = self._look()
        ahead = newest - now
        if header is None and ahead < _JUMP and not any(self._given):
            self._last = max(self._last, newest)
            return
        if ahead >= _JUMP:
            self._trusted = self._offset + ahead
            self._set_at = now - self._offset
            metrics.CLOCK_JUMPS.inc()
            log.warning(
                "this session's newest message in the stream is from the future: the machine's clock was set back",
                seconds=round(ahead / 1e6, 3),
            )
        given: _Given = ([_Stretch(0, newest)], [])
        if header is not None:
            try:
                given = _decoder.decode(header)
            except msgspec.DecodeError as error:
                given[1].append(_Stretch(0, newest))
                log.warning("what an envelope says of the receipt times before it can't be read", error=str(error))
        self._end_run()
        for which, stretches in enumerate(given):
            for stretch in stretches:
                self._keep(which, stretch)
        self._choose(now)


def crowd(messages: list[Message], first: int) -> list[Message]:
    """Return messages with receipt times from `first` on that only those of one device do not share.

    More than 62,500 messages a second, each with a time of its own, would run ahead of the clock.
    """
    next_times: dict[str, int] = {}
    crowded = []
    for message in messages:
        # An EUI is one device in any of its spellings; see `names.device_name`.
        device = message.topic.lower().replace("-", "").replace(":", "")
        at = next_times.get(device, first)
        next_times[device] = at + STEP
        crowded.append(Message(message.topic, message.payload, at, message.packet_id))
    return crowded


def time_slot(client_id: str) -> int:
    """Return the remainder that the receipt times of a replica leave when divided by `STEP`."""
    number = re.search(r"[0-9]+$", client_id)
    return (int(number[0]) if number else zlib.crc32(client_id.encode())) % STEP
