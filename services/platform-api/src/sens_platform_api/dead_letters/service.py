"""Dead letters: listing, replaying, deleting."""

import time
from datetime import UTC, datetime
from typing import Final, NamedTuple

from sens_platform_api.dead_letters.jetstream import ReplayLog
from sens_platform_api.dead_letters.repository import DeadLetters, Filter, StoredDeadLetter, Summary
from sens_platform_api.errors import AlreadyExistsError

REPLAY_SECONDS: Final = 10.0
"""One call of a filtered replay ends about after this."""
REPLAY_TOGETHER: Final = 5000
"""Dead letters that a replay reads, sends and deletes together, if they are small."""
REPLAY_TOGETHER_BYTES: Final = 8 << 20
DELETED_TOGETHER: Final = 10_000
"""Dead letters that one transaction deletes."""


class Page(NamedTuple):
    """Some dead letters, newest first, and the id below which the others are; None at the end."""

    letters: list[Summary]
    below: int | None


class Replayed(NamedTuple):
    """What one call of a filtered replay did.

    Attributes:
        replayed: Number of dead letters that went into the log again.
        incomplete: Number of those of which only the beginning is kept, and that the log no longer has; they stay.
        above: The id above which to go on, None when all that are meant were looked at.
        until: The highest id that is meant: what comes back from a replay gets a higher one, or stays where it is.
        remaining: How many that are meant were not looked at yet.
    """

    replayed: int
    incomplete: int
    above: int | None
    until: int
    remaining: int


class Deleted(NamedTuple):
    """What one call of a filtered deletion did: how many went, and how many that are meant are left."""

    deleted: int
    remaining: int


async def list_page(letters: DeadLetters, wanted: Filter, *, below: int | None, limit: int) -> Page:
    """Return the dead letters that are meant, newest first, those with ids below one."""
    found = await letters.page(wanted, below=below, limit=limit + 1)
    return Page(found[:limit], found[limit - 1].id if len(found) > limit else None)


async def replay_one(letters: DeadLetters, log: ReplayLog, letter_id: int) -> int:
    """Replay one dead letter; return its id.

    Raises:
        NotFoundError: There is none with this id, or it is another tenant's.
        AlreadyExistsError: Only its beginning is kept, and the log no longer has the whole.
        UnavailableError: Database or NATS can't be used.
    """
    letter = await _whole(log, await letters.get(letter_id))
    if letter is None:
        raise AlreadyExistsError(
            f"only the beginning of dead letter {letter_id} is kept, and the log no longer has the whole, so it can't be replayed"
        )
    await _replay(letters, log, [letter])
    return letter_id


async def replay_page(
    letters: DeadLetters, log: ReplayLog, wanted: Filter, *, above: int = 0, until: int | None = None, limit: int
) -> Replayed:
    """Replay the dead letters that are meant, oldest first, until there are `limit`, and for about `REPLAY_SECONDS`.

    What was replayed is gone, so a replay that is cut short is gone on with by beginning anew.
    """
    if until is None:
        until = await letters.last_id()
    replayed = incomplete = 0
    deadline = time.monotonic() + REPLAY_SECONDS
    while (room := limit - replayed - incomplete) > 0 and time.monotonic() < deadline:
        found = await letters.following(
            wanted, above=above, until=until, limit=min(room, REPLAY_TOGETHER), max_bytes=REPLAY_TOGETHER_BYTES
        )
        if not found:
            return Replayed(replayed, incomplete, None, until, 0)
        sent = 0
        whole: list[StoredDeadLetter] = []
        for letter in found:
            if letter.summary.is_shortened:
                # As large as a message can be, so each goes alone.
                complete = await _whole(log, letter)
                if complete is not None:
                    await _replay(letters, log, [complete])
                    sent += 1
            else:
                whole.append(letter)
        if whole:
            await _replay(letters, log, whole)
        sent += len(whole)
        replayed += sent
        incomplete += len(found) - sent
        above = found[-1].summary.id
    remaining = await letters.count(wanted, above=above, until=until)
    return Replayed(replayed, incomplete, above if remaining else None, until, remaining)


async def _whole(log: ReplayLog, letter: StoredDeadLetter) -> StoredDeadLetter | None:
    return await log.whole(letter) if letter.summary.is_shortened else letter


async def _replay(letters: DeadLetters, log: ReplayLog, replayed: list[StoredDeadLetter]) -> None:
    """Send dead letters, and delete those that are still what was sent.

    The deletion comes after JetStream has stored the message. By then it may have been refused again: its dead letter counts one replay more
    then, and stays. Cut short before the deletion, the replay has to be given again, and has no further effect.
    """
    await log.send(replayed)
    await letters.delete_replayed([(letter.summary.id, letter.summary.replays) for letter in replayed])


async def delete_page(letters: DeadLetters, wanted: Filter, *, limit: int) -> Deleted:
    """Delete the dead letters that are meant, oldest first, at most `limit`; those that come meanwhile are not meant."""
    if wanted.before is None:
        wanted = wanted._replace(before=datetime.now(UTC))
    deleted = await letters.delete_many(wanted, limit=min(limit, DELETED_TOGETHER))
    return Deleted(deleted, await letters.count(wanted))
