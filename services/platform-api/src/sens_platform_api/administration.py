"""What commands of the administration have in common: they log in to the database as its owner, past the API.

A command's module is imported for its help, so what its work needs is imported when it is called.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from sens_common.command_line.local_settings import administration_environment
from sens_common.database import connect
from sens_platform_api.postgresql import Connection, translated_errors
from sens_platform_api.settings import AdministrationSettings

SERVICE: Final = "sens-admin"


def administer[Result](data_dir: Path, work: Callable[[AdministrationSettings], Coroutine[Any, Any, Result]]) -> Result:
    """Do work with the settings of the environment, or of the instance in the data folder; return its result.

    Raises:
        SensError: There are no settings, a server can't be reached, or the work was refused.
    """
    with administration_environment(data_dir):
        return asyncio.run(work(AdministrationSettings.load()))


def in_transaction[Result](data_dir: Path, work: Callable[[Connection], Awaitable[Result]]) -> Result:
    """Do work in one transaction of the database's owner; raises as `administer`."""

    async def connected(settings: AdministrationSettings) -> Result:
        async with owner_connection(settings) as connection, connection.transaction():
            return await work(connection)

    return administer(data_dir, connected)


@asynccontextmanager
async def owner_connection(settings: AdministrationSettings) -> AsyncIterator[Connection]:
    """Give a connection of the database's owner; errors of the driver become those that people understand."""
    connection = await connect(settings.database, SERVICE)
    try:
        with translated_errors():
            yield connection
    finally:
        await connection.close()
