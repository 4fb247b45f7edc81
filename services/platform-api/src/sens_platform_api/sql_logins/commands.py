"""``sens logins``: make logins with which people of a tenant ask the database in SQL, list them, change and delete them."""

from typing import TYPE_CHECKING, Annotated, Final

import typer

from sens_common.command_line.options import DataDir, Json, Utc, tenant_name

if TYPE_CHECKING:
    from sens_common.settings import DatabaseSettings
    from sens_platform_api.sql_logins.administration import NewLogin

app = typer.Typer(no_args_is_help=True, help="Logins of tenants for SQL: psql, Grafana.")

_MAX_NAME: Final = 100

LoginName = Annotated[str, typer.Argument(help="The login, as the list shows it.", show_default=False)]


def _login_name(text: str) -> str:
    if not 1 <= len(text) <= _MAX_NAME or not text.isprintable():
        raise typer.BadParameter(f"a login's name has 1 to {_MAX_NAME} printable characters")
    return text


@app.command("create")
def create_login(
    data_dir: DataDir,
    tenant: Annotated[
        str, typer.Option(help="The tenant whose data it reads.", show_default=False, callback=tenant_name)
    ],
    *,
    name: Annotated[str, typer.Option(help="What it is for.", callback=_login_name)] = "unnamed",
    connections: Annotated[int, typer.Option(help="Connections at the same time.", min=1, max=50)] = 5,
    seconds: Annotated[
        int, typer.Option(help="How long a statement may take; a transaction twice as long.", min=1, max=3600)
    ] = 30,
    as_json: Json = False,
) -> None:
    """Make a login and print how to connect. Its password is shown only this once.

    \b
    sens logins create --tenant demo --name grafana
    sens logins create --tenant demo --name reports --connections 2 --seconds 300
    """
    from sens_platform_api.administration import administer, owner_connection
    from sens_platform_api.settings import AdministrationSettings
    from sens_platform_api.sql_logins import administration

    async def work(settings: AdministrationSettings) -> "tuple[NewLogin, DatabaseSettings]":
        async with owner_connection(settings) as connection, connection.transaction():
            made = await administration.create(
                connection, tenant=tenant, name=name, connections=connections, statement_seconds=seconds
            )
        return made, settings.database

    _print(*administer(data_dir, work), as_json=as_json)


@app.command("rotate")
def rotate_login(data_dir: DataDir, login: LoginName, as_json: Json = False) -> None:
    """Give a login another password, and the settings of a new one; its sessions end.

    \b
    sens logins rotate sens_sql_k3v9x2m7qa
    """
    from sens_platform_api.administration import administer, owner_connection
    from sens_platform_api.settings import AdministrationSettings
    from sens_platform_api.sql_logins import administration

    async def work(settings: AdministrationSettings) -> "tuple[NewLogin, DatabaseSettings]":
        async with owner_connection(settings) as connection:
            return await administration.rotate(connection, login), settings.database

    _print(*administer(data_dir, work), as_json=as_json)


def _print(made: "NewLogin", database: "DatabaseSettings", *, as_json: bool) -> None:
    from sens_common.command_line.output import print_json, print_pairs

    url = f"postgresql://{made.login.login}:{made.password}@{_host(database.host)}:{database.port}/{database.name}"
    if as_json:
        print_json(
            made.login._asdict()
            | {
                "password": made.password,
                "host": database.host,
                "port": database.port,
                "database": database.name,
                "url": url,
                "shortcomings": made.shortcomings,
            }
        )
        return
    print_pairs(
        [
            ("login", made.login.login),
            ("password", made.password),
            ("host", database.host),
            ("port", database.port),
            ("database", database.name),
            ("try", f"psql '{url}' -c 'TABLE latest_by_name'"),
        ]
    )
    for what in made.shortcomings:
        typer.echo(f"sens: on this server the login can also {what}", err=True)
    if made.shortcomings:
        typer.echo("sens: a superuser can end that: documentation, Operations, Roles of the database", err=True)


def _host(host: str) -> str:
    return f"[{host}]" if ":" in host else host


@app.command("list")
def list_logins(
    data_dir: DataDir,
    tenant: Annotated[str | None, typer.Option(help="Only this tenant's.", callback=tenant_name)] = None,
    utc: Utc = False,
    as_json: Json = False,
) -> None:
    """List logins, without their passwords."""
    from sens_common.command_line.output import print_json, print_table, short_time
    from sens_platform_api.administration import in_transaction
    from sens_platform_api.postgresql import Connection
    from sens_platform_api.sql_logins import repository
    from sens_platform_api.sql_logins.repository import Login
    from sens_platform_api.tenants.repository import find

    async def logins(connection: Connection) -> list[Login]:
        tenant_id = None if tenant is None else (await find(connection, tenant)).id
        return await repository.list_all(connection, tenant_id)

    found = in_transaction(data_dir, logins)
    if as_json:
        print_json([login._asdict() for login in found])
        return
    rows = [
        (
            login.login,
            login.tenant,
            login.name,
            f"{login.sessions} of {login.connections}",
            f"{login.statement_seconds} s",
            short_time(login.created_at, utc=utc),
        )
        for login in found
    ]
    print_table(("LOGIN", "TENANT", "NAME", "CONNECTIONS", "STATEMENTS", "CREATED"), rows, empty="no logins")


@app.command("delete")
def delete_login(data_dir: DataDir, login: LoginName, as_json: Json = False) -> None:
    """Delete a login: its sessions end, and nobody can log in with it any more.

    \b
    sens logins delete sens_sql_k3v9x2m7qa
    """
    from sens_common.command_line.output import print_json
    from sens_platform_api.administration import administer, owner_connection
    from sens_platform_api.settings import AdministrationSettings
    from sens_platform_api.sql_logins import administration
    from sens_platform_api.sql_logins.repository import Login

    async def work(settings: AdministrationSettings) -> Login:
        async with owner_connection(settings) as connection:
            return await administration.delete(connection, login)

    deleted = administer(data_dir, work)
    if as_json:
        print_json(deleted._asdict())
    else:
        typer.echo(f"login {deleted.login} ({deleted.name}) of tenant {deleted.tenant} is deleted")
