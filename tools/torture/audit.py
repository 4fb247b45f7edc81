"""Conservation: what was acknowledged is stored exactly once with equal values, or lies in the dead letters once.

Acknowledged by the broker; where that was killed, by the platform to the broker. What only the broker had acknowledged then is stored
once or not at all.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

import asyncpg
import nats
import numpy as np
from nats.aio.client import Client
from nats.errors import Error as NatsError
from numpy.typing import NDArray

from sens_common.dead_letters import Reason
from sens_common.errors import SensError
from sens_common.names import TELEMETRY_CONSUMER, TELEMETRY_STREAM
from tools.stack.path import Stack
from tools.stack.tap import Tap
from tools.torture.load import Record
from tools.torture.messages import FIRST_TIME_MILLISECONDS, MALFORMED_EVERY, POISON_EVERY, Kind, Messages, values

SETTLE_SECONDS: Final = 240
"""How long everything may take to come to rest: longer than the longest pause of a worker between two attempts."""

_POLL_SECONDS: Final = 0.4
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_SHOWN: Final = 5
_DAY_MILLISECONDS: Final = 86_400_000
_LETTERS_AGAIN: Final = 10_000
_CLOCK_SECONDS: Final = 5
"""How far the clock may be put back during a run."""

_REASONS: Final = {Kind.MALFORMED: Reason.MALFORMED_PAYLOAD, Kind.POISON: Reason.REFUSED_BY_DATABASE}
_NOT_NOW: Final = (SensError, NatsError, OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError)

# What is stored of the messages from a number on. Those with a device time have it from their number, the others that of their receipt:
# both are ranges of the tables' keys, so that the cost does not grow with what is stored already.
_RECENT: Final = """
    SELECT {columns} FROM stored_values
    WHERE device_id = ANY (ARRAY(SELECT id FROM sens.devices)) AND metric = ANY ($4::text[])
        AND ts >= to_timestamp($1::float8) AND ts < to_timestamp($2::float8)
    UNION ALL
    SELECT {columns} FROM stored_values
    WHERE device_id = ANY (ARRAY(SELECT id FROM sens.devices)) AND metric = ANY ($4::text[]) AND ts >= to_timestamp($3::float8)
"""
_METRICS: Final = ("n", "half", "even", "name")
_NUMBERS: Final = "SELECT string_agg(int4send(n.number::int4), ''::bytea) FROM ({}) n"
_DEVICES: Final = "SELECT d.id, t.name AS tenant, d.name FROM sens.devices d JOIN sens.tenants t ON t.id = d.tenant_id"


class Outcome(NamedTuple):
    """What became of the messages.

    Attributes:
        acknowledged: How many the broker acknowledged.
        uncertain: How many more may or may not have reached it.
        stored: How many are in the database.
        duplicate: How many more came to the database again, to no effect.
        dead_lettered: How many are in the dead letters.
        broker_lost: How many the broker had acknowledged and has lost, being killed: the platform never acknowledged them.
        problems: What must not be, one line each; empty when all is well.
    """

    acknowledged: int
    uncertain: int
    stored: int
    duplicate: int
    dead_lettered: int
    broker_lost: int
    problems: list[str]


_DETAILS: Final = 3
"""So many details of dead letters with a wrong reason are told."""


class Audit:
    """Compares the record with database and dead letters, again and again; remembers what it has seen, so that each look is cheap."""

    def __init__(self, stack: Stack, record: Record, tap: Tap) -> None:
        """Begin.

        Args:
            stack: The running path.
            record: What is published.
            tap: What passes between broker and platform.
        """
        self._stack = stack
        self._record = record
        self._messages = record.messages
        self._tap = tap
        self._arrived = np.zeros(1, np.bool_)
        self._compared = np.zeros(1, np.bool_)
        self._letters: Counter[int] = Counter()
        self._wrongly: list[int] = []
        self._wrong_details: Counter[str] = Counter()
        self._seen_letters: set[int] = set()
        self._last_letter = 0

    def settle(self, *, loaded: bool) -> str | None:
        """Wait until all workers are ready and what has to arrive by now has arrived.

        Args:
            loaded: Whether messages are published meanwhile; else what the platform is sent has to be acknowledged too.

        Returns:
            What did not come to rest in time; None when everything has.
        """
        owed = self._record.owed()
        deadline = time.monotonic() + SETTLE_SECONDS
        while True:
            try:
                missing = self._missing(owed)
                trouble = None
            except _NOT_NOW as error:
                missing = owed[:0].nonzero()[0]
                trouble = f"database or stream can't be asked: {error}"
            not_ready = {name: checks for name, worker in self._stack.workers.items() if (checks := worker.not_ready())}
            unacknowledged = 0 if loaded else self._tap.unacknowledged
            if trouble is None and not len(missing) and not not_ready and not unacknowledged:
                return None
            if time.monotonic() > deadline:
                if unacknowledged:
                    not_ready["broker"] = {"mqtt": f"{unacknowledged} messages are sent and not acknowledged"}
                return self._unsettled(missing, not_ready, trouble)
            time.sleep(_POLL_SECONDS)

    def _missing(self, owed: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Return the numbers among these that have not arrived."""
        self._arrived = _grown(self._arrived, len(owed))
        missing = np.flatnonzero(owed & ~self._arrived[: len(owed)])
        if len(missing):
            self._read_letters()
            recent = self._numbers(_RECENT.format(columns="number"), *self._since(int(missing[0])), ["n"])
            self._note_arrived(recent)
            self._note_arrived(np.array(list(self._letters), np.int64))
            missing = np.flatnonzero(owed & ~self._arrived[: len(owed)])
        return missing

    def _note_arrived(self, numbers: NDArray[np.int64]) -> None:
        if len(numbers):
            self._arrived = _grown(self._arrived, int(numbers.max()) + 1)
            self._arrived[numbers[numbers > 0]] = True

    def _since(self, number: int) -> tuple[float, float, float]:
        """Return the bounds of the times of the messages from this number on, as `_RECENT` takes them."""
        first = FIRST_TIME_MILLISECONDS + number
        return (
            first / 1000,
            (FIRST_TIME_MILLISECONDS + _DAY_MILLISECONDS) / 1000,
            self._record.published_after(number) - _CLOCK_SECONDS,
        )

    def _numbers(self, query: str, *arguments: object) -> NDArray[np.int64]:
        found = self._stack.fetch_stored(_NUMBERS.format(query), *arguments)[0][0] or b""
        return np.frombuffer(found, ">i4").astype(np.int64)

    def _unsettled(self, missing: NDArray[np.int64], not_ready: dict[str, dict[str, str]], trouble: str | None) -> str:
        """Return what has not come to rest, for people."""
        parts = [f"{worker} is not ready ({checks})" for worker, checks in not_ready.items()]
        parts += [trouble] if trouble else []
        parts += [f"{len(missing)} messages have not arrived: {_shown(self._messages, missing.tolist())}"]
        try:
            parts.append(asyncio.run(self._stream_state()))
        except _NOT_NOW as error:
            parts.append(f"the stream does not say what waits in it: {error!r}")
        return f"not at rest after {SETTLE_SECONDS} s: {'; '.join(parts)}"

    async def _stream_state(self) -> str:
        client = await self._nats()
        try:
            info = await client.jetstream().consumer_info(TELEMETRY_STREAM, TELEMETRY_CONSUMER)
        finally:
            await client.close()
        return f"in the stream {info.num_pending} envelopes wait, {info.num_ack_pending} are delivered and not acknowledged"

    def check(self) -> Outcome:
        """Compare everything; what has been compared before only by its number."""
        problems = list(self._tap.problems)
        self._read_letters()
        numbers = self._numbers("SELECT number FROM stored_values WHERE metric = 'n'")
        acknowledged, uncertain = self._record.masks()
        count = len(acknowledged)
        known = np.flatnonzero(acknowledged | uncertain)
        stored = np.bincount(numbers[(numbers > 0) & (numbers < count)], minlength=count)
        lettered = np.zeros(count, np.int64)
        for number, times in self._letters.items():
            if 0 < number < count:
                lettered[number] = times
        every = np.arange(count)
        refused = (every % MALFORMED_EVERY == 0) | (every % POISON_EVERY == 0)
        missing = stored + lettered == 0
        # What was there once has to stay.
        self._arrived = _grown(self._arrived, count)
        owed = self._record.owed()[:count] | self._arrived[:count]
        self._report(problems, "lost", np.flatnonzero(owed & missing))
        self._note_arrived(np.flatnonzero(~missing))
        self._report(problems, "stored more than once", np.flatnonzero((stored > 1) & ~refused & (every > 0)))
        self._report(problems, "dead-lettered more than once", np.flatnonzero(lettered > 1))
        self._report(problems, "stored and dead-lettered", np.flatnonzero((stored > 0) & (lettered > 0)))
        strangers = np.setdiff1d(np.concatenate([numbers, np.array(list(self._letters), np.int64)]), known)
        self._report(problems, "never published", strangers)
        self._report(problems, "dead-lettered for a wrong reason", np.array(self._wrongly))
        problems.extend(f"{count} letters say: {detail}" for detail, count in self._wrong_details.most_common(_DETAILS))
        self._report(problems, "stored although refused", np.flatnonzero(refused & (stored > 0)))
        self._compared = _grown(self._compared, count)
        new = np.flatnonzero((stored > 0) & ~self._compared[:count])
        self._report(problems, "stored with another value", self._different(new))
        self._compared[new] = True
        disagreements, duplicates = _counters(self._stack)
        return Outcome(
            acknowledged=int(acknowledged.sum()),
            uncertain=int(uncertain.sum()),
            stored=len(numbers),
            duplicate=duplicates,
            dead_lettered=self._letters.total(),
            broker_lost=int((acknowledged & ~owed & missing).sum()),
            problems=problems + disagreements,
        )

    def _different(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return those of the messages whose values, time, device or tenant are not what was sent, or that are not found by their time."""
        if not len(numbers):
            return numbers
        bounds = self._since(int(numbers[0]))
        devices = {row["id"]: (row["tenant"], row["name"]) for row in self._stack.fetch(_DEVICES)}
        recent = _RECENT.format(columns="device_id, metric, ts, number, text")
        readings: dict[tuple[int, datetime], dict[str, float | str]] = {}
        for device, metric, ts, number, text in self._stack.fetch_stored(recent, *bounds, _METRICS):
            readings.setdefault((device, ts), {})[metric] = number if text is None else text
        as_sent = {
            int(reading["n"])
            for (device, ts), reading in readings.items()
            if "n" in reading and _is_as_sent(self._messages, devices[device], ts, reading)
        }
        return np.array([number for number in numbers.tolist() if number not in as_sent], np.int64)

    def _report(self, problems: list[str], what: str, numbers: NDArray[np.int64]) -> None:
        if len(numbers):
            problems.append(f"{len(numbers)} {what}: {_shown(self._messages, numbers.tolist())}")

    async def _nats(self) -> Client:
        return await nats.connect(**self._stack.nats_login, allow_reconnect=False, connect_timeout=5, error_cb=_silent)

    def _read_letters(self) -> None:
        """Take note of the dead letters that are new."""
        # One with a lower number may be committed later.
        rows = self._stack.fetch(
            "SELECT id, payload, reason, detail FROM sens.dead_letters WHERE id > $1 ORDER BY id",
            self._last_letter - _LETTERS_AGAIN,
        )
        for letter_id, payload, reason, detail in rows:
            if letter_id in self._seen_letters:
                continue
            self._seen_letters.add(letter_id)
            self._last_letter = max(self._last_letter, letter_id)
            number = self._messages.number_of(payload)
            self._letters[number] += 1
            if number <= 0 or _REASONS.get(self._messages.message(number).kind) != reason:
                self._wrongly.append(number)
                self._wrong_details[f"{reason}: {detail}"] += 1


def _counters(stack: Stack) -> tuple[list[str], int]:
    """Compare the platform's own counters with what is stored, within one statement: all are of one moment.

    The counters are those of the database. The workers' metrics begin at zero with each process.

    Returns:
        What does not agree, and how many messages were duplicates.
    """
    rows = stack.fetch_stored(
        """
        SELECT coalesce(t.name, 'no tenant') AS name, sum(c.stored)::int8 AS stored, sum(c.duplicate)::int8 AS duplicate,
               sum(c.dead_lettered)::int8 AS dead_lettered, sum(c.discarded)::int8 AS discarded, sum(abs(c.unaccounted))::int8 AS unaccounted,
               (SELECT count(*) FROM stored_values v WHERE v.tenant_id = t.id AND v.metric = 'n') AS there,
               (SELECT count(*) FROM sens.dead_letters d WHERE d.tenant_id IS NOT DISTINCT FROM t.id) AS letters,
               (SELECT coalesce(sum(u.letters), 0) FROM sens.dead_letter_usage u WHERE u.tenant_id IS NOT DISTINCT FROM t.id) AS used
        FROM sens.conservation() c LEFT JOIN sens.tenants t ON t.id = c.tenant_id
        GROUP BY t.id, t.name
        """
    )
    [[in_parts]] = stack.fetch("SELECT count(*) FROM sens.settled WHERE outcomes IS NOT NULL")
    problems = [f"{in_parts} envelopes are settled in part"] if in_parts else []
    for row in rows:
        name = row["name"]
        for what, counted, there in (
            ("stored", row["stored"], row["there"]),
            ("dead letters", row["dead_lettered"], row["letters"]),
            ("dead letters of its quota", row["used"], row["letters"]),
            ("discarded", row["discarded"], 0),
            ("not accounted for", row["unaccounted"], 0),
        ):
            if counted != there:
                problems.append(f"the platform counts {counted} messages of {name} as {what}, {there} are")
    return problems, sum(row["duplicate"] for row in rows)


def _is_as_sent(messages: Messages, device: tuple[str, str], ts: datetime, reading: Mapping[str, float | str]) -> bool:
    number = int(reading["n"])
    sent = messages.message(number)
    milliseconds = (ts - _EPOCH) / timedelta(milliseconds=1)
    return (
        device == (sent.tenant, sent.device)
        and reading == values(number)
        and (sent.time_milliseconds is None or milliseconds == sent.time_milliseconds)
    )


def _grown(mask: NDArray[np.bool_], count: int) -> NDArray[np.bool_]:
    return mask if len(mask) >= count else np.concatenate([mask, np.zeros(count - len(mask), np.bool_)])


def _shown(messages: Messages, numbers: list[int]) -> str:
    shown = ", ".join(f"{number} ({messages.message(number).kind})" for number in numbers[:_SHOWN])
    return f"{shown}{' …' if len(numbers) > _SHOWN else ''}"


async def _silent(_error: Exception) -> None:
    """Say nothing of a connection that is lost: the server may be down just now."""
