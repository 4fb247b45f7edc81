"""Stores a batch, in parts where the database does not take it as a whole.

Of n messages, k that the database refuses cost 3 k writes where it names a row, 2 k log2(n) + 1 where it names none, at most; and one write
for the dead letters of the last ones. Each part is prepared by itself: a value that was left out as another message's is stored when that
message is refused. What the database does not finish in time is stored in halves: a batch that takes longer than a statement may would never
be stored.
"""

import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from sens_common.dead_letters import Reason
from sens_common.health import Problems
from sens_telemetry_worker import metrics
from sens_telemetry_worker.accounting import WrittenPart, mark_committed
from sens_telemetry_worker.batch import Batch, BatchPart, Rejection, StreamPosition
from sens_telemetry_worker.rows import Rows


class StoreUnavailableError(Exception):
    """The database can't be reached or can't work just now; the same batch can be tried again."""


class StoreTooSlowError(StoreUnavailableError):
    """The database did not finish in time; less at once may be possible."""


class RowsRefusedError(Exception):
    """The database refuses the rows for what they are; the text is its reason.

    Attributes:
        suspect: The index of the message whose row it names, None where it names none.
    """

    def __init__(self, reason: str, suspect: int | None = None) -> None:
        super().__init__(reason)
        self.suspect = suspect


class ProgressMadeElsewhereError(Exception):
    """Other workers have stored messages of the batch, or settled its envelopes; nothing of the part is stored.

    Attributes:
        recorded: What the database knows of envelopes of the batch; see `batch.EnvelopeProgress.adopt_recorded`.
    """

    def __init__(self, recorded: Mapping[StreamPosition, bytes | None]) -> None:
        super().__init__(f"{len(recorded)} envelopes are settled already, or in part")
        self.recorded = recorded


class Store(Protocol):
    """The database."""

    async def write(self, part: BatchPart) -> WrittenPart:
        """Store rows, dead letters and accounts in one transaction; rows that are there already have no effect.

        Raises:
            StoreUnavailableError: Nothing is stored; try again.
            StoreTooSlowError: The same, with fewer rows.
            RowsRefusedError: Nothing is stored, and trying again would not help.
            ProgressMadeElsewhereError: Nothing is stored, and some of it need not be.
        """


async def store_in_parts(store: Store, batch: Batch, problems: Problems, key: str) -> AsyncIterator[WrittenPart]:
    """Store a batch; yield each part when it is committed.

    Args:
        store: Where to.
        batch: What.
        problems: Are told, under the key, that the database did not finish in time.
        key: Of the problem.

    Raises:
        StoreUnavailableError: The database can't be reached, or does not finish in time with the rows of a single message.
        ProgressMadeElsewhereError: Build a batch of what is left, and store that.
    """
    unwritten = list(batch.interpreted.rejections)
    pieces = [_all_with_rows(batch)]
    while pieces:
        piece = pieces.pop()
        if not piece.message_indexes:
            continue
        try:
            written = await store.write(_part(batch, piece, unwritten))
        except RowsRefusedError as error:
            if len(piece.message_indexes) > 1:
                pieces += reversed(piece.after_refusal(error.suspect))
            else:  # its dead letter goes with the next part
                unwritten.append(Rejection(piece.message_indexes[0], Reason.REFUSED_BY_DATABASE, str(error)))
        except StoreTooSlowError as error:
            if len(piece.message_indexes) == 1:
                raise
            metrics.STORE_RETRIES.inc()
            problems.set(key, "the database does not store in time; trying halves", str(error))
            pieces += reversed(piece.in_halves())
        else:
            mark_committed(written.accounts)
            unwritten = []
            yield written
    if unwritten or not batch.undecided.all_envelopes_settled:
        yield await _write_without_rows(store, batch, unwritten)


async def _write_without_rows(store: Store, batch: Batch, rejections: Sequence[Rejection]) -> WrittenPart:
    """Write the last dead letters, and settle envelopes that have no message left."""
    try:
        written = await store.write(_part(batch, _Piece(Rows.empty(), []), rejections))
    except RowsRefusedError as error:
        # A message must never be dropped: until somebody has repaired the database, it is tried again.
        raise StoreUnavailableError(f"the database refuses the dead letters: {error}") from error
    mark_committed(written.accounts)
    return written


@dataclass(frozen=True, slots=True)
class _Piece:
    """Messages to be written together.

    Attributes:
        rows: Theirs.
        message_indexes: Their indexes in the batch, in ascending order.
        was_refused: Whether the database has refused them together with others before.
    """

    rows: Rows
    message_indexes: Sequence[int]
    was_refused: bool = False

    def after_refusal(self, suspect: int | None) -> list["_Piece"]:
        """Return what to try next: the suspect alone and the others; these in halves when more than one is refused, or none is suspected."""
        alone = [index for index in self.message_indexes if index == suspect]
        others = [index for index in self.message_indexes if index != suspect]
        divided = [others] if alone and not self.was_refused else _halves(others)
        return [self._only(indexes, was_refused=True) for indexes in (alone, *divided)]

    def in_halves(self) -> list["_Piece"]:
        """Return both halves."""
        return [self._only(half, was_refused=self.was_refused) for half in _halves(self.message_indexes)]

    def _only(self, message_indexes: Sequence[int], *, was_refused: bool) -> "_Piece":
        chosen = np.zeros(self.message_indexes[-1] + 1, np.bool_)
        chosen[message_indexes] = True
        return _Piece(self.rows.of_messages(chosen), message_indexes, was_refused)


def _halves(indexes: Sequence[int]) -> list[Sequence[int]]:
    middle = len(indexes) // 2
    return [indexes[:middle], indexes[middle:]]


def _all_with_rows(batch: Batch) -> _Piece:
    has_rows = np.ones(len(batch.messages), np.bool_)
    has_rows[[rejection.message_index for rejection in batch.interpreted.rejections]] = False
    return _Piece(batch.interpreted.rows, np.flatnonzero(has_rows).tolist())


def _part(batch: Batch, piece: _Piece, rejections: Sequence[Rejection]) -> BatchPart:
    indexes = np.array([*piece.message_indexes, *(each.message_index for each in rejections)], np.int64)
    return BatchPart(batch, piece.rows, indexes, list(rejections), time.time_ns() // 1000)
