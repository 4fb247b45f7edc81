"""Connections to PostgreSQL."""

import ssl
from typing import Any

import asyncpg
from asyncpg.pool import PoolConnectionProxy

from sens_common.database_errors import DRIVER_ERRORS
from sens_common.errors import UnavailableError, words_of
from sens_common.settings import DatabaseSettings

type Connection = asyncpg.Connection[asyncpg.Record] | PoolConnectionProxy[asyncpg.Record]
"""A connection of one's own, or one that a pool lends."""

CONNECT_TIMEOUT_SECONDS = 5


class _PooledConnection(asyncpg.Connection):
    """A connection that a pool can take back from a role that may take no advisory locks."""

    def get_reset_query(self) -> str:
        """Return what a pool does when a connection comes back: the driver's own text without its call of an advisory function."""
        return "CLOSE ALL; UNLISTEN *; RESET ALL"


def connect_arguments(settings: DatabaseSettings, application: str, *, role: str | None = None) -> dict[str, Any]:
    """Return the keyword arguments for `asyncpg.connect` and `asyncpg.create_pool`.

    Args:
        settings: Where and as whom to log in.
        application: Shown in ``pg_stat_activity``.
        role: Role to become for the whole connection (``SET ROLE``), None to stay who logged in.
    """
    server_settings = {"application_name": application, "timezone": "UTC"}
    if role is not None:
        server_settings["role"] = role
    tls: ssl.SSLContext | str = settings.ssl
    if settings.ca_file is not None and settings.ssl.startswith("verify"):
        tls = ssl.create_default_context(cafile=settings.ca_file)
        tls.check_hostname = settings.ssl == "verify-full"
    if settings.host.startswith("/"):
        tls = "disable"
    return {
        "host": settings.host,
        "port": settings.port,
        "database": settings.name,
        "user": settings.user,
        "password": settings.password.get_secret_value() if settings.password is not None else None,
        "ssl": tls,
        "timeout": CONNECT_TIMEOUT_SECONDS,
        "command_timeout": settings.command_timeout_seconds,
        "server_settings": server_settings,
        "connection_class": _PooledConnection,
    }


async def connect(
    settings: DatabaseSettings, application: str, *, role: str | None = None
) -> "asyncpg.Connection[asyncpg.Record]":
    """Open one connection.

    Raises:
        UnavailableError: The server can't be reached or refuses us.
    """
    try:
        return await asyncpg.connect(**connect_arguments(settings, application, role=role))
    except DRIVER_ERRORS as error:
        raise unavailable(settings, error) from error


def unavailable(settings: DatabaseSettings, error: BaseException) -> UnavailableError:
    """Return the error to raise when the server can't be used; its text carries no password."""
    return UnavailableError(
        f"PostgreSQL at {settings.host} port {settings.port}, database {settings.name}, role {settings.user}:"
        f" {words_of(error)}; check SENS_DATABASE__*"
    )
