"""``sens up`` with another PostgreSQL's programs, which have TimescaleDB."""

import asyncio
import os
from pathlib import Path

import pytest
from pydantic import SecretStr

from sens_cli.up.postgres_programs import have_timescaledb
from sens_common.database import connect
from sens_common.settings import DatabaseSettings
from support.platform import Platform, running_platform
from support.servers import HOST, scratch_folder, wait_until
from tools.program import ProgramError

PROGRAMS = Path(os.environ.get("SENS_TEST_POSTGRES_BIN") or "/nonexistent")

pytestmark = [
    pytest.mark.timescaledb,
    pytest.mark.skipif(
        not have_timescaledb(PROGRAMS),
        reason="SENS_TEST_POSTGRES_BIN does not name the programs of an installation with TimescaleDB",
    ),
]


def storage_of(running: Platform) -> str:
    """Return what the migrations have chosen."""

    async def ask() -> str:
        owner = DatabaseSettings(
            host=HOST,
            port=running.ports.postgres,
            name="sens_platform",
            user="sens_platform",
            password=SecretStr((running.data_dir / "secrets" / "database-password").read_text().strip()),
            ssl="disable",
        )
        connection = await connect(owner, "test")
        try:
            return str(await connection.fetchval("SELECT kind FROM sens.storage"))
        finally:
            await connection.close()

    return asyncio.run(ask())


def test_stores_in_timescaledb_and_is_started_again_only_with_it() -> None:
    options = ("--no-simulator", "--postgres-programs", str(PROGRAMS))
    with scratch_folder("sens-up-") as folder:
        data = folder / "data"
        with running_platform(data, *options) as running:
            assert storage_of(running) == "timescaledb"
            published = running.sens("publish", "d1", "--metric", "t=1.5")
            assert published.returncode == 0, published.stderr
            wait_until(lambda: "1.5" in running.sens("latest", "d1").stdout, "the message is stored")
        with pytest.raises(ProgramError, match=f"start with --postgres-programs {PROGRAMS}"), running_platform(data):
            pass
        with running_platform(data, *options) as running:
            assert "1.5" in running.sens("latest", "d1").stdout
