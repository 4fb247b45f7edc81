"""Dead letters: listing, showing, replaying."""

import time
from typing import Final, NamedTuple

from sens_common.dead_letters import Reason
from sens_platform_api.dead_letters.repository import UNREADABLE, DeadLetterStream, StoredDeadLetter
from sens_platform_api.errors import AlreadyExistsError

SCAN_LIMIT: Final = 1000
"""Dead letters that one call looks at; a filter that few pass yields short pages."""
REPLAY_SECONDS: Final = 10.0
"""One call of a filtered replay ends about after this."""
REPLAY_TOGETHER: Final = 500
"""Dead letters that a replay reads, sends and deletes together; what it holds in memory."""


class Filter(NamedTuple):
    """Which dead letters are meant.

    Attributes:
        reason: Those with this reason.
        device: Those of this device (canonical name).
        before: Those that were dead-lettered before this time, microseconds since the epoch.
    """

    reason: Reason | None = None
    device: str | None = None
    before: int | None = None

    def passes(self, stored: StoredDeadLetter) -> bool:
        """Tell whether the dead letter is meant."""
        letter = stored.letter
        return (
            (self.reason is None or letter.reason == self.reason)
            and (self.device is None or letter.device == self.device)
            and (self.before is None or letter.dead_lettered_at < self.before)
        )


class Page(NamedTuple):
    """Some dead letters, oldest first, and the id to go on with; None at the end."""

    letters: list[StoredDeadLetter]
    following: int | None


class Replayed(NamedTuple):
    """What one call of a filtered replay did.

    Attributes:
        replayed: Number of dead letters that went into the telemetry stream again.
        unreadable: Number of those that no replay can help.
        following: The id to go on with, None when all that are meant were replayed.
        until: The highest id that is meant: what comes back from a replay gets a higher one, and is not replayed again.
        remaining: How many of the tenant's dead letters were not looked at yet, about.
    """

    replayed: int
    unreadable: int
    following: int | None
    until: int
    remaining: int


async def list_page(
    stream: DeadLetterStream, tenant: str | None, wanted: Filter, *, following: int, limit: int
) -> Page:
    """Return the dead letters that are meant, from an id on."""
    letters: list[StoredDeadLetter] = []
    for _ in range(SCAN_LIMIT):
        stored = await stream.following(tenant, following)
        if stored is None:
            return Page(letters, None)
        if wanted.passes(stored):
            if len(letters) == limit:
                return Page(letters, stored.id)
            letters.append(stored)
        following = stored.id + 1
    return Page(letters, following)


async def replay_one(stream: DeadLetterStream, tenant: str | None, letter_id: int) -> StoredDeadLetter:
    """Replay one dead letter.

    Raises:
        NotFoundError: There is none with this id, or it is another tenant's.
        AlreadyExistsError: No replay can help it.
    """
    stored = await stream.get(tenant, letter_id)
    if stored.letter.reason == UNREADABLE:
        raise AlreadyExistsError(f"{letter_id} is not a readable dead letter, so it can't be replayed")
    await stream.send_again(tenant, [stored])
    return stored


async def replay_page(
    stream: DeadLetterStream,
    tenant: str | None,
    wanted: Filter,
    *,
    following: int = 1,
    until: int | None = None,
    limit: int,
) -> Replayed:
    """Replay the dead letters that are meant, at most `limit` of them and for about `REPLAY_SECONDS`.

    What it has replayed is gone from the stream, so a replay that is cut short is gone on with by beginning anew.
    """
    if until is None:
        until = await stream.last_id()
    replayed = unreadable = remaining = 0
    deadline = time.monotonic() + REPLAY_SECONDS
    while (room := limit - replayed - unreadable) > 0 and time.monotonic() < deadline:
        scan = await stream.scan(tenant, following, min(room, REPLAY_TOGETHER))
        found = [stored for stored in scan.letters if stored.id <= until]
        if not found:
            return Replayed(replayed, unreadable, None, until, 0)
        meant = [stored for stored in found if wanted.passes(stored)]
        readable = [stored for stored in meant if stored.letter.reason != UNREADABLE]
        if readable:
            await stream.send_again(tenant, readable, gapless=len(readable) == len(found))
        replayed += len(readable)
        unreadable += len(meant) - len(readable)
        following, remaining = found[-1].id + 1, scan.remaining
    behind = await stream.following(tenant, following)
    if behind is None or behind.id > until:
        return Replayed(replayed, unreadable, None, until, 0)
    return Replayed(replayed, unreadable, behind.id, until, remaining)
