"""Settings of the instance that ``sens up`` runs on this machine: what its components get, and what commands find in its data folder."""

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from sens_common.command_line.instance import find_instance
from sens_common.errors import SensError
from sens_common.nats_permissions import ADMINISTRATOR, API_USER, HTTP_INGESTION_USER, INGESTION_USER, TELEMETRY_USER

HOST: Final = "127.0.0.1"
DATABASE_OWNER: Final = "sens_platform"
"""Name of the database and of the role that owns it."""

OWNER_SECRET: Final = "database-password"  # noqa: S105 - a file's name
API_LOGIN_SECRET: Final = "database-api-password"  # noqa: S105 - same
WORKER_LOGIN_SECRET: Final = "database-worker-password"  # noqa: S105 - same
NATS_SECRETS: Final = {
    ADMINISTRATOR: "nats-password",
    API_USER: "nats-api-password",
    INGESTION_USER: "nats-ingestion-password",
    HTTP_INGESTION_USER: "nats-http-ingestion-password",
    TELEMETRY_USER: "nats-telemetry-password",
}
"""The files with the passwords of NATS' users."""

_DATABASE_PREFIX: Final = "SENS_DATABASE__"
_SETTINGS_OF_INSTANCES: Final = (
    _DATABASE_PREFIX,
    "SENS_NATS__",
    "SENS_MQTT__",
    "SENS_OPERATIONS__",
    "SENS_HTTP__",
    "SENS_SITE__",
    "SENS_BROKER__",
    "SENS_FLEET__",
    "SENS_API_",
    "SENS_WORKER_LOGIN__",
    "PG",
)
"""Beginnings of variables that set where servers are and how to log in to them: an instance on this machine has its own."""

type Secret = Callable[[str], str]
"""Returns the secret in a file of the data folder, given its name."""


def without_settings_of_instances() -> dict[str, str]:
    """Return the environment without what is set for other instances."""
    return {name: value for name, value in os.environ.items() if not name.startswith(_SETTINGS_OF_INSTANCES)}


def owner_environment(secret: Secret, port: int) -> dict[str, str]:
    """Return the settings of the embedded database, as its owner, who makes the logins of the others."""
    return (
        database_address(port)
        | {"SENS_DATABASE__USER": DATABASE_OWNER, "SENS_DATABASE__PASSWORD": secret(OWNER_SECRET)}
        | api_login(secret)
        | worker_login(secret)
    )


def database_address(port: int) -> dict[str, str]:
    """Return where the embedded database is."""
    return {
        "SENS_DATABASE__HOST": HOST,
        "SENS_DATABASE__PORT": str(port),
        "SENS_DATABASE__NAME": DATABASE_OWNER,
        "SENS_DATABASE__SSL": "disable",
    }


def api_login(secret: Secret) -> dict[str, str]:
    """Return what the API logs in to the database with."""
    return {"SENS_API_LOGIN__PASSWORD": secret(API_LOGIN_SECRET)}


def worker_login(secret: Secret) -> dict[str, str]:
    """Return what the telemetry worker logs in to the database with."""
    return {"SENS_WORKER_LOGIN__PASSWORD": secret(WORKER_LOGIN_SECRET)}


def nats_environment(secret: Secret, port: int, user: str = API_USER) -> dict[str, str]:
    """Return the settings of the embedded NATS server; the administration works as the API does."""
    return {
        "SENS_NATS__URL": f"nats://{HOST}:{port}",
        "SENS_NATS__USER": user,
        "SENS_NATS__PASSWORD": secret(NATS_SECRETS[user]),
    }


def instance_environment(data_dir: Path) -> dict[str, str]:
    """Return the environment of programs that administer the instance in a data folder.

    Raises:
        UnavailableError: No instance runs from the data folder.
        SensError: Its secrets can't be read.
    """
    instance = find_instance(data_dir, f"or name the database with {_DATABASE_PREFIX}*")

    def secret(name: str) -> str:
        file = data_dir / "secrets" / name
        try:
            return file.read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not a text"
            raise SensError(f"the instance's secret {file} can't be read: {reason}") from error

    return (
        without_settings_of_instances()
        | owner_environment(secret, instance.ports["postgres"])
        | nats_environment(secret, instance.ports["nats"])
    )


@contextlib.contextmanager
def administration_environment(data_dir: Path) -> Iterator[None]:
    """Have the settings of the administration in the environment: those that are there, where they name a database, else the instance's.

    Raises:
        SensError: As `instance_environment`, where no database is named.
    """
    if any(name.startswith(_DATABASE_PREFIX) for name in os.environ):
        yield
        return
    before, settings = dict(os.environ), instance_environment(data_dir)
    try:
        _replace(settings)
        yield
    finally:
        _replace(before)


def _replace(environment: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(environment)
