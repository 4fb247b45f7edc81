"""The administration command: ``python -m sens_platform_api.admin``; tenants, keys, audit and dead letters, past HTTP.

It connects as the owning role (``SENS_DATABASE__*``) and to NATS (``SENS_NATS__*``). Exit codes: 0 done, 1 refused (exists
already, not found), 2 wrong usage, 69 a server can't be reached, 70 the schema is missing, 78 a setting is wrong. With ``--json``
the answer on standard output is one JSON document; texts for people about errors go to standard error.
"""

import argparse
import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Final

from sens_common import times
from sens_common.database import connect
from sens_common.errors import SensError
from sens_common.logs import configure_logs
from sens_common.names import TENANT_RULE, is_tenant_name
from sens_common.times import parse_width
from sens_platform_api.audit import repository as audit
from sens_platform_api.audit.repository import ADMINISTRATOR
from sens_platform_api.command import Answer, Command
from sens_platform_api.dead_letters import commands as dead_letters
from sens_platform_api.errors import AlreadyExistsError, RefusedError
from sens_platform_api.keys import repository as key_repository
from sens_platform_api.keys import service as keys
from sens_platform_api.parameters import time_text
from sens_platform_api.postgresql import Connection, translated_errors
from sens_platform_api.settings import AdministrationSettings
from sens_platform_api.tenants import commands as tenant_commands
from sens_platform_api.tenants import repository as tenants

SERVICE: Final = "sens-admin"
_MAX_LIMIT = 1000
_MAX_KEY_NAME = 100
_INTERRUPTED = 130  # 128 and the number of SIGINT, as shells have it
_MAX_SEQUENCE = 2**63 - 1


async def create_tenant(settings: AdministrationSettings, options: argparse.Namespace) -> Answer:
    """``tenants create``."""
    async with _database(settings) as connection:
        try:
            tenant = await tenants.create(connection, options.name)
            await audit.record(
                connection,
                tenant_id=tenant.id,
                actor=ADMINISTRATOR,
                action="tenant.created",
                subject=f"tenant {tenant.name}",
            )
            created = True
        except AlreadyExistsError:
            if not options.if_missing:
                raise
            tenant = await tenants.find(connection, options.name)
            created = False
    line = f"tenant {tenant.name} {'created' if created else 'exists already'}"
    return Answer(tenant._asdict() | {"created": created}, [line])


async def list_tenants(settings: AdministrationSettings, _options: argparse.Namespace) -> Answer:
    """``tenants list``."""
    async with _database(settings) as connection:
        found = await tenants.list_all(connection)
    return Answer([tenant._asdict() for tenant in found], [tenant.name for tenant in found])


async def create_key(settings: AdministrationSettings, options: argparse.Namespace) -> Answer:
    """``keys create``."""
    async with _database(settings) as connection:
        stored, key = await keys.create(
            connection,
            tenant=options.tenant,
            name=options.name,
            access="read_only" if options.read_only else "read_write",
            expires_at=options.expires,
        )
    return Answer(stored._asdict() | {"key": key}, [key])


async def list_keys(settings: AdministrationSettings, options: argparse.Namespace) -> Answer:
    """``keys list``."""
    async with _database(settings) as connection:
        tenant_id = None if options.tenant is None else (await tenants.find(connection, options.tenant)).id
        found = await key_repository.list_all(connection, tenant_id)
    now = datetime.now(UTC)
    lines = [
        f"{key.id}\t{key.tenant}\t{key.prefix}…\t{key.state(now)}\t{key.access.replace('_', '-')}\t{key.name}"
        for key in found
    ]
    return Answer([key._asdict() | {"state": key.state(now)} for key in found], lines)


async def revoke_key(settings: AdministrationSettings, options: argparse.Namespace) -> Answer:
    """``keys revoke``."""
    async with _database(settings) as connection:
        key = await keys.revoke(connection, options.key)
    return Answer(key._asdict(), [f"key {key.id} ({key.prefix}…) of tenant {key.tenant} is revoked"])


async def list_audit(settings: AdministrationSettings, options: argparse.Namespace) -> Answer:
    """``audit list``."""
    async with _database(settings) as connection:
        events = await audit.list_events(
            connection, before=options.before, limit=options.limit + 1, tenant=options.tenant
        )
    shown = events[: options.limit]
    before = shown[-1].id if len(events) > len(shown) else None
    lines = [
        f"{time_text(event.at)}\t{event.tenant or '-'}\t{event.actor}\t{event.action}\t{event.subject}"
        for event in shown
    ]
    if before is not None:
        lines.append(f"there are more: --before {before}")
    return Answer({"events": [event._asdict() for event in shown], "before": before}, lines)


@asynccontextmanager
async def _database(settings: AdministrationSettings) -> AsyncIterator[Connection]:
    connection = await connect(settings.database, SERVICE)
    try:
        with translated_errors():
            async with connection.transaction():
                yield connection
    finally:
        await connection.close()


def _tenant_name(text: str) -> str:
    if not is_tenant_name(text):
        raise argparse.ArgumentTypeError(f"a tenant's name has {TENANT_RULE}")
    return text


def _key_name(text: str) -> str:
    if not 1 <= len(text) <= _MAX_KEY_NAME or not text.isprintable():
        raise argparse.ArgumentTypeError(f"a key's name has 1 to {_MAX_KEY_NAME} printable characters")
    return text


def _expiry(text: str) -> datetime:
    """Return a time in the future: one as in the API, or a length of time from now on."""
    now = datetime.now(UTC)
    try:
        time = now + parse_width(text)
    except (ValueError, OverflowError):
        try:
            time = times.parse_time(text, now)
        except ValueError:
            raise argparse.ArgumentTypeError(
                "a time in the future is needed, for example 90d or 2027-06-30T00:00:00Z"
            ) from None
    if not now < time <= times.LATEST:
        raise argparse.ArgumentTypeError("a time in the future is needed, for example 90d, and one before 2200")
    return time


def _number(first: int, last: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        if not (text.isascii() and text.isdigit() and len(text) <= len(str(last)) and first <= int(text) <= last):
            raise argparse.ArgumentTypeError(f"a number from {first} to {last} is needed")
        return int(text)

    return number


def parser() -> argparse.ArgumentParser:
    """Return the command's parser."""
    output = argparse.ArgumentParser(add_help=False)
    output.add_argument("--json", action="store_true", help="print one JSON document")
    root = argparse.ArgumentParser(prog="python -m sens_platform_api.admin", description="Administer SENS Platform.")
    rooms = root.add_subparsers(required=True, metavar="ROOM")

    room = rooms.add_parser("tenants", help="whom devices, keys and dead letters belong to")
    commands = room.add_subparsers(required=True, metavar="COMMAND")
    command = commands.add_parser("create", parents=[output], help="make a tenant")
    command.add_argument("name", type=_tenant_name, help="its name, as in the topics")
    command.add_argument("--if-missing", action="store_true", help="succeed when it exists already")
    command.set_defaults(command=create_tenant)
    commands.add_parser("list", parents=[output], help="list all").set_defaults(command=list_tenants)
    tenant_commands.add_limits(commands, output)

    room = rooms.add_parser("keys", help="API keys")
    commands = room.add_subparsers(required=True, metavar="COMMAND")
    command = commands.add_parser("create", parents=[output], help="make a key; it is printed once")
    command.add_argument("--tenant", type=_tenant_name, required=True, help="whose data it reads")
    command.add_argument("--name", type=_key_name, default="unnamed", help="what it is for")
    command.add_argument(
        "--read-only", action="store_true", help="it may only read: neither replay nor delete, nor change limits"
    )
    command.add_argument("--expires", type=_expiry, help="when it ends: a time, or a number of days such as 90d")
    command.set_defaults(command=create_key)
    command = commands.add_parser("list", parents=[output], help="list keys, without the keys themselves")
    command.add_argument("--tenant", type=_tenant_name, help="only this tenant's")
    command.set_defaults(command=list_keys)
    command = commands.add_parser("revoke", parents=[output], help="make a key stop working, within seconds")
    command.add_argument("key", help="its number, its first 12 characters, or all of it")
    command.set_defaults(command=revoke_key)

    room = rooms.add_parser("audit", help="who changed what")
    commands = room.add_subparsers(required=True, metavar="COMMAND")
    command = commands.add_parser("list", parents=[output], help="list, newest first")
    command.add_argument(
        "--tenant", type=_tenant_name, help="only what concerns this tenant; it need not exist any more"
    )
    command.add_argument("--limit", type=_number(1, _MAX_LIMIT), default=100, help="how many at most")
    command.add_argument("--before", type=_number(1, _MAX_SEQUENCE), help="go on where the last list ended")
    command.set_defaults(command=list_audit)

    dead_letters.add_commands(rooms, output, tenant_name=_tenant_name, number=_number)
    return root


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return the exit code."""
    root = parser()
    options = root.parse_args(arguments)
    problem = dead_letters.problem_of(options)
    if problem is not None:
        root.error(problem)
    command: Command = options.command
    try:
        answer = asyncio.run(_run(command, options))
    except SensError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; what was not replayed yet is still there\n")
        return _INTERRUPTED
    if options.json:
        sys.stdout.write(json.dumps(answer.document, default=_json_value) + "\n")
    else:
        sys.stdout.writelines(f"{line}\n" for line in answer.lines)
    return 0


async def _run(command: Command, options: argparse.Namespace) -> Answer:
    return await command(AdministrationSettings.load(), options)


def _json_value(value: object) -> str:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    raise RefusedError(f"{type(value).__name__} has no JSON form")


if __name__ == "__main__":
    configure_logs(SERVICE, "error")
    sys.exit(main())
