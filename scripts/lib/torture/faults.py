"""What can go wrong, each as something that happens to a running path and is over when its function returns."""

import asyncio
import random
import time
from collections.abc import Callable
from typing import Final, NamedTuple

import nats
from scripts.lib.stack.path import BROKER, INGESTION, NATS, POSTGRES, TELEMETRY, Stack
from scripts.lib.stack.proxy import Mode

from sens_common.database import connect
from sens_common.names import TELEMETRY_STREAM


class Fault(NamedTuple):
    """A fault.

    Attributes:
        name: For people.
        group: Row of the table of results.
        happen: Takes the path and the seconds that it lasts.
    """

    name: str
    group: str
    happen: Callable[[Stack, float], None]


def _killed(*names: str) -> Callable[[Stack, float], None]:
    def happen(stack: Stack, seconds: float) -> None:
        for name in names:
            stack.kill(name)
        time.sleep(seconds)
        for name in names:
            stack.start(name, wait=False)
        for name in names:
            stack.wait(name)

    return happen


def _paused(name: str) -> Callable[[Stack, float], None]:
    def happen(stack: Stack, seconds: float) -> None:
        stack.pause(name)
        time.sleep(seconds)
        stack.resume(name)

    return happen


def _edge(name: str, mode: Mode) -> Callable[[Stack, float], None]:
    def happen(stack: Stack, seconds: float) -> None:
        stack.proxies[name].set(mode)
        time.sleep(seconds)
        stack.proxies[name].set(Mode.OPEN)

    return happen


def _restarted(*names: str) -> Callable[[Stack, float], None]:
    """Stop and start one after the other, as an upgrade or an operator does."""

    def happen(stack: Stack, seconds: float) -> None:
        for name in names or stack.workers:
            stack.stop(name)
            time.sleep(seconds / 4)
            stack.start(name)

    return happen


def _all_restarted(stack: Stack, seconds: float) -> None:
    for name in reversed(stack.names):
        stack.stop(name)
    time.sleep(seconds / 4)
    for name in stack.names:
        stack.start(name)


def _statement(before: str, after: str) -> Callable[[Stack, float], None]:
    def happen(stack: Stack, seconds: float) -> None:
        for statement in before.split(";"):
            stack.fetch(statement)
        time.sleep(seconds)
        for statement in after.split(";"):
            stack.fetch(statement)

    return happen


def _locked(stack: Stack, seconds: float) -> None:
    async def hold() -> None:
        connection = await connect(stack.database, "torture")
        try:
            async with connection.transaction():
                await connection.execute("LOCK TABLE sens.measurements IN ACCESS EXCLUSIVE MODE")
                await asyncio.sleep(seconds)
        finally:
            await connection.close()

    asyncio.run(hold())


def _terminated(stack: Stack, seconds: float) -> None:
    """End the workers' database sessions again and again."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        stack.fetch(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'telemetry%'"
            " AND pid <> pg_backend_pid()"
        )
        time.sleep(0.2)


def _log_full(stack: Stack, seconds: float) -> None:
    """Leave the log no room: a limit below what it holds already."""

    async def squeeze() -> None:
        client = await nats.connect(**stack.nats_login)
        try:
            jetstream = client.jetstream()
            info = await jetstream.stream_info(TELEMETRY_STREAM)
            limit = info.config.max_bytes
            info.config.max_bytes = max(info.state.bytes, 1)
            await jetstream.update_stream(info.config)
            try:
                await asyncio.sleep(seconds)
            finally:
                info.config.max_bytes = limit
                await jetstream.update_stream(info.config)
        finally:
            await client.close()

    asyncio.run(squeeze())


_READ_ONLY: Final = "ALTER SYSTEM SET default_transaction_read_only = on; SELECT pg_reload_conf()"
_WRITABLE: Final = (
    "SET default_transaction_read_only = off; ALTER SYSTEM RESET default_transaction_read_only; SELECT pg_reload_conf()"
)


def faults(broker: str) -> list[Fault]:
    """Return every fault that a path with this broker has to stand.

    The mock broker keeps sessions in memory alone, so what it has acknowledged is gone when its process is.
    """
    second = f"{TELEMETRY}-2"
    killed = [(INGESTION,), (TELEMETRY,), (second,), (NATS,), (POSTGRES,)]
    pairs = [
        (INGESTION, TELEMETRY),
        (INGESTION, NATS),
        (TELEMETRY, second),
        (TELEMETRY, NATS),
        (TELEMETRY, POSTGRES),
        (NATS, POSTGRES),
    ]
    found = [Fault(f"kill {names[0]}", "a process killed", _killed(*names)) for names in killed]
    found += [Fault(f"kill {' and '.join(names)}", "two processes killed", _killed(*names)) for names in pairs]
    found += [
        Fault(f"pause {name}", "a process paused", _paused(name))
        for name in (BROKER, INGESTION, TELEMETRY, NATS, POSTGRES)
    ]
    found += [
        Fault(f"{mode} {edge}", f"a connection {mode}", _edge(edge, mode))
        for edge in ("mqtt", "ingestion-nats", "telemetry-nats", "database")
        for mode in Mode
        if mode is not Mode.OPEN
    ]
    found += [
        Fault("roll the workers", "an upgrade", _restarted()),
        Fault("database locked", "the database", _locked),
        Fault("database read-only", "the database", _statement(_READ_ONLY, _WRITABLE)),
        Fault("database sessions ended", "the database", _terminated),
        Fault("database restarted", "the database", _restarted(POSTGRES)),
        Fault("log restarted", "the log", _restarted(NATS)),
        Fault("log full", "the log", _log_full),
    ]
    if broker == "mosquitto":
        found += [
            Fault("broker restarted", "the broker", _restarted(BROKER)),
            Fault("everything restarted", "everything restarted", _all_restarted),
        ]
    return found


def chosen(broker: str, count: int, generator: random.Random) -> list[Fault]:
    """Return this many faults in random order, each kind before any comes twice."""
    every = faults(broker)
    order: list[Fault] = []
    while len(order) < count:
        generator.shuffle(every)
        order += every
    return order[:count]
