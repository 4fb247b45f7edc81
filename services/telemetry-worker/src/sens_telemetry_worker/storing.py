"""Stores a batch, in parts where the database does not take it as a whole."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import structlog
from numpy.typing import NDArray

from sens_common.dead_letters import Reason
from sens_telemetry_worker.accounting import Batch, Part, Place, Record, confirm
from sens_telemetry_worker.columns import Rejected
from sens_telemetry_worker.letters import Letter
from sens_telemetry_worker.routing import Routed
from sens_telemetry_worker.rows import NumberRows, TextRow, prepare

log = structlog.get_logger()


class StoreUnavailableError(Exception):
    """The database can't be reached or can't work just now; the same batch can be tried again."""


class StoreTooSlowError(StoreUnavailableError):
    """The database did not finish in time; less at once may be possible."""


class RowsRefusedError(Exception):
    """The database refuses the rows for what they are; the text is its reason.

    Attributes:
        suspect: The message of the row that it names, None where it names none.
    """

    def __init__(self, reason: str, suspect: int | None = None) -> None:
        super().__init__(reason)
        self.suspect = suspect


class SettledElsewhereError(Exception):
    """Others have settled envelopes of the batch, or messages of them; nothing of the part is stored.

    Attributes:
        recorded: What the database knows of envelopes of the batch, see `accounting.Envelope.learn`.
    """

    def __init__(self, recorded: Mapping[Place, bytes | None]) -> None:
        super().__init__(f"{len(recorded)} envelopes are settled already, or in part")
        self.recorded = recorded


class Written(NamedTuple):
    """What became of a part.

    Attributes:
        new_values: int, for each message of the batch the number of its values that were not stored before.
        letters: Dead letters that were kept.
        discarded: Those that had no room.
        record: What the transaction has added to the accounts.
    """

    new_values: NDArray[np.int64]
    letters: list[Letter]
    discarded: list[Letter]
    record: Record


class Store(Protocol):
    """The database."""

    async def write(self, part: Part) -> Written:
        """Store rows, dead letters and accounts in one transaction; rows that are there already have no effect.

        Raises:
            StoreUnavailableError: Nothing is stored; try again.
            StoreTooSlowError: The same, with fewer rows.
            RowsRefusedError: Nothing is stored, and trying again would not help.
            SettledElsewhereError: Nothing is stored, and some of it need not be.
        """


class Storing:
    """Stores one batch.

    Of n messages, k that the database refuses cost 3 k writes where it names a row, 2 k log2(n) + 1 where it names none, at most; and one
    write for the dead letters of the last ones. Each part is prepared anew: a value that was left out as another message's is stored when
    that message is refused. What the database does not finish in time is stored in halves: a batch that takes longer than a statement may
    would never be stored.
    """

    def __init__(
        self,
        store: Store,
        batch: Batch,
        routed: Routed,
        *,
        written: Callable[[Written], None],
        slow: Callable[[str], None],
    ) -> None:
        """Begin.

        Args:
            store: Where to.
            batch: What.
            routed: The batch as rows.
            written: Is told of each part that is stored.
            slow: Is told why the database did not finish in time.
        """
        self._store = store
        self._batch = batch
        self._routed = routed
        self._written = written
        self._slow = slow
        self._without_letter = list(routed.rejected)

    async def store(self) -> None:
        """Store everything.

        Raises:
            StoreUnavailableError: The database can't be reached, or does not finish in time with the rows of a single message.
            SettledElsewhereError: Route what is left, and store that.
        """
        present = np.ones(len(self._batch.messages), np.bool_)
        present[[rejected.message for rejected in self._routed.rejected]] = False
        await self._store_part(self._routed.numbers, self._routed.texts, np.flatnonzero(present).tolist())
        if self._without_letter or not self._batch.is_done:
            await self._write(self._routed.numbers.taken(np.zeros(0, np.intp)), [], [])

    async def _store_part(
        self, numbers: NumberRows, texts: list[TextRow], present: Sequence[int], *, halving: bool = False
    ) -> None:
        if not present:
            return
        try:
            await self._write(numbers, texts, present)
        except RowsRefusedError as error:
            if len(present) == 1:
                # Its dead letter goes with the next part.
                self._without_letter.append(Rejected(present[0], Reason.REFUSED_BY_DATABASE, str(error)))
                return
            parts, halving = _divided(present, error.suspect, halving=halving), True
        except StoreTooSlowError as error:
            if len(present) == 1:
                raise
            self._slow(str(error))
            log.warning("the database does not store in time; trying halves", error=str(error), messages=len(present))
            parts = _divided(present, None, halving=True)
        else:
            return
        for messages in parts:
            chosen = np.zeros(len(self._batch.messages), np.bool_)
            chosen[messages] = True
            own_texts = [row for row in texts if chosen[row.message]]
            await self._store_part(numbers.taken(chosen[numbers.message]), own_texts, messages, halving=halving)

    async def _write(self, numbers: NumberRows, texts: list[TextRow], present: Sequence[int]) -> None:
        part = Part(self._batch, prepare(numbers, texts), present, self._without_letter, time.time_ns() // 1000)
        try:
            written = await self._store.write(part)
        except RowsRefusedError as error:
            if present:
                raise
            # A message must never be dropped: until somebody has repaired the database, it is tried again.
            raise StoreUnavailableError(f"the database refuses the dead letters: {error}") from error
        confirm(written.record)
        self._without_letter.clear()
        self._written(written)


def _divided(messages: Sequence[int], suspect: int | None, *, halving: bool) -> list[Sequence[int]]:
    """Return the parts to try next: the suspect alone and the others; these in halves when they are known to be many."""
    parts: list[Sequence[int]] = []
    if suspect is not None and suspect in messages:
        parts.append([suspect])
        messages = [message for message in messages if message != suspect]
        if not halving:
            return [*parts, messages]
    middle = len(messages) // 2
    return [*parts, messages[:middle], messages[middle:]]
