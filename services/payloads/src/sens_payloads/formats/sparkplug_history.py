"""Which birth explains a message of Sparkplug B: it is decided by positions in the stream, so that whoever reads it, and when, makes no difference.

Source: Eclipse Sparkplug 3.0.0, sections 5.4 to 5.8: an edge node's birth begins its session, a device's birth comes after it, deaths end both. A
death that tells another ``bdSeq`` than the birth before it is a late one, of a session that is over already, and ends nothing.

A message is explained by its publisher's birth before it in the same session. Where none is known, because the platform came later than the
birth, by the first one after it that comes before a death: an edge node that is asked for its births sends what it announced before.
"""

from bisect import bisect_left
from collections.abc import Iterable
from operator import attrgetter
from typing import Final, NamedTuple

from sens_common.dead_letters import Origin

EDGE_NODE: Final = ""
"""Stands for the edge node itself where else a device is named."""


class Announcement(NamedTuple):
    """A birth or a death in the history of an edge node.

    Attributes:
        position: Where the message stands in the stream.
        device: Whose, `EDGE_NODE` for the edge node itself.
        is_birth: Whether it is a birth.
        bd_seq: Of edge nodes, where they tell it.
        follows_forgotten: Whether earlier ones of the same publisher are not kept any more.
    """

    position: Origin
    device: str
    is_birth: bool
    bd_seq: int | None = None
    follows_forgotten: bool = False


class _Timeline(NamedTuple):
    """What counts for one publisher; `known_from` is where what is known of it begins."""

    positions: list[Origin]
    announcements: list[Announcement]
    known_from: Origin | None


class History:
    """The births and deaths of an edge node and its devices."""

    def __init__(self, announcements: Iterable[Announcement] = ()) -> None:
        """Take them, in any order; of several at one position the first one counts."""
        by_position: dict[Origin, Announcement] = {}
        for each in announcements:
            by_position.setdefault(each.position, each)
        self._announcements = sorted(by_position.values(), key=attrgetter("position"))
        self._timelines: dict[str, _Timeline] = {}

    def with_others(self, others: Iterable[Announcement]) -> "History":
        """Return the history with further announcements."""
        return History([*self._announcements, *others])

    def explaining(self, device: str, position: Origin) -> Announcement | None:
        """Return the birth that explains a message of a publisher at a position, None where none does that is known.

        Args:
            device: Whose message, `EDGE_NODE` for the edge node's own.
            position: Where it stands in the stream.
        """
        timeline = self._timelines.get(device)
        if timeline is None:
            timeline = self._timelines[device] = self._timeline(device)
        positions, announcements, known_from = timeline
        index = bisect_left(positions, position)
        if known_from is not None and (position < known_from or index == 0 or positions[index - 1] < known_from):
            return None
        if index and _is_birth_of(announcements[index - 1], device):
            return announcements[index - 1]
        for each in announcements[index:]:
            if _is_birth_of(each, device):
                return each
            if not each.is_birth:
                return None
        return None

    def _timeline(self, device: str) -> _Timeline:
        counting: list[Announcement] = []
        session: int | None = None  # the number in the last birth of the edge node
        known_from: Origin | None = None
        for each in self._announcements:
            if each.device not in {EDGE_NODE, device}:
                continue
            if each.follows_forgotten:
                known_from = each.position
            if each.device == EDGE_NODE:
                if each.is_birth:
                    session = each.bd_seq
                elif None not in {session, each.bd_seq} and each.bd_seq != session:
                    continue
            counting.append(each)
        return _Timeline([each.position for each in counting], counting, known_from)


def _is_birth_of(announcement: Announcement, device: str) -> bool:
    return announcement.is_birth and announcement.device == device
