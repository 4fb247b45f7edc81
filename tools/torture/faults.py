"""What can go wrong, each as something that happens to a running path and is over when its function returns."""

import asyncio
import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple

import asyncpg
import nats

from sens_common.database import connect
from sens_common.errors import SensError
from sens_common.names import TELEMETRY_STREAM
from tools.stack.path import BROKER, INGESTION, NATS, POSTGRES, TELEMETRY, Stack
from tools.stack.proxy import Mode

TIME_OUTS: Final = {
    "SENS_MQTT__KEEP_ALIVE_SECONDS": "5",
    "SENS_DATABASE__COMMAND_TIMEOUT_SECONDS": "8",
}
"""Settings of the workers with which everything they wait for is over after 10 s: an envelope's time limit, the broker's silence,
a statement. What is to outlast them can then be short."""

SHORT: Final = (0.2, 2.0)
_LONG: Final = (11.0, 15.0)
_MINUTES: Final = (60.0, 150.0)
_LIMIT_SECONDS: Final = (2.0, 6.0)  # a malformed message has to come meanwhile
_GRACE_SECONDS: Final = 5.0
_SETTLED_SHARE: Final = 0.7
"""Of the faults, those after which everything comes to rest before the next one."""

_STUTTER_SECONDS: Final = 0.15

type Happening = Callable[[Stack, float], None]


class Fault(NamedTuple):
    """A fault.

    Attributes:
        name: For people.
        group: Row of the table of results.
        happen: Takes the path and the seconds that it lasts.
        seconds: How long it lasts, from and to; None for as long as the plan says.
        every: It comes in one of so many turns of all faults.
        kills_broker: Whether the broker may lose what it has not handed over.
    """

    name: str
    group: str
    happen: Happening
    seconds: tuple[float, float] | None = None
    every: int = 1
    kills_broker: bool = False


class Planned(NamedTuple):
    """A fault that is to happen.

    Attributes:
        fault: Which.
        seconds: How long.
        pause_seconds: Time until the next one begins.
        settled: Whether it is waited for everything to come to rest before that; else the next one meets what this one left.
    """

    fault: Fault
    seconds: float
    pause_seconds: float
    settled: bool


def _killed(*names: str) -> Happening:
    def happen(stack: Stack, seconds: float) -> None:
        for name in names:
            stack.kill(name)
        time.sleep(seconds)
        stack.start_together(names)

    return happen


def _broker_killed(*others: str, saved: bool) -> Happening:
    """Kill Mosquitto some time after it has written its sessions to disk, so that it takes up old ones, or as if it never had."""

    def happen(stack: Stack, seconds: float) -> None:
        if saved:
            stack.save_sessions()
            time.sleep(seconds / 2)
        else:
            stack.forget_sessions()
        for name in (*others, BROKER):
            stack.kill(name)
        time.sleep(seconds / 2)
        stack.start_together((BROKER, *others))

    return happen


def _broker_killed_after_backlog(stack: Stack, seconds: float) -> None:
    """Kill Mosquitto when what it has on disk as in flight and as queued has long been taken over."""
    stack.kill(NATS)
    time.sleep(seconds / 4)  # what comes now is sent and not acknowledged
    stack.kill(INGESTION)
    time.sleep(seconds / 4)  # what comes now is queued
    stack.save_sessions()
    stack.start_together((NATS, INGESTION))
    time.sleep(seconds / 4)
    stack.kill(BROKER)
    time.sleep(seconds / 4)
    stack.start(BROKER)


def _paused(name: str) -> Happening:
    def happen(stack: Stack, seconds: float) -> None:
        stack.pause(name)
        time.sleep(seconds)
        stack.resume(name)

    return happen


def _edge(name: str, mode: Mode) -> Happening:
    def happen(stack: Stack, seconds: float) -> None:
        stack.proxies[name].set(mode)
        time.sleep(seconds)
        stack.proxies[name].set(Mode.OPEN)

    return happen


def _restarted(*names: str) -> Happening:
    """Stop and start one after the other, as an upgrade or an operator does."""

    def happen(stack: Stack, seconds: float) -> None:
        for name in names or stack.workers:
            stack.stop(name)
            time.sleep(seconds / 4)
            stack.start(name)

    return happen


def _gone(name: str) -> Happening:
    def happen(stack: Stack, seconds: float) -> None:
        stack.stop(name)
        time.sleep(seconds)
        stack.start(name)

    return happen


def _all_restarted(stack: Stack, seconds: float) -> None:
    for name in reversed(stack.names):
        stack.stop(name)
    time.sleep(seconds / 4)
    for name in stack.names:
        if name not in stack.workers:
            stack.start(name)
    stack.start_together(stack.workers)


def _statement(before: str, after: str) -> Happening:
    def happen(stack: Stack, seconds: float) -> None:
        for statement in before.split(";;"):
            _execute(stack, statement)
        time.sleep(seconds)
        for statement in after.split(";;"):
            _execute(stack, statement)

    return happen


def _execute(stack: Stack, statement: str) -> list[asyncpg.Record]:
    """Let the database do something, which may have to wait for what another fault has left."""
    deadline = time.monotonic() + 60
    while True:
        try:
            return stack.fetch(statement)
        except (SensError, OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
            if time.monotonic() > deadline:
                raise
            time.sleep(_STUTTER_SECONDS)


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


def _sessions_ended(stack: Stack, seconds: float) -> None:
    """End the workers' database sessions again and again."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        _execute(
            stack,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'telemetry%'"
            " AND pid <> pg_backend_pid()",
        )
        time.sleep(0.2)


def _session_killed(stack: Stack, _seconds: float) -> None:
    """Kill the process of one of the workers' sessions, upon which PostgreSQL ends all and recovers, as after a crash."""
    rows = stack.fetch("SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'telemetry%' ORDER BY pid LIMIT 1")
    for row in rows:
        stack.signal(POSTGRES, row["pid"], signal.SIGKILL)
    stack.wait(POSTGRES)


def _stuttering(stack: Stack, seconds: float) -> None:
    """Let the database work in short turns only."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        stack.pause(POSTGRES)
        time.sleep(_STUTTER_SECONDS)
        stack.resume(POSTGRES)
        time.sleep(_STUTTER_SECONDS / 3)


def _columnstore(stack: Stack, _seconds: float) -> None:
    """Move every chunk to TimescaleDB's columnstore, also those that are written to just now."""
    for chunk in _execute(
        stack, "SELECT format('%I.%I', chunk_schema, chunk_name) FROM timescaledb_information.chunks"
    ):
        _execute(stack, f"CALL convert_to_columnstore('{chunk[0]}')")


def _no_room_for(stream: str) -> Happening:
    """Leave a stream no room: a limit of what it holds already."""

    async def squeeze(stack: Stack, seconds: float) -> None:
        client = await nats.connect(**stack.nats_login)
        try:
            jetstream = client.jetstream()
            info = await jetstream.stream_info(stream)
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

    return lambda stack, seconds: asyncio.run(squeeze(stack, seconds))


def _disk_full(name: str) -> Happening:
    """Fill the server's disk. A server that does not recover by itself is started again, as its supervisor would."""

    def happen(stack: Stack, seconds: float) -> None:
        with _filled(stack, name):
            time.sleep(seconds)
        if not stack.becomes_ready(name, _GRACE_SECONDS):
            stack.stop(name)
        stack.start(name)

    return happen


@contextmanager
def _filled(stack: Stack, name: str) -> Iterator[None]:
    stack.disks[name].fill()
    try:
        yield
    finally:
        stack.disks[name].make_room()


def _trigger(body: str) -> Happening:
    """Let the database do something before each statement that stores numbers."""
    return _statement(
        f"CREATE OR REPLACE FUNCTION sens.torture() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body}; RETURN NULL; END $$;;"
        "CREATE OR REPLACE TRIGGER torture BEFORE INSERT ON sens.measurements FOR EACH STATEMENT EXECUTE FUNCTION sens.torture()",
        "DROP TRIGGER IF EXISTS torture ON sens.measurements",
    )


_SAID: Final = {Mode.REFUSE: "refused"}
_READ_ONLY: Final = "ALTER SYSTEM SET default_transaction_read_only = on;; SELECT pg_reload_conf()"
_WRITABLE: Final = "ALTER SYSTEM RESET default_transaction_read_only;; SELECT pg_reload_conf()"
_SLOW: Final = _trigger("PERFORM pg_sleep(0.4)")
_SAYS_FULL: Final = _trigger("RAISE EXCEPTION 'no space left on device' USING ERRCODE = 'disk_full'")
_LETTERS_REFUSED: Final = _statement(
    "ALTER TABLE sens.dead_letters ADD CONSTRAINT none CHECK (false) NOT VALID",
    "ALTER TABLE sens.dead_letters DROP CONSTRAINT none",
)


def faults(*, broker_restarts: bool, disks: bool, columnstore: bool = False) -> list[Fault]:
    """Return every fault that the path has to stand.

    A broker that keeps its sessions on disk is killed too. It acknowledges before it writes: see `Record` for what is demanded then.

    Args:
        broker_restarts: Whether the broker keeps everything when it is told to end.
        disks: Whether the servers have disks that can be filled; else a trigger says that the database's is full.
        columnstore: Whether the database is TimescaleDB with its columnstore.
    """
    ingestion, telemetry = (INGESTION, f"{INGESTION}-2"), (TELEMETRY, f"{TELEMETRY}-2")
    alone = [*ingestion, *telemetry, NATS, POSTGRES]
    together = [
        (INGESTION, TELEMETRY),
        (INGESTION, NATS),
        (INGESTION, POSTGRES),
        ingestion,
        telemetry,
        (TELEMETRY, NATS),
        (TELEMETRY, POSTGRES),
        (NATS, POSTGRES),
        (*ingestion, *telemetry),
    ]
    pausable = (BROKER, INGESTION, TELEMETRY, NATS, POSTGRES)
    edges = ("mqtt", "ingestion-nats", "telemetry-nats", "database")
    modes = [mode for mode in Mode if mode is not Mode.OPEN]
    silent = (Mode.SILENT, Mode.ONE_WAY)
    found = [Fault(f"kill {name}", "a process killed", _killed(name)) for name in alone]
    found += [Fault(f"kill {' and '.join(names)}", "several processes killed", _killed(*names)) for names in together]
    found += [Fault(f"pause {name}", "a process paused", _paused(name)) for name in pausable]
    found += [
        Fault(f"pause {name} beyond time-outs", "a process paused beyond time-outs", _paused(name), _LONG, 2)
        for name in pausable
    ]
    found += [
        Fault(f"{mode} {edge}", f"a connection {_SAID.get(mode, mode)}", _edge(edge, mode))
        for edge in edges
        for mode in modes
    ]
    found += [
        Fault(f"{mode} {edge} beyond time-outs", f"a connection {mode} beyond time-outs", _edge(edge, mode), _LONG, 2)
        for edge in edges
        for mode in silent
    ]
    found += [
        Fault("roll the workers", "the workers rolled one by one", _restarted()),
        Fault("database restarted", "the database restarted", _restarted(POSTGRES)),
        Fault("database session killed", "the database crashed", _session_killed),
        Fault("database sessions ended", "the database's sessions ended", _sessions_ended),
        Fault("database locked", "the database locked", _locked),
        Fault("database locked beyond time-outs", "the database locked beyond time-outs", _locked, _LONG, 2),
        Fault("database read-only", "the database read-only", _statement(_READ_ONLY, _WRITABLE)),
        Fault("database slow", "the database slow", _SLOW),
        Fault("database stuttering", "the database slow", _stuttering),
        Fault("database says its disk is full", "the database says its disk is full", _SAYS_FULL),
        Fault("database gone for minutes", "the database gone for minutes", _gone(POSTGRES), _MINUTES, 3),
        Fault("log restarted", "the log restarted", _restarted(NATS)),
        Fault("log full", "the log at its limit", _no_room_for(TELEMETRY_STREAM)),
        Fault("dead letters refused", "the database refuses the dead letters", _LETTERS_REFUSED, _LIMIT_SECONDS),
    ]
    if disks:
        found += [
            Fault("database's disk full", "the database's disk full", _disk_full(POSTGRES)),
            Fault("log's disk full", "the log's disk full", _disk_full(NATS)),
        ]
    if columnstore:
        found += [Fault("columnstore filled", "the columnstore takes what is written to", _columnstore)]
    if broker_restarts:
        killed = "the broker killed"
        found += [
            *(
                Fault(
                    f"kill {' and '.join((BROKER, *others))}, sessions {'' if saved else 'not '}saved",
                    f"{killed}, its sessions {'' if saved else 'not '}saved",
                    _broker_killed(*others, saved=saved),
                    kills_broker=True,
                )
                for others in ((), (INGESTION,), (NATS,))
                for saved in (True, False)
            ),
            Fault(
                "kill broker, backlog saved",
                f"{killed} after a backlog that it had saved",
                _broker_killed_after_backlog,
                kills_broker=True,
            ),
            Fault("broker restarted", "the broker restarted", _restarted(BROKER)),
            Fault("everything restarted", "everything restarted", _all_restarted),
        ]
    return found


def chosen(
    every_fault: list[Fault],
    count: int,
    generator: random.Random,
    *,
    short: tuple[float, float] = SHORT,
    longest: float | None = None,
) -> list[Planned]:
    """Return this many faults in random order, each kind before any comes twice; rare kinds take turns.

    Args:
        every_fault: Those to choose from.
        count: How many.
        generator: Decides everything.
        short: How long a fault lasts that need not last for a certain time, from and to, seconds.
        longest: Leave out those that have to last longer, seconds.
    """
    possible = [fault for fault in every_fault if longest is None or (fault.seconds or short)[0] <= longest]
    order: list[Planned] = []
    turn = 0
    while len(order) < count:
        these = [fault for place, fault in enumerate(possible) if (place + turn) % fault.every == 0]
        generator.shuffle(these)
        for fault in these:
            seconds = generator.uniform(*(fault.seconds or short))
            pause, settled = generator.uniform(0, 0.5), generator.random() < _SETTLED_SHARE
            order.append(Planned(fault, seconds if longest is None else min(seconds, longest), pause, settled))
        turn += 1
    return order[:count]
