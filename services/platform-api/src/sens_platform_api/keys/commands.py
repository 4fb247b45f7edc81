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
    ingest: Annotated[
        bool, typer.Option("--ingest", help="An ingest key: messages are posted with it, and nothing else is done.")
    ] = False,
    source: Annotated[
        str | None, typer.Option(help="Of an ingest key: the source that it is for.", show_default="the native topics")
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="Of an ingest key: the one device that it is for.", show_default="any")
    ] = None,
    expires: Annotated[
        str | None, typer.Option(help="When it expires: a time, or a number of days such as 90d.", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """Create a key and print it. It is shown only this once: the database stores its hash.

    \b
    sens keys create --tenant demo --name grafana --read-only
    sens keys create --tenant demo --name visitor --read-only --expires 30d
    sens keys create --tenant demo --name gateway --ingest --source push
    export SENS_API_KEY=$(sens keys create --tenant demo)
    """
    from sens_platform_api.administration import in_transaction
    from sens_platform_api.ingest_keys.service import Wanted
    from sens_platform_api.keys import administration

    expires_at = None if expires is None else expiry(expires)
    if not ingest and (source is not None or device is not None):
        raise typer.BadParameter("--source and --device are for keys with --ingest")
    if ingest and read_only:
        raise typer.BadParameter("a key is either --ingest or --read-only")
    if ingest:
        wanted = Wanted(name, source, device, expires_at)
        made, key = in_transaction(
            data_dir, lambda connection: administration.create_for_ingestion(connection, tenant=tenant, wanted=wanted)
        )
        _print_new(made._asdict(), key, as_json=as_json)
        return
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
    _print_new(stored._asdict(), key, as_json=as_json)


def _print_new(row: dict[str, object], key: str, *, as_json: bool) -> None:
    from sens_common.command_line.output import print_json

    if as_json:
        print_json(row | {"key": key})
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
    from sens_platform_api.ingest_keys import repository as ingest_keys
    from sens_platform_api.ingest_keys.repository import IngestKey
    from sens_platform_api.keys import repository
    from sens_platform_api.keys.repository import Key
    from sens_platform_api.postgresql import Connection
    from sens_platform_api.tenants.repository import find

    async def keys(connection: Connection) -> list[Key | IngestKey]:
        tenant_id = None if tenant is None else (await find(connection, tenant)).id
        found: list[Key | IngestKey] = [
            *await repository.list_all(connection, tenant_id),
            *await ingest_keys.list_all(connection, tenant_id),
        ]
        return sorted(found, key=lambda key: (key.tenant, key.id))

    found, now = in_transaction(data_dir, keys), datetime.now(UTC)
    if as_json:
        kinds = [{"access": "ingest"} if isinstance(key, IngestKey) else {} for key in found]
        print_json([key._asdict() | {"state": key.state(now)} | kind for key, kind in zip(found, kinds, strict=True)])
        return
    rows = [
        (
            key.id,
            key.tenant,
            f"{key.prefix}…",
            key.name,
            key.scope if isinstance(key, IngestKey) else key.access.replace("_", "-"),
            key.state(now),
            ""
            if isinstance(key, IngestKey)
            else short_time(key.last_used_at, utc=utc)
            if key.last_used_at
            else "never",
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
