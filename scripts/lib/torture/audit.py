"""Conservation: what the broker acknowledged is stored exactly once with equal values, or lies in the dead letters once."""

import asyncio
import time
from collections import Counter
from typing import Final, NamedTuple

import nats
from nats.errors import TimeoutError as NatsTimeoutError
from nats.js.api import ConsumerConfig, DeliverPolicy
from scripts.lib.stack.path import Stack
from scripts.lib.torture.load import Kind, Record, message

from sens_common import dead_letters
from sens_common.dead_letters import Reason
from sens_common.names import DEAD_LETTERS_STREAM

_SETTLE_SECONDS: Final = 180
_POLL_SECONDS: Final = 0.25
_SHOWN: Final = 5
_BATCH: Final = 500
_REASONS: Final = {Kind.MALFORMED: Reason.MALFORMED_PAYLOAD, Kind.POISON: Reason.REFUSED_BY_DATABASE}


class Outcome(NamedTuple):
    """What became of the messages.

    Attributes:
        acknowledged: How many the broker acknowledged.
        uncertain: How many more may or may not have reached it.
        stored: How many are in the database.
        dead_lettered: How many are in the dead letters.
        problems: What must not be, one line each; empty when all is well.
    """

    acknowledged: int
    uncertain: int
    stored: int
    dead_lettered: int
    problems: list[str]


def settle(stack: Stack, record: Record) -> None:
    """Wait until everything that was acknowledged has arrived, or the time is up: the audit says what has not."""
    deadline = time.monotonic() + _SETTLE_SECONDS
    while time.monotonic() < deadline:
        there = stored_numbers(stack).keys() | {number for number, _ in asyncio.run(_dead_letters(stack))}
        if record.acknowledged <= there:
            return
        time.sleep(_POLL_SECONDS)


def stored_numbers(stack: Stack) -> Counter[int]:
    """Return how often each message number is stored."""
    rows = stack.fetch(
        "SELECT m.value::int8, count(*) FROM sens.measurements m JOIN sens.metrics k ON k.id = m.metric_id"
        " WHERE k.name = 'n' GROUP BY 1"
    )
    return Counter({row[0]: row[1] for row in rows})


def audit(stack: Stack, record: Record) -> Outcome:
    """Compare the record with database and dead letters."""
    problems: list[str] = []
    stored = stored_numbers(stack)
    letters = asyncio.run(_dead_letters(stack))
    lettered = Counter(number for number, _ in letters)
    known = record.acknowledged | record.uncertain
    lost = sorted(record.acknowledged - stored.keys() - lettered.keys())
    _report(problems, "lost", lost)
    _report(problems, "stored more than once", sorted(number for number, times in stored.items() if times > 1))
    _report(problems, "dead-lettered more than once", sorted(number for number, times in lettered.items() if times > 1))
    _report(problems, "stored and dead-lettered", sorted(stored.keys() & lettered.keys()))
    _report(problems, "never published", sorted((stored.keys() | lettered.keys()) - known))
    wrongly = sorted(number for number, reason in letters if _REASONS.get(message(number).kind) != reason)
    _report(problems, "dead-lettered for a wrong reason", wrongly)
    _report(
        problems, "stored although refused", sorted(number for number in stored if message(number).kind in _REASONS)
    )
    _report(problems, "stored with another value", _different(stack))
    return Outcome(len(record.acknowledged), len(record.uncertain), len(stored), len(lettered), problems)


def _report(problems: list[str], what: str, numbers: list[int]) -> None:
    if numbers:
        shown = ", ".join(f"{number} ({message(number).kind})" for number in numbers[:_SHOWN])
        problems.append(f"{len(numbers)} {what}: {shown}{' …' if len(numbers) > _SHOWN else ''}")


def _different(stack: Stack) -> list[int]:
    """Return messages whose other values, time, device or tenant are not what was sent."""
    rows = stack.fetch(
        """
        SELECT n.value::int8 AS number, t.name AS tenant, d.name AS device,
               (extract(epoch FROM n.ts) * 1000)::int8 AS time,
               max(m.value) FILTER (WHERE k.name = 'half') AS half, max(m.value) FILTER (WHERE k.name = 'even') AS even,
               count(m.*) FILTER (WHERE k.name IN ('half', 'even')) AS count,
               (SELECT min(x.value) FROM sens.text_measurements x WHERE x.device_id = n.device_id AND x.ts = n.ts) AS text
        FROM sens.measurements n
        JOIN sens.metrics nk ON nk.id = n.metric_id AND nk.name = 'n'
        JOIN sens.devices d ON d.id = n.device_id JOIN sens.tenants t ON t.id = d.tenant_id
        JOIN sens.measurements m ON m.device_id = n.device_id AND m.ts = n.ts
        JOIN sens.metrics k ON k.id = m.metric_id
        GROUP BY n.value, t.name, d.name, n.ts, n.device_id
        """
    )
    found = []
    for row in rows:
        sent = message(row["number"])
        right = (
            (row["tenant"], row["device"]) == (sent.tenant, sent.device)
            and (row["half"], row["even"], row["count"]) == (sent.number / 2, float(sent.number % 2 == 0), 2)
            and row["text"] == f"message {sent.number}"
            and (sent.time_milliseconds is None or row["time"] == sent.time_milliseconds)
        )
        if not right:
            found.append(sent.number)
    return sorted(found)


async def _dead_letters(stack: Stack) -> list[tuple[int, str]]:
    """Return number and reason of every dead letter; -1 is a payload that was not published."""
    client = await nats.connect(**stack.nats_login)
    try:
        jetstream = client.jetstream()
        total = (await jetstream.stream_info(DEAD_LETTERS_STREAM)).state.messages
        subscription = await jetstream.subscribe(
            "sens.dead_letters.>",
            stream=DEAD_LETTERS_STREAM,
            ordered_consumer=True,
            config=ConsumerConfig(deliver_policy=DeliverPolicy.ALL),
        )
        found = []
        for _ in range(total):
            try:
                letter = dead_letters.decode((await subscription.next_msg(timeout=10)).data)
            except NatsTimeoutError:
                break
            found.append((_number(letter.payload), letter.reason))
        return found
    finally:
        await client.close()


def _number(payload: bytes) -> int:
    start = payload.find(b'"n": ')
    number = int(payload[start + 5 : payload.index(b",", start)]) if start >= 0 else -1
    return number if number > 0 and message(number).payload == payload else -1
