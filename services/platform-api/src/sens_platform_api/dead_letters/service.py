"""Dead letters: listing, replaying, deleting."""

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final, NamedTuple, Protocol

from sens_platform_api.dead_letters.filters import Filter
from sens_platform_api.dead_letters.repository import StoredDeadLetter, Summary
from sens_platform_api.errors import AlreadyExistsError

REPLAY_SECONDS: Final = 10.0
"""One call of a filtered replay ends about after this."""
REPLAY_TOGETHER: Final = 5000
"""Dead letters that a replay reads, sends and deletes together, if they are small."""
REPLAY_TOGETHER_BYTES: Final = 8 << 20
DELETED_TOGETHER: Final = 10_000
"""Dead letters that one transaction deletes."""


class Letters(Protocol):
    """Stored dead letters of one owner; each call is a transaction of its own."""

    async def page(self, wanted: Filter, *, below: int | None, limit: int) -> list[Summary]:
        """Return dead letters, newest first, those with ids below one."""

    async def get(self, letter_id: int) -> StoredDeadLetter:
        """Return one dead letter; raise `NotFoundError` when there is none with this id."""

    async def oldest(
        self, wanted: Filter, *, above: int, until: int, limit: int, max_bytes: int
    ) -> list[StoredDeadLetter]:
        """Return dead letters, oldest first, with ids above one and up to another."""

    async def last_id(self) -> int:
        """Return the id of the newest, 0 without one."""

    async def count(self, wanted: Filter, *, above: int = 0, until: int | None = None) -> int:
        """Return how many there are with ids above one and up to another."""

    async def delete_replayed(self, letters: Sequence[tuple[int, int]]) -> int:
        """Delete those that still have the count of replays that they had, given as ids and counts; return how many were deleted."""

    async def delete_many(self, wanted: Filter, *, limit: int) -> int:
        """Delete so many, the oldest first; return how many were deleted."""


class Stream(Protocol):
    """The stream of envelopes."""

    async def publish(self, letters: Sequence[StoredDeadLetter]) -> None:
        """Publish messages again; publishing one twice has no effect."""

    async def whole(self, letter: StoredDeadLetter) -> StoredDeadLetter | None:
        """Return a shortened dead letter with its whole payload, None when the stream no longer has it."""


class DeadLetterPage(NamedTuple):
    """Some dead letters, newest first, and the id below which the others are; None at the end."""

    letters: list[Summary]
    below: int | None


class Replayed(NamedTuple):
    """The result of one call of a filtered replay.

    Attributes:
        replayed: Count of dead letters that were published to the stream again.
        incomplete: Count of those of which only the beginning is kept, and whose message the stream no longer has; they stay.
        above: The id above which to go on, None when all of the filter were tried.
        until: The highest id that is replayed: a dead letter that comes back from a replay gets a higher one, or keeps its own.
        remaining: Count of dead letters of the filter that were not tried yet.
    """

    replayed: int
    incomplete: int
    above: int | None
    until: int
    remaining: int


class Deleted(NamedTuple):
    """The result of one call of a filtered deletion: the count of deleted dead letters, and of those of the filter that are left."""

    deleted: int
    remaining: int


async def list_page(letters: Letters, wanted: Filter, *, below: int | None, limit: int) -> DeadLetterPage:
    """Return the dead letters of a filter, newest first, those with ids below one."""
    found = await letters.page(wanted, below=below, limit=limit + 1)
    return DeadLetterPage(found[:limit], found[limit - 1].id if len(found) > limit else None)


async def replay_one(letters: Letters, stream: Stream, letter_id: int) -> int:
    """Replay one dead letter; return its id.

    Raises:
        NotFoundError: There is none with this id, or it is another tenant's.
        AlreadyExistsError: Only its beginning is kept, and the stream no longer has the whole.
        UnavailableError: Database or NATS can't be used.
    """
    letter = await _whole(stream, await letters.get(letter_id))
    if letter is None:
        raise AlreadyExistsError(
            f"only the beginning of dead letter {letter_id} is kept, and the stream no longer has the whole, so it can't be replayed"
        )
    await _replay(letters, stream, [letter])
    return letter_id


async def replay_page(
    letters: Letters, stream: Stream, wanted: Filter, *, above: int = 0, until: int | None = None, limit: int
) -> Replayed:
    """Replay the dead letters of a filter, oldest first, until there are `limit`, and for about `REPLAY_SECONDS`.

    A replayed dead letter is deleted, so a replay that was cut short is continued by starting again.
    """
    if until is None:
        until = await letters.last_id()
    replayed = incomplete = 0
    deadline = time.monotonic() + REPLAY_SECONDS
    while (room := limit - replayed - incomplete) > 0 and time.monotonic() < deadline:
        found = await letters.oldest(
            wanted, above=above, until=until, limit=min(room, REPLAY_TOGETHER), max_bytes=REPLAY_TOGETHER_BYTES
        )
        if not found:
            return Replayed(replayed, incomplete, None, until, 0)
        sent = 0
        whole: list[StoredDeadLetter] = []
        for letter in found:
            if letter.summary.is_shortened:
                # As large as a message can be, so each goes alone.
                complete = await _whole(stream, letter)
                if complete is not None:
                    await _replay(letters, stream, [complete])
                    sent += 1
            else:
                whole.append(letter)
        if whole:
            await _replay(letters, stream, whole)
        sent += len(whole)
        replayed += sent
        incomplete += len(found) - sent
        above = found[-1].summary.id
    remaining = await letters.count(wanted, above=above, until=until)
    return Replayed(replayed, incomplete, above if remaining else None, until, remaining)


async def _whole(stream: Stream, letter: StoredDeadLetter) -> StoredDeadLetter | None:
    return await stream.whole(letter) if letter.summary.is_shortened else letter


async def _replay(letters: Letters, stream: Stream, replayed: list[StoredDeadLetter]) -> None:
    """Publish dead letters, and delete those that have not changed meanwhile.

    The deletion comes after JetStream has stored the message. By then it may have been refused again: its dead letter counts one replay more
    then, and stays. Cut short before the deletion, the replay has to be given again, and has no further effect.
    """
    await stream.publish(replayed)
    await letters.delete_replayed([(letter.summary.id, letter.summary.replays) for letter in replayed])


async def delete_page(letters: Letters, wanted: Filter, *, limit: int) -> Deleted:
    """Delete the dead letters of a filter, oldest first, at most `limit`; those that come meanwhile stay."""
    if wanted.before is None:
        wanted = wanted._replace(before=datetime.now(UTC))
    deleted = await letters.delete_many(wanted, limit=min(limit, DELETED_TOGETHER))
    return Deleted(deleted, await letters.count(wanted))
