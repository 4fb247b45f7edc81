"""Dead letters: listing, showing, replaying."""

import time
from typing import Final, NamedTuple

from sens_common.dead_letters import MAX_TOGETHER, Reason
from sens_platform_api.dead_letters.repository import UNREADABLE, Choice, DeadLetterStream, StoredDeadLetter
from sens_platform_api.errors import AlreadyExistsError

SCAN_LIMIT: Final = 1000
"""Dead letters that one call looks at; a filter that few pass yields short pages."""
REPLAY_SECONDS: Final = 10.0
"""One call of a filtered replay ends about after this."""
REPLAY_TOGETHER: Final = 500
"""Messages of the stream that a replay reads, sends and deletes together, if they are small; what it holds in memory."""


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
    """Some dead letters, oldest first, and the position to go on with: that of `list_page`; None at the end."""

    letters: list[StoredDeadLetter]
    following: int | None


class Replayed(NamedTuple):
    """What one call of a filtered replay did.

    Attributes:
        replayed: Number of dead letters that went into the telemetry stream again.
        unreadable: Number of those that no replay can help.
        following: The sequence to go on with, None when all that are meant were replayed.
        until: The highest sequence that is meant: what comes back from a replay gets a higher one, and is not replayed again.
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
    """Return the dead letters that are meant, from a position on: a message's sequence times `MAX_TOGETHER` plus a place in it."""
    letters: list[StoredDeadLetter] = []
    sequence, first = divmod(following, MAX_TOGETHER)
    seen = 0
    while seen < SCAN_LIMIT:
        message = await stream.following(tenant, max(1, sequence))
        if message is None:
            return Page(letters, None)
        if message.sequence > sequence:
            sequence, first = message.sequence, 0
        for place, stored in enumerate(message.letters[first:], first):
            if wanted.passes(stored):
                if len(letters) == limit:
                    return Page(letters, sequence * MAX_TOGETHER + place)
                letters.append(stored)
        seen += len(message.letters)
        sequence, first = sequence + 1, 0
    return Page(letters, sequence * MAX_TOGETHER)


async def replay_one(stream: DeadLetterStream, tenant: str | None, letter_id: int) -> StoredDeadLetter:
    """Replay one dead letter.

    Raises:
        NotFoundError: There is none with this id, or it is another tenant's.
        AlreadyExistsError: No replay can help it.
    """
    choice = await stream.get(tenant, letter_id)
    [stored] = choice.letters
    if stored.letter.reason == UNREADABLE:
        raise AlreadyExistsError(f"{letter_id} is not a readable dead letter, so it can't be replayed")
    await stream.send_again(tenant, [choice])
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
    """Replay the dead letters that are meant: messages of the stream until there are `limit`, and for about `REPLAY_SECONDS`.

    What it has replayed is gone from the stream, so a replay that is cut short is gone on with by beginning anew.

    Args:
        stream: The stream.
        tenant: Whose they are.
        wanted: Which are meant.
        following: The sequence to begin with.
        until: The sequence to end with; without it that of the newest message.
        limit: How many; those that lie in one message with the last one come with it.
    """
    if until is None:
        until = await stream.last_sequence()
    replayed = unreadable = remaining = 0
    deadline = time.monotonic() + REPLAY_SECONDS
    while (room := limit - replayed - unreadable) > 0 and time.monotonic() < deadline:
        scan = await stream.scan(tenant, following, min(room, REPLAY_TOGETHER))
        found = [message for message in scan.messages if message.sequence <= until]
        if not found:
            return Replayed(replayed, unreadable, None, until, 0)
        choices = []
        gapless = True
        for message in found:
            meant = [stored for stored in message.letters if wanted.passes(stored)]
            readable = [stored for stored in meant if stored.letter.reason != UNREADABLE]
            if readable:
                choices.append(Choice(message, readable))
            gapless = gapless and len(readable) == len(message.letters)
            room -= len(meant)
            replayed += len(readable)
            unreadable += len(meant) - len(readable)
            following = message.sequence + 1
            if room <= 0:
                break
        if choices:
            await stream.send_again(tenant, choices, gapless=gapless)
        remaining = scan.remaining + sum(len(message.letters) for message in found if message.sequence >= following)
    behind = await stream.following(tenant, following)
    if behind is None or behind.sequence > until:
        return Replayed(replayed, unreadable, None, until, 0)
    return Replayed(replayed, unreadable, behind.sequence, until, remaining)
