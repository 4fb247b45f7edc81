"""The roles that the API and the telemetry worker log in as: made by the migrations, members of the roles that hold the rights.

A login has no right of its own. It is used where its password is known; without it, the service logs in as the schema's owner, as
`sens_common.privileges` then says.
"""

import base64
import hashlib
import hmac
import secrets
from typing import Final, NamedTuple

import asyncpg
from pydantic import Field, SecretStr

from sens_common.database import Connection, connect
from sens_common.errors import SchemaError, SettingsError, UnavailableError
from sens_common.settings import DatabaseSettings, Group

API_ROLE: Final = "sens_api"
"""The role that holds the API's rights."""
WORKER_ROLE: Final = "sens_worker"
"""The role that holds the telemetry worker's rights."""
READER_ROLE: Final = "sens_reader"
"""The role that holds the rights of tenants' logins: to ask in SQL."""
API_LOGIN: Final = "sens_platform_api"
"""The role that the API logs in as, unless another one is set."""
WORKER_LOGIN: Final = "sens_platform_worker"
"""The role that the telemetry worker logs in as, unless another one is set."""

_ITERATIONS: Final = 4096  # PostgreSQL's own number
_SALT_BYTES: Final = 16


class ApiLoginSettings(Group):
    """The API's own login. With its password the API logs in as this role, else as SENS_DATABASE__USER."""

    user: str = Field(API_LOGIN, min_length=1, max_length=63, description="Role to log in as; a member of sens_api.")
    password: SecretStr | None = Field(None, description="Password of the role; the migrations give it to the role.")


class WorkerLoginSettings(Group):
    """The telemetry worker's own login. With its password the worker logs in as this role, else as SENS_DATABASE__USER."""

    user: str = Field(
        WORKER_LOGIN, min_length=1, max_length=63, description="Role to log in as; a member of sens_worker."
    )
    password: SecretStr | None = Field(None, description="Password of the role; the migrations give it to the role.")


class Login(NamedTuple):
    """A role to log in as, and the role whose rights it has."""

    user: str
    password: SecretStr
    rights: str


def login(settings: ApiLoginSettings | WorkerLoginSettings) -> Login | None:
    """Return the login of these settings, None without a password."""
    rights = API_ROLE if isinstance(settings, ApiLoginSettings) else WORKER_ROLE
    return None if settings.password is None else Login(settings.user, settings.password, rights)


def logged_in(database: DatabaseSettings, settings: ApiLoginSettings | WorkerLoginSettings) -> DatabaseSettings:
    """Return the settings of the database with the service's own login, where it has one."""
    if settings.password is None:
        return database
    return database.model_copy(update={"user": settings.user, "password": settings.password})


async def make_login(connection: Connection, wanted: Login, database: DatabaseSettings) -> None:
    """Make the role where it is missing, give it its password, and make it a member of the role that holds the rights.

    Args:
        connection: Of a role that may create roles, or else of one that finds the login made by an administrator.
        wanted: The login.
        database: Where to log in.

    Raises:
        SchemaError: The connection's role may not, and the login does not work either; names the commands for an administrator.
        SettingsError: The password has other characters than printable ASCII.
    """
    user, rights = _identifier(wanted.user), wanted.rights
    verifier = scram_verifier(wanted.password.get_secret_value(), secrets.token_bytes(_SALT_BYTES))
    try:
        async with connection.transaction():
            exists = await connection.fetchval("SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)", wanted.user)
            # The server gets what it would store, so that no password appears in its log.
            await connection.execute(f"{'ALTER' if exists else 'CREATE'} ROLE {user} LOGIN PASSWORD '{verifier}'")
            if not await connection.fetchval("SELECT pg_has_role($1::text, $2::text, 'MEMBER')", wanted.user, rights):
                await connection.execute(f"GRANT {rights} TO {user}")
    except asyncpg.InsufficientPrivilegeError as error:
        if await _works(wanted, database):
            return  # an administrator has made it
        owner = await connection.fetchval("SELECT current_user")
        raise SchemaError(
            f"{owner} may not make the login {wanted.user} or set its password ({error}); as an administrator, make it with"
            f" the password of the settings and run: GRANT {rights} TO {user};"
        ) from error


async def _works(wanted: Login, database: DatabaseSettings) -> bool:
    settings = database.model_copy(update={"user": wanted.user, "password": wanted.password})
    try:
        connection = await connect(settings, "sens-migrate", role=wanted.rights)
    except UnavailableError:
        return False
    await connection.close()
    return True


def _identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def scram_verifier(password: str, salt: bytes) -> str:
    """Return what PostgreSQL stores of a password (RFC 5802, section 3; PostgreSQL documentation, ``pg_authid``).

    Raises:
        SettingsError: The password has other characters than printable ASCII, which clients would normalise (RFC 4013).
    """
    if not password.isascii() or not password.isprintable():
        raise SettingsError("the password of a login may have printable ASCII characters only; choose another one")
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, _ITERATIONS)
    stored_key = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server_key = hmac.digest(salted, b"Server Key", "sha256")
    parts = [base64.b64encode(part).decode() for part in (salt, stored_key, server_key)]
    return f"SCRAM-SHA-256${_ITERATIONS}:{parts[0]}${parts[1]}:{parts[2]}"
