"""Faults of the database, made by statements. Each is over when its function returns."""

import asyncio
import contextlib
import signal
import time
from typing import Final

import asyncpg

from sens_common.database import connect
from sens_common.errors import SensError
from tools.stack.path import Stack
from tools.stack.programs import POSTGRES
from tools.stack.stored import VALUE_TABLES
from tools.torture.process_faults import Happening

_ATTEMPT_SECONDS: Final = 0.15


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
            time.sleep(_ATTEMPT_SECONDS)


def _value_tables(stack: Stack) -> list[str]:
    return [row["name"] for row in _execute(stack, VALUE_TABLES)]


def locked(stack: Stack, seconds: float) -> None:
    """Keep everybody from the tables of values."""
    tables = ", ".join(_value_tables(stack))

    async def lock() -> None:
        connection = await connect(stack.database, "torture")
        try:
            async with connection.transaction():
                await connection.execute(f"LOCK TABLE {tables} IN ACCESS EXCLUSIVE MODE")
                await asyncio.sleep(seconds)
        finally:
            await connection.close()

    asyncio.run(lock())


def sessions_ended(stack: Stack, seconds: float) -> None:
    """End the workers' database sessions again and again."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        _execute(
            stack,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'telemetry%'"
            " AND pid <> pg_backend_pid()",
        )
        time.sleep(0.2)


def session_killed(stack: Stack, _seconds: float) -> None:
    """Kill the process of one of the workers' sessions, upon which PostgreSQL ends all and recovers, as after a crash."""
    rows = stack.fetch("SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'telemetry%' ORDER BY pid LIMIT 1")
    for row in rows:
        stack[POSTGRES].signal_child(row["pid"], signal.SIGKILL)
    stack.start(POSTGRES)


def columnstore(stack: Stack, _seconds: float) -> None:
    """Move every chunk to TimescaleDB's columnstore, also those that are written to just now."""
    for chunk in _execute(
        stack, "SELECT format('%I.%I', chunk_schema, chunk_name) FROM timescaledb_information.chunks"
    ):
        with contextlib.suppress(asyncpg.UndefinedTableError):  # retention has dropped it meanwhile
            _execute(stack, f"CALL convert_to_columnstore('{chunk[0]}')")


def _trigger(body: str) -> Happening:
    """Let the database do something before each statement that stores values."""
    function = f"CREATE OR REPLACE FUNCTION sens.torture() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body}; RETURN NULL; END $$"
    trigger = "CREATE OR REPLACE TRIGGER torture BEFORE INSERT ON {} FOR EACH STATEMENT EXECUTE FUNCTION sens.torture()"

    def happen(stack: Stack, seconds: float) -> None:
        tables = _value_tables(stack)
        _execute(stack, function)
        for table in tables:
            _execute(stack, trigger.format(table))
        time.sleep(seconds)
        for table in tables:
            _execute(stack, f"DROP TRIGGER IF EXISTS torture ON {table}")

    return happen


read_only = _statement(
    "ALTER SYSTEM SET default_transaction_read_only = on;; SELECT pg_reload_conf()",
    "ALTER SYSTEM RESET default_transaction_read_only;; SELECT pg_reload_conf()",
)
slow = _trigger("PERFORM pg_sleep(0.4)")
says_full = _trigger("RAISE EXCEPTION 'no space left on device' USING ERRCODE = 'disk_full'")
letters_refused = _statement(
    "ALTER TABLE sens.dead_letters ADD CONSTRAINT none CHECK (false) NOT VALID",
    "ALTER TABLE sens.dead_letters DROP CONSTRAINT none",
)
