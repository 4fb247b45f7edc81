"""The steps of the start: schema, measurements of an earlier version, first tenant and its key."""

import asyncio
import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Final

import sens_common.moving.run
from sens_cli.up.account import Children
from sens_cli.up.components import KEY_SECRET, TENANT, module
from sens_cli.up.data import DataFolder
from sens_cli.up.ports import Ports
from sens_cli.up.process import end_with_parent, last_line
from sens_cli.up.web import get
from sens_common.command_line.local_settings import DATABASE_OWNER, HOST
from sens_common.errors import SensError
from sens_common.settings import DatabaseSettings

_KEY_NAME: Final = "made by sens up"
_STEP_SECONDS: Final = 120
_SENS: Final = "sens_cli"


class Programs:
    """Runs programs that end by themselves, one log file for each purpose."""

    def __init__(self, data: DataFolder, environment: dict[str, str], children: Children) -> None:
        self._data = data
        self._environment = children.environment(environment)
        self._children = children

    async def run(self, purpose: str, name: str, *arguments: str) -> str:
        """Run a module; return what it printed.

        Raises:
            SensError: It failed: says what it said last.
        """
        log = self._data.log_file(purpose)
        with log.open("ab") as output:
            child = await asyncio.create_subprocess_exec(
                *self._children.command([*module(name), *arguments]),
                env=self._environment,
                cwd=Path("/"),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=output,
                start_new_session=True,
                preexec_fn=end_with_parent(),
            )
        try:
            async with asyncio.timeout(_STEP_SECONDS):
                printed, _nothing = await child.communicate()
        except TimeoutError:
            raise SensError(f"{purpose} is not done after {_STEP_SECONDS} s; its log: {log}") from None
        finally:
            if child.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    child.kill()
                await child.wait()
        if child.returncode != 0:
            raise SensError(f"{purpose} failed: {last_line(log) or f'code {child.returncode}'}\nIts log: {log}")
        return printed.decode("utf-8", errors="replace")


async def migrations(programs: Programs) -> str:
    """Bring the schema up to date."""
    await programs.run("migrations", "sens_common.migrations")
    return ""


async def move(port: int, password: str, tell: Callable[[str], None]) -> str:
    """Move measurements of an earlier version; tell how far that is every few seconds."""
    owner = {"name": DATABASE_OWNER, "user": DATABASE_OWNER, "password": password}
    settings = DatabaseSettings.model_validate({"host": HOST, "port": port, "ssl": "disable", **owner})
    moved = 0
    async with contextlib.aclosing(sens_common.moving.run.move(settings)) as lines:
        async for progress in lines:
            tell(str(progress))
            moved = progress.moved_values
    return f"{moved:,} values moved" if moved else ""


async def first_tenant(programs: Programs, data: DataFolder) -> str:
    """Make the tenant at the first start."""
    if data.read_secret(KEY_SECRET) is not None:
        return ""
    await programs.run("first-tenant", _SENS, "tenants", "create", TENANT, "--if-missing")
    return f"{TENANT}"


async def first_key(programs: Programs, data: DataFolder, table: Ports) -> str:
    """Make the tenant's key where it is missing, and a new one where it was revoked.

    With a key at hand this asks the API, so it runs when that is ready; without one it needs the tenant alone.
    """
    key = data.read_secret(KEY_SECRET)
    if key is not None:
        if await _is_valid(table.api, key):
            return ""
        await programs.run("first-tenant", _SENS, "tenants", "create", TENANT, "--if-missing")
    printed = await programs.run(
        "first-key", _SENS, "keys", "create", "--tenant", TENANT, "--name", _KEY_NAME, "--json"
    )
    try:
        made = str(json.loads(printed)["key"])
    except (ValueError, KeyError, TypeError):
        raise SensError("the administration command answered without a key") from None
    data.write_secret(KEY_SECRET, made)
    return "made" if key is None else f"the old one is not valid any more: a new one for tenant {TENANT}"


async def _is_valid(port: int, key: str) -> bool:
    """Tell whether the API takes the key; any answer but "unauthorized" says nothing against it."""
    try:
        status, _body = await get(port, "/api/v1/devices?limit=1", key=key)
    except OSError:
        return True
    return status not in {401, 403}
