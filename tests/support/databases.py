"""Databases of a real server. Those that begin with the same content are copies of one, which is made once a session."""

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing, contextmanager

import pytest
from pydantic import SecretStr

from sens_common import privileges
from sens_common.logins import API_ROLE, READER_ROLE, WORKER_ROLE
from sens_common.migrations import migrate
from sens_common.settings import DatabaseSettings
from support.servers import connect_as, owner

type Fill = Callable[[DatabaseSettings], Awaitable[object]]
"""Gives an empty database the content that others begin with."""


async def nothing(_database: DatabaseSettings) -> None:
    """Leave a database empty."""


class Databases:
    """Databases of one owner, who may create roles but is no superuser; each belongs to who asked for it, and nobody else."""

    def __init__(self, superuser: DatabaseSettings) -> None:
        """Prepare; `open_databases` makes the owner.

        Args:
            superuser: Of the server.
        """
        self._superuser = superuser
        self._owner = superuser.model_copy(
            update={"user": _new_name(), "password": SecretStr(secrets.token_urlsafe(16))}
        )
        self._templates: dict[Fill, str] = {}
        # One connection for all: a hundredth of a second of each of a thousand databases is spent on logging in.
        self._runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
        self._connection = self._runner.run(connect_as(superuser))

    @contextmanager
    def new(self, fill: Fill = nothing) -> Iterator[DatabaseSettings]:
        """Give a database with a content, as its owner, while the context is open."""
        if fill not in self._templates:
            self._templates[fill] = self._make_template(fill)
        name = _new_name()
        # The server copies the files; page by page, it would write all of it into its log too.
        self._execute(
            f"CREATE DATABASE {name} OWNER {self._owner.user} TEMPLATE {self._templates[fill]} STRATEGY file_copy",
            _same_rights(self._templates[fill], name),
        )
        try:
            yield self._owner.model_copy(update={"name": name})
        finally:
            self._execute(f"DROP DATABASE {name} WITH (FORCE)", self._drop_logins(), *self._owner_as_made())

    def make_owner(self) -> None:
        """Make the role that owns the databases."""
        assert self._owner.password is not None
        self._execute(
            f"CREATE ROLE {self._owner.user} PASSWORD '{self._owner.password.get_secret_value()}'",
            *self._owner_as_made(),
            # These roles are one per server and outlive the databases: who owns a database must be able to grant them.
            *(
                f"DO $$ BEGIN CREATE ROLE {role} NOLOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$"
                for role in (API_ROLE, WORKER_ROLE, READER_ROLE)
            ),
            f"GRANT {API_ROLE}, {WORKER_ROLE}, {READER_ROLE} TO {self._owner.user} WITH ADMIN OPTION",
        )

    def drop(self) -> None:
        """Drop the templates and their owner."""
        self._execute(
            *(f"DROP DATABASE {name} WITH (FORCE)" for name in self._templates.values()),
            f"DROP OWNED BY {self._owner.user}",
            f"DROP ROLE {self._owner.user}",
        )

    def close(self) -> None:
        """Close the connection to the server."""
        try:
            self._runner.run(self._connection.close())
        finally:
            self._runner.close()

    def _make_template(self, fill: Fill) -> str:
        name = _new_name()
        self._execute(f"CREATE DATABASE {name} OWNER {self._owner.user}")
        # In the superuser's database, what `sens up` and the chart do.
        asyncio.run(_restrict(self._superuser.model_copy(update={"name": name})))
        asyncio.run(_filled(self._owner.model_copy(update={"name": name}), fill))
        asyncio.run(_restrict(self._owner.model_copy(update={"name": name})))
        return name

    def _drop_logins(self) -> str:
        """Return the statement that drops the tenants' logins that the owner has made: it is a member of each."""
        return f"""
            DO $$ DECLARE login name; BEGIN
                FOR login IN
                    SELECT DISTINCT r.rolname FROM pg_auth_members m JOIN pg_roles r ON r.oid = m.roleid
                    WHERE m.member = '{self._owner.user}'::regrole AND starts_with(r.rolname, 'sens_sql_')
                LOOP
                    EXECUTE format('DROP ROLE %I', login);
                END LOOP;
            END $$
        """  # noqa: S608 - our own name

    def _owner_as_made(self) -> list[str]:
        """Return statements that take back what a test has done to the owner."""
        return [
            f"ALTER ROLE {self._owner.user} LOGIN CREATEROLE NOSUPERUSER",
            f"ALTER ROLE {self._owner.user} RESET ALL",
        ]

    def _execute(self, *statements: str) -> None:
        async def execute() -> None:
            for statement in statements:
                await self._connection.execute(statement)

        self._runner.run(execute())


def _new_name() -> str:
    return f"sens_test_{secrets.token_hex(6)}"


def _same_rights(template: str, name: str) -> str:
    """Return the statement that gives logins the rights on a database that they have on its template: a copy does not have them."""
    return f"""
        DO $$ DECLARE allowed record; BEGIN
            REVOKE ALL ON DATABASE {name} FROM public;
            FOR allowed IN
                SELECT CASE grantee WHEN 0 THEN 'public' ELSE grantee::regrole::text END AS login, privilege_type
                FROM pg_database, aclexplode(coalesce(datacl, acldefault('d', datdba))) WHERE datname = '{template}'
            LOOP
                EXECUTE format('GRANT %s ON DATABASE {name} TO %s', allowed.privilege_type, allowed.login);
            END LOOP;
        END $$
    """  # noqa: S608 - our own names


async def _filled(database: DatabaseSettings, fill: Fill) -> None:
    await fill(database)


async def _restrict(settings: DatabaseSettings) -> None:
    """Take rights away that are the database's own, and as a superuser also those of functions."""
    async with owner(settings) as connection:
        await privileges.restrict(connection)


@contextmanager
def open_databases(superuser: DatabaseSettings) -> Iterator[Databases]:
    """Make an owner on a server, and drop what is there of it at the end."""
    with closing(Databases(superuser)) as databases:
        databases.make_owner()
        try:
            yield databases
        finally:
            databases.drop()


@pytest.fixture(scope="session")
def databases(postgres: DatabaseSettings) -> Iterator[Databases]:
    """Databases on the server of the session."""
    with open_databases(postgres) as opened:
        yield opened


@pytest.fixture
def empty_database(databases: Databases) -> Iterator[DatabaseSettings]:
    """A database without a schema, and its owner, who may create roles but is no superuser."""
    with databases.new() as settings:
        yield settings


@pytest.fixture
def database(databases: Databases) -> Iterator[DatabaseSettings]:
    """A database with the current schema."""
    with databases.new(migrate) as settings:
        yield settings
