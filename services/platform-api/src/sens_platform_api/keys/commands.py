"""``sens keys``: make API keys, list them, revoke them."""

from datetime import UTC, datetime
from typing import Annotated, Final

import typer

from sens_common.command_line.options import DataDir, Json, Utc, tenant_name

app = typer.Typer(no_args_is_help=True, help="API keys.")

_MAX_NAME: Final = 100


def _key_name(text: str) -> str:
    if not 1 <= len(text) <= _MAX_NAME or not text.isprintable():
        raise typer.BadParameter(f"a key's name has 1 to {_MAX_NAME} printable characters")
    return text


@app.command("create")
def create_key(
    data_dir: DataDir,
    tenant: Annotated[
        str, typer.Option(help="The tenant whose data it reads.", show_default=False, callback=tenant_name)
    ],
    *,
    name: Annotated[str, typer.Option(help="What it is for.", callback=_key_name)] = "unnamed",
    read_only: Annotated[
        bool, typer.Option("--read-only", help="It may only read: neither replay nor delete, nor change limits.")
    ] = False,
    expires: Annotated[
        str | None, typer.Option(help="When it expires: a time, or a number of days such as 90d.", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """Create a key and print it. It is shown only this once: the database stores its hash.

    \b
    sens keys create --tenant demo --name grafana --read-only
    sens keys create --tenant demo --name visitor --read-only --expires 30d
    export SENS_API_KEY=$(sens keys create --tenant demo)
    """
    from sens_common.command_line.output import print_json
    from sens_platform_api.administration import in_transaction
    from sens_platform_api.keys import administration

    expires_at = None if expires is None else expiry(expires)
    stored, key = in_transaction(
        data_dir,
        lambda connection: administration.create(
            connection,
            tenant=tenant,
            name=name,
            access="read_only" if read_only else "read_write",
            expires_at=expires_at,
        ),
    )
    if as_json:
        print_json(stored._asdict() | {"key": key})
    else:
        typer.echo(key)


def expiry(text: str) -> datetime:
    """Return a time in the future: one as in the API, or a length of time from now on.

    Raises:
        BadParameter: It is none, or it is past.
    """
    from sens_common.times import LATEST, parse_time, parse_width

    now = datetime.now(UTC)
    try:
        time = now + parse_width(text)
    except (ValueError, OverflowError):
        try:
            time = parse_time(text, now)
        except ValueError:
            raise typer.BadParameter(
                "a time in the future is needed, for example 90d or 2027-06-30T00:00:00Z", param_hint="--expires"
            ) from None
    if not now < time <= LATEST:
        raise typer.BadParameter(
            "a time in the future is needed, for example 90d, and one before 2200", param_hint="--expires"
        )
    return time


@app.command("list")
def list_keys(
    data_dir: DataDir,
    tenant: Annotated[str | None, typer.Option(help="Only this tenant's.", callback=tenant_name)] = None,
    utc: Utc = False,
    as_json: Json = False,
) -> None:
    """List keys, without the keys themselves."""
    from sens_common.command_line.output import print_json, print_table, short_time
    from sens_platform_api.administration import in_transaction
    from sens_platform_api.keys import repository
    from sens_platform_api.keys.repository import Key
    from sens_platform_api.postgresql import Connection
    from sens_platform_api.tenants.repository import find

    async def keys(connection: Connection) -> list[Key]:
        tenant_id = None if tenant is None else (await find(connection, tenant)).id
        return await repository.list_all(connection, tenant_id)

    found, now = in_transaction(data_dir, keys), datetime.now(UTC)
    if as_json:
        print_json([key._asdict() | {"state": key.state(now)} for key in found])
        return
    rows = [
        (
            key.id,
            key.tenant,
            f"{key.prefix}…",
            key.name,
            key.access.replace("_", "-"),
            key.state(now),
            short_time(key.last_used_at, utc=utc) if key.last_used_at else "never",
            short_time(key.expires_at, utc=utc) if key.expires_at else "never",
        )
        for key in found
    ]
    print_table(("ID", "TENANT", "KEY", "NAME", "ACCESS", "STATE", "LAST USED", "EXPIRES"), rows, empty="no keys")


@app.command("revoke")
def revoke_key(
    data_dir: DataDir,
    key: Annotated[str, typer.Argument(help="Its number, its first 12 characters, or all of it.", show_default=False)],
    as_json: Json = False,
) -> None:
    """Revoke a key: it stops working within seconds.

    \b
    sens keys revoke 3
    """
    from sens_common.command_line.output import print_json
    from sens_platform_api.administration import in_transaction
    from sens_platform_api.keys import administration

    revoked = in_transaction(data_dir, lambda connection: administration.revoke(connection, key))
    if as_json:
        print_json(revoked._asdict())
    else:
        typer.echo(f"key {revoked.id} ({revoked.prefix}…) of tenant {revoked.tenant} is revoked")
