"""Tries the move of measurements of an earlier version: ``scripts/try-move``.

It fills a database of the version before, moves what is in it while the moving process is killed at random moments and the API's functions
read, and compares count and checksum of each series before and after. It prints what it found as JSON; the exit code is 1 when a value is not
what it was.
"""

import argparse
import asyncio
import contextlib
import json
import os
import random
import secrets
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import asyncpg
from pydantic import SecretStr

from sens_cli.up.database import ensure_database
from sens_cli.up.postgres import SUPERUSER
from sens_common.command_line.local_settings import DATABASE_OWNER
from sens_common.database import connect
from sens_common.logins import API_ROLE
from sens_common.migrations import migrate
from sens_common.moving import MOVE_VERSION
from sens_common.settings import DatabaseSettings
from tools.ports import free_port
from tools.stack import programs
from tools.stack.server import HOST

type Connection = asyncpg.Connection[asyncpg.Record]

_METRICS: Final = 5
"""Of each device, the last one of texts; the number of a reading is the value of the first."""
_FIRST: Final = datetime(2025, 1, 1, tzinfo=UTC)
_HOURS_BETWEEN: Final = 4
_COLUMNSTORE_AFTER: Final = timedelta(days=30)
_LONG: Final = 3600.0

# By texts, and so by nothing that the move itself uses.
_CHECKSUMS: Final = """
    SELECT device_id, metric_id, count(*) AS count, sum(hashtextextended(ts::text || ' ' || value, 0)) AS checksum
    FROM ({values}) v GROUP BY device_id, metric_id
"""
_FORMER: Final = """
    SELECT device_id, metric_id, ts, value::text FROM sens.measurements
    UNION ALL SELECT device_id, metric_id, ts, value FROM sens.text_measurements
"""
_MOVED: Final = """
    SELECT r.device_id, e.id AS metric_id, r.ts, e.value::text FROM sens.readings r JOIN sens.metric_sets s ON s.id = r.metric_set_id
        CROSS JOIN LATERAL unnest(s.number_ids, r.numbers) e (id, value)
    UNION ALL
    SELECT r.device_id, e.id, r.ts, e.value FROM sens.readings r JOIN sens.metric_sets s ON s.id = r.metric_set_id
        CROSS JOIN LATERAL unnest(s.text_ids, r.texts) e (id, value)
"""

type Checksums = dict[tuple[int, int], tuple[int, int]]


@dataclass(kw_only=True)
class Findings:
    """What a trial found.

    Attributes:
        server: The server's version.
        timescaledb: The extension's version, None without it.
        cores: Of the machine.
        values: Rows of one value before the move.
        devices: Devices.
        partitions: Partitions or chunks that held them.
        kills: How often the moving process was killed.
        move_seconds: How long the runs took together, with their starts.
        values_per_second: Over all that.
        steps: Steps of which the time is known: those of a run until it is killed, and of the last one.
    step_seconds_median: How long a step took, with finding out what to move.
    step_seconds_p99: 99 of 100 took at most so long.
    longest_step_seconds: Of those whose end the database has noted.
    longest_steps: The five longest: seconds, seconds of finding out what to move, and values.
        disk_before: Bytes of the database before.
        disk_most: Bytes while it was moved, at most.
        disk_after: Bytes afterwards.
        readings: Rows afterwards.
        reads: Questions to the API's functions meanwhile.
        read_seconds_median: How long one took.
        read_seconds_longest: How long the slowest one took.
        wrong_answers: Answers that were not what they should be.
        different_series: Series whose count or checksum is another one afterwards.
    """

    server: str
    timescaledb: str | None
    cores: int
    values: int
    devices: int
    partitions: int = 0
    kills: int = 0
    move_seconds: float = 0.0
    values_per_second: float = 0.0
    steps: int = 0
    step_seconds_median: float = 0.0
    step_seconds_p99: float = 0.0
    longest_step_seconds: float = 0.0
    longest_steps: list[tuple[float, float, int]] = field(default_factory=list)
    disk_before: int = 0
    disk_most: int = 0
    disk_after: int = 0
    readings: int = 0
    reads: int = 0
    read_seconds_median: float = 0.0
    read_seconds_longest: float = 0.0
    wrong_answers: list[str] = field(default_factory=list)
    different_series: int = 0


async def fill(connection: Connection, devices: int, times: int) -> int:
    """Store measurements with a row for each value; return how many partitions or chunks hold them."""
    last = _FIRST + timedelta(hours=_HOURS_BETWEEN * times)
    await connection.execute(
        f"""
        INSERT INTO sens.tenants (name) VALUES ('trial');
        INSERT INTO sens.devices (tenant_id, name) SELECT t.id, 'd' || n FROM sens.tenants t, generate_series(1, {devices}) n;
        INSERT INTO sens.metrics (tenant_id, name, kind)
            SELECT t.id, 'm' || n, CASE WHEN n = {_METRICS} THEN 'text' ELSE 'number' END
            FROM sens.tenants t, generate_series(1, {_METRICS}) n;
        """  # noqa: S608 - numbers, and constants of this file
    )
    await connection.execute("SELECT sens.ensure_partitions($1, $2)", _FIRST, last)
    values = f"""
        FROM sens.devices d, sens.metrics m, generate_series(0, {times - 1}) n
        WHERE (m.kind = 'text') = {{texts}} ORDER BY d.id, m.id, n
    """
    at = f"timestamptz '{_FIRST.isoformat()}' + n * interval '{_HOURS_BETWEEN} hours'"
    for table, value, texts in (
        ("measurements", "n + (m.id - 1) / 8.0", False),
        ("text_measurements", "'state ' || n % 7", True),
    ):
        await connection.execute(
            f"INSERT INTO sens.{table} SELECT d.id, m.id, {at}, {value} {values.format(texts=texts)}", timeout=_LONG
        )
    if await connection.fetchval("SELECT kind FROM sens.storage") != "timescaledb":
        return int(
            await connection.fetchval(
                "SELECT count(*) FROM pg_inherits WHERE inhparent IN ('sens.measurements'::regclass, 'sens.text_measurements'::regclass)"
            )
        )
    chunks = await connection.fetch(
        "SELECT format('%I.%I', chunk_schema, chunk_name) AS name, range_end FROM timescaledb_information.chunks"
        " WHERE hypertable_schema = 'sens' AND hypertable_name IN ('measurements', 'text_measurements')"
    )
    for chunk in chunks:
        if chunk["range_end"] < datetime.now(UTC) - _COLUMNSTORE_AFTER:
            await connection.execute(f"CALL convert_to_columnstore('{chunk['name']}')", timeout=_LONG)
    return len(chunks)


async def checksums(connection: Connection, values: str) -> Checksums:
    """Return count and checksum of each series."""
    rows = await connection.fetch(_CHECKSUMS.format(values=values), timeout=_LONG)
    return {(row[0], row[1]): (row[2], int(row[3])) for row in rows}


async def read_all_the_time(database: DatabaseSettings, findings: Findings, times: int, ended: asyncio.Event) -> None:
    """Ask as the API does, and compare with what was stored, until the end."""
    random_ = random.Random(1)  # noqa: S311 - no secret
    seconds: list[float] = []
    connection = await connect(database, "trial", role=API_ROLE)
    try:
        await connection.execute("SELECT set_config('sens.tenant_id', '1', false)")
        while not ended.is_set():
            device, metric = random_.randint(1, findings.devices), random_.randint(1, _METRICS - 1)
            first = random_.randrange(times)
            past = min(times, first + random_.randint(1, 500))
            began = time.perf_counter()
            rows = await connection.fetch(
                "SELECT ts, value FROM sens.number_page($1, $2, $3, $4, false, 1000)",
                device,
                metric,
                *(_FIRST + timedelta(hours=_HOURS_BETWEEN * number) for number in (first, past)),
            )
            latest = await connection.fetch(
                "SELECT metric_id, ts, number FROM sens.latest_values($1) ORDER BY metric_id", device
            )
            seconds.append(time.perf_counter() - began)
            if [row["value"] for row in rows] != [number + (metric - 1) / 8 for number in range(first, past)]:
                findings.wrong_answers.append(f"device {device}, metric {metric}, {first} to {past}: {len(rows)} rows")
            if [row["number"] for row in latest][:-1] != [times - 1 + number / 8 for number in range(_METRICS - 1)]:
                findings.wrong_answers.append(f"device {device}: latest {[tuple(row) for row in latest]}")
            findings.disk_most = max(findings.disk_most, await _size(connection))
            await asyncio.sleep(0.05)
    finally:
        await connection.close()
    findings.reads = len(seconds)
    findings.read_seconds_median = round(statistics.median(seconds), 4)
    findings.read_seconds_longest = round(max(seconds), 4)


async def _size(connection: Connection) -> int:
    return int(await connection.fetchval("SELECT pg_database_size(current_database())"))


async def move_and_kill(database: DatabaseSettings, findings: Findings, kills: int, kill_seconds: float) -> None:
    """Run the move as a process; kill it so many times, each after a random time."""
    password = database.password.get_secret_value() if database.password is not None else ""
    environment = (
        os.environ
        | {
            f"SENS_DATABASE__{name}": str(value)
            for name, value in (
                ("HOST", database.host),
                ("PORT", database.port),
                ("NAME", database.name),
                ("USER", database.user),
                ("PASSWORD", password),
                ("SSL", "disable"),
            )
        }
        | {"SENS_LOG__LEVEL": "debug"}
    )
    steps: list[tuple[float, float, int]] = []
    began = time.perf_counter()
    while True:
        child = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "sens_common.moving",
            env=environment,
            stderr=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        answer = asyncio.create_task(child.communicate())
        if findings.kills < kills:
            await asyncio.wait({answer}, timeout=random.uniform(0.3, kill_seconds))  # noqa: S311 - no secret
            if not answer.done():
                child.kill()
                findings.kills += 1
        output = b"".join(await answer)
        steps += _steps(output)
        if child.returncode == 0:
            break
        if child.returncode != -9:  # noqa: PLR2004 - SIGKILL
            raise SystemExit(output.decode())
    steps.sort(reverse=True)
    findings.steps = len(steps)
    findings.longest_steps = steps[:5]
    if steps:
        findings.step_seconds_median = statistics.median(step[0] for step in steps)
        findings.step_seconds_p99 = steps[len(steps) // 100][0]
    findings.move_seconds = round(time.perf_counter() - began, 1)
    findings.values_per_second = round(findings.values / findings.move_seconds)


def _steps(output: bytes) -> list[tuple[float, float, int]]:
    """Return the steps that a log tells of: seconds, seconds of finding out what to move, values."""
    found = []
    for line in output.splitlines():
        if b'"a step of the move"' not in line:
            continue
        with contextlib.suppress(ValueError):  # the last line of a process that was killed
            entry = json.loads(line)
            found.append((entry["seconds"], entry["choosing"], entry["values"]))
    return found


async def trial(database: DatabaseSettings, options: argparse.Namespace) -> Findings:
    """Do it all in an empty database."""
    times = options.values // options.devices // _METRICS
    await migrate(database, before=MOVE_VERSION)
    connection = await connect(database, "trial")
    try:
        findings = Findings(
            server=await connection.fetchval("SHOW server_version"),
            timescaledb=await connection.fetchval("SELECT extversion FROM pg_extension WHERE extname = 'timescaledb'"),
            cores=os.cpu_count() or 1,
            values=times * options.devices * _METRICS,
            devices=options.devices,
        )
        findings.partitions = await fill(connection, options.devices, times)
        before = await checksums(connection, _FORMER)
        findings.disk_before = await _size(connection)
        await migrate(database)
        ended = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(read_all_the_time(database, findings, times, ended), name="read")
            await move_and_kill(database, findings, options.kills, options.kill_seconds)
            await asyncio.sleep(1)
            ended.set()
        longest = await connection.fetchval("SELECT longest_step_seconds FROM sens.move_progress")
        findings.longest_step_seconds = round(longest, 3)
        findings.disk_after = await _size(connection)
        findings.readings = await connection.fetchval("SELECT count(*) FROM sens.readings", timeout=_LONG)
        after = await checksums(connection, _MOVED)
        findings.different_series = sum(before.get(key) != after.get(key) for key in before.keys() | after.keys())
        return findings
    finally:
        await connection.close()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a trial on a server of its own; return the exit code."""
    parser = argparse.ArgumentParser(prog="scripts/try-move", description=__doc__)
    parser.add_argument("--values", type=int, default=10_000_000, help="rows of one value; %(default)s by default")
    parser.add_argument("--devices", type=int, default=1_000, help="that they are of; %(default)s by default")
    parser.add_argument(
        "--kills", type=int, default=20, help="times that the process is killed; %(default)s by default"
    )
    parser.add_argument(
        "--kill-seconds", type=float, default=8.0, help="it lives at most so long until then; %(default)s by default"
    )
    parser.add_argument(
        "--postgres-programs",
        type=Path,
        help="folder of another PostgreSQL's programs, with TimescaleDB if it has that",
    )
    options = parser.parse_args(arguments)
    folder = Path(tempfile.mkdtemp(prefix="sens-move-"))
    folder.chmod(0o755)
    passwords = [secrets.token_urlsafe(16) for _ in range(2)]
    superuser = DatabaseSettings(
        host=HOST, port=free_port(), name="postgres", user=SUPERUSER, password=SecretStr(passwords[0]), ssl="disable"
    )
    settings = {"max_wal_size": "4GB", "shared_buffers": "512MB", "timescaledb.max_background_workers": "0"}
    try:
        with programs.postgres(
            folder, superuser, settings=settings, programs=options.postgres_programs
        ).running_until_left():
            asyncio.run(ensure_database(HOST, superuser.port, *passwords))
            database = superuser.model_copy(
                update={"name": DATABASE_OWNER, "user": DATABASE_OWNER, "password": SecretStr(passwords[1])}
            )
            findings = asyncio.run(trial(database, options))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps(asdict(findings), indent=2))
    return 1 if findings.wrong_answers or findings.different_series else 0


if __name__ == "__main__":
    sys.exit(main())
