"""TimescaleDB's extension: a newer image of the server brings a newer one, and the database goes on with the old one until it is updated."""

from typing import Final, NamedTuple

import asyncpg
import structlog

from sens_common.database import connect
from sens_common.errors import SchemaError, words_of
from sens_common.settings import DatabaseSettings

log = structlog.get_logger()

_TIMEOUT_SECONDS: Final = 600
_VERSIONS: Final = """
    SELECT installed.extversion AS installed, available.default_version AS available
    FROM pg_extension installed JOIN pg_available_extensions available ON available.name = installed.extname
    WHERE installed.extname = 'timescaledb'
"""


class Versions(NamedTuple):
    """Of the extension.

    Attributes:
        installed: In the database, None where its library is missing, so that nothing but an update is possible.
        available: On the server.
    """

    installed: str | None
    available: str | None

    @property
    def is_outdated(self) -> bool:
        """Whether the server has a newer version than the database."""
        return self.installed is None or (
            self.available is not None and _number(self.installed) < _number(self.available)
        )


def _number(version: str) -> list[int]:
    """Return the numbers of a version.

    >>> _number("2.9.3") < _number("2.22.1-dev")
    True
    """
    return [int(part) for part in version.partition("-")[0].split(".") if part.isdigit()]


async def timescaledb_versions(settings: DatabaseSettings) -> Versions | None:
    """Return the extension's versions, None where the database does not have it; raises as `connect`."""
    connection = await connect(settings, "sens-migrate")
    try:
        row = await connection.fetchrow(_VERSIONS)
    except asyncpg.UndefinedFileError:
        return Versions(None, None)
    finally:
        await connection.close()
    return None if row is None else Versions(row["installed"], row["available"])


async def update_timescaledb(settings: DatabaseSettings) -> None:
    """Update the extension where the server has a newer version; where the role may not, a log line says who may.

    Raises:
        UnavailableError: The server can't be reached or refuses us.
        SchemaError: The server has no library of the version that is installed, and the update fails.
    """
    versions = await timescaledb_versions(settings)
    if versions is None or not versions.is_outdated:
        return
    # A session loads the library of the version that is installed with its first statement; in that one the update must be the first.
    connection = await connect(settings, "sens-migrate")
    try:
        await connection.execute("ALTER EXTENSION timescaledb UPDATE", timeout=_TIMEOUT_SECONDS)
    except asyncpg.PostgresError as error:
        if versions.installed is None:
            raise SchemaError(
                f"the server has no library of the database's version of TimescaleDB, and the update fails: {words_of(error)}"
            ) from error
        log.warning(
            "the extension timescaledb is not updated; the version that is installed goes on",
            error=str(error),
            remedy="as the extension's owner or a superuser, as the first statement of a session: ALTER EXTENSION timescaledb UPDATE;",
        )
    else:
        log.info("the extension timescaledb is updated", before=versions.installed, now=versions.available)
    finally:
        await connection.close()
