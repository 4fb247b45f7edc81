"""The measurement of a replay: dead letters go through the platform again, the replay being killed once on the way."""

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from sens_common.dead_letters import Reason
from tools.bench.figures import Replayed
from tools.bench.load import Shape, payload
from tools.stack.path import TELEMETRY, Stack, StackError
from tools.stack.server import Server

_STORED: Final = "sens_telemetry_messages_stored_total"
_DUPLICATE: Final = "sens_telemetry_messages_duplicate_total"
_DEVICES: Final = 1000
_TOGETHER: Final = 10_000
_ENVELOPE: Final = 200
_DEADLINE_SECONDS: Final = 1800
_POLL_SECONDS: Final = 0.1
_KILLED_AFTER: Final = 0.1


def replay(stack: Stack, dead_letters: int, *, filtered: bool) -> Replayed:
    """Let a replay be killed in the middle and another one finish; see what is stored.

    Args:
        stack: The running path.
        dead_letters: How many are replayed.
        filtered: Whether there are as many others, which a filter leaves out; else all are replayed.

    Raises:
        StackError: A message was lost, or stored twice.
    """
    with tempfile.TemporaryDirectory(prefix="sens-bench-") as folder:
        return _replay(stack, dead_letters, Path(folder), filtered=filtered)


def _replay(stack: Stack, dead_letters: int, folder: Path, *, filtered: bool) -> Replayed:
    tenant = f"replay-{time.time_ns():x}"
    stack.fetch("INSERT INTO sens.tenants (name, device_limit) VALUES ($1, 1000000)", tenant)
    others = dead_letters if filtered else 0
    _make(stack, tenant, dead_letters, filtered=filtered)
    stored, duplicate = (stack.workers[TELEMETRY].metric(name) for name in (_STORED, _DUPLICATE))

    first, second = (_command(stack, tenant, folder / name) for name in ("first", "second"))
    first.start()
    goal = stored + dead_letters * _KILLED_AFTER
    _wait(lambda: bool(first.exit_code) or stack.workers[TELEMETRY].metric(_STORED) > goal, "the replay is under way")
    if first.exit_code:
        raise StackError(f"the replay failed: {first.output()}")
    first.kill()

    started = time.perf_counter()
    second.start()
    megabytes = 0.0
    while (used := second.usage()) is not None:
        megabytes = max(megabytes, used.resident_megabytes)
        time.sleep(_POLL_SECONDS)
    seconds = time.perf_counter() - started
    if second.stop() != 0:
        raise StackError(f"the replay failed: {second.output()}")
    left = json.loads(second.output())["replayed"]
    staying = _count(stack, tenant)
    if staying != others or left > dead_letters:
        raise StackError(f"{staying} dead letters are there instead of {others} after {left} were replayed")
    _wait(lambda: stack.workers[TELEMETRY].metric(_STORED) >= stored + dead_letters, "all messages are stored")
    stored_seconds = time.perf_counter() - started
    [[rows]] = stack.fetch_stored("SELECT count(*) FROM stored_values WHERE tenant = $1 AND metric = 'rssi'", tenant)
    if rows != dead_letters:
        raise StackError(f"{dead_letters} messages were replayed, and {rows} are stored")
    return Replayed(
        dead_letters=dead_letters,
        others=others,
        left=left,
        sent_twice=int(stack.workers[TELEMETRY].metric(_DUPLICATE) - duplicate),
        replayed_per_second=left / seconds,
        stored_seconds=stored_seconds,
        megabytes=megabytes,
    )


def _make(stack: Stack, tenant: str, count: int, *, filtered: bool) -> None:
    """Put messages, which can be stored, into the dead letters; where there is a filter, as many others between them."""
    now = time.time_ns() // 1000
    reasons = [Reason.LIMIT_REACHED, Reason.MALFORMED_PAYLOAD] if filtered else [Reason.LIMIT_REACHED]
    shape = Shape(count)
    for start in range(0, count, _TOGETHER):
        numbers = range(start, min(start + _TOGETHER, count))
        stack.fetch(
            """
            INSERT INTO sens.dead_letters (tenant_id, device, topic, received_at, dead_lettered_at, reason, detail, payload, payload_bytes,
                stream, sequence, number)
            SELECT t.id, device, 'sens/v1/' || t.name || '/' || device || '/telemetry', to_timestamp($2::float8) + n * interval '1 us',
                now(), reason, 'made by a measurement', payload, octet_length(payload), t.id, n / $7::int, n % $7::int * 2 + position
            FROM sens.tenants t, unnest($3::int[], $4::text[], $5::bytea[]) AS message (n, device, payload),
                unnest($6::text[]) WITH ORDINALITY AS why (reason, position)
            WHERE t.name = $1
            ORDER BY n, position
            """,
            tenant,
            now / 1e6,
            list(numbers),
            [f"device-{number % _DEVICES:07d}" for number in numbers],
            [payload(shape, number, now // 1000 + number // _DEVICES) for number in numbers],
            reasons,
            _ENVELOPE,
        )


def _command(stack: Stack, tenant: str, output: Path) -> Server:
    which = [f"--tenant={tenant}", "--all", f"--reason={Reason.LIMIT_REACHED}", "--json"]
    command = [sys.executable, "-m", "sens_cli", "dead-letters", "replay", *which]
    return Server("a replay", command, output, env=os.environ | stack.environment)


def _count(stack: Stack, tenant: str) -> int:
    """Return how many dead letters the tenant has."""
    [[count]] = stack.fetch(
        "SELECT count(*) FROM sens.dead_letters d JOIN sens.tenants t ON t.id = d.tenant_id WHERE t.name = $1", tenant
    )
    return int(count)


def _wait(condition: Callable[[], bool], what: str) -> None:
    deadline = time.perf_counter() + _DEADLINE_SECONDS
    while not condition():
        if time.perf_counter() > deadline:
            raise StackError(f"{what}: not within {_DEADLINE_SECONDS} s")
        time.sleep(_POLL_SECONDS)
