"""``python -m sens_platform_api.admin dead-letters``: those of any tenant, and those that belong to none."""

import argparse
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Final

from sens_common.database import connect
from sens_common.dead_letters import Reason
from sens_common.errors import SensError
from sens_common.jetstream import connect as connect_nats
from sens_common.names import DEVICE_RULE, device_name
from sens_platform_api.audit.repository import ADMINISTRATOR
from sens_platform_api.command import Answer
from sens_platform_api.dead_letters import service
from sens_platform_api.dead_letters.filters import Filter
from sens_platform_api.dead_letters.jetstream import TelemetryStream
from sens_platform_api.dead_letters.repository import Actor, DeadLetters, Whose
from sens_platform_api.dead_letters.schemas import DeadLetterDetails, DeadLetterSummary
from sens_platform_api.errors import NotFoundError
from sens_platform_api.parameters import parse_time
from sens_platform_api.postgresql import Connection, translated_errors
from sens_platform_api.settings import AdministrationSettings
from sens_platform_api.tenants import repository as tenants

_SERVICE: Final = "sens-admin"
_MAX_LIMIT: Final = 1000
_REPLAYED_TOGETHER: Final = 10_000
_MAX_ID: Final = 2**63 - 1


async def list_dead_letters(settings: AdministrationSettings, options: argparse.Namespace) -> Answer:
    """``dead-letters list``."""
    async with _dead_letters(settings, options) as letters:
        page = await service.list_page(letters, _filter(options), below=options.below, limit=options.limit)
    items = [DeadLetterSummary.of(summary).model_dump(mode="json") for summary in page.letters]
    lines = [f"{item['id']}\t{item['dead_lettered_at']}\t{item['reason']}\t{item['topic']!r}" for item in items]
    if page.below is not None:
        lines.append(f"there are more: --below {page.below}")
    return Answer({"dead_letters": items, "below": page.below}, lines)


async def show_dead_letter(settings: AdministrationSettings, options: argparse.Namespace) -> Answer:
    """``dead-letters show``."""
    async with _dead_letters(settings, options) as letters:
        document = DeadLetterDetails.with_payload(await letters.get(options.id)).model_dump(mode="json")
    return Answer(document, [f"{name}: {value}" for name, value in document.items()])


async def replay_dead_letters(settings: AdministrationSettings, options: argparse.Namespace) -> Answer:
    """``dead-letters replay``."""
    replayed = incomplete = remaining = 0
    above: int | None = options.above if options.all else None
    until: int | None = options.until
    async with _dead_letters(settings, options) as letters, connect_nats(settings.nats, _SERVICE) as client:
        log = TelemetryStream(client)
        for letter_id in options.ids:
            await service.replay_one(letters, log, letter_id)
            replayed += 1
        while above is not None and (room := options.limit - replayed - incomplete) > 0:
            done = await service.replay_page(
                letters, log, _filter(options), above=above, until=until, limit=min(room, _REPLAYED_TOGETHER)
            )
            replayed += done.replayed
            incomplete += done.incomplete
            above, until, remaining = done.above, done.until, done.remaining
            if sys.stderr.isatty():
                sys.stderr.write(f"replayed {replayed:,}; {remaining:,} to go\n")
    lines = [f"replayed {replayed}"]
    if incomplete:
        lines.append(
            f"{incomplete} can't be replayed: only their beginnings are kept, and the log no longer has the whole"
        )
    if above is not None:
        lines.append(f"there are more: --above {above} --until {until}")
    document = {
        "replayed": replayed,
        "incomplete": incomplete,
        "above": above,
        "until": until,
        "remaining": remaining,
    }
    return Answer(document, lines)


async def delete_dead_letters(settings: AdministrationSettings, options: argparse.Namespace) -> Answer:
    """``dead-letters delete``."""
    deleted = 0
    wanted = _filter(options)
    async with _dead_letters(settings, options) as letters:
        for letter_id in options.ids:
            await letters.delete(letter_id)
            deleted += 1
        while options.all:
            done = await service.delete_page(letters, wanted, limit=service.DELETED_TOGETHER)
            deleted += done.deleted
            if not done.deleted or not done.remaining:
                break
    return Answer({"deleted": deleted}, [f"deleted {deleted}"])


@asynccontextmanager
async def _dead_letters(settings: AdministrationSettings, options: argparse.Namespace) -> AsyncIterator[DeadLetters]:
    connection = await connect(settings.database, _SERVICE)

    @asynccontextmanager
    async def transaction(readonly: bool) -> AsyncIterator[Connection]:
        with translated_errors():
            async with connection.transaction(readonly=readonly):
                yield connection

    try:
        async with transaction(True):
            whose = await _whose(connection, options.tenant)
        yield DeadLetters(transaction, Actor(ADMINISTRATOR, whose.tenant_id), whose)
    finally:
        await connection.close()


async def _whose(connection: Connection, tenant: str | None) -> Whose:
    if tenant is None:
        return Whose(None)
    try:
        return Whose((await tenants.find(connection, tenant)).id)
    except NotFoundError:
        return Whose(None, tenant)


def _filter(options: argparse.Namespace) -> Filter:
    return Filter(options.reason, options.device, options.topic, options.since, options.before)


def _device(text: str) -> str:
    name = device_name(text)
    if name is None:
        raise argparse.ArgumentTypeError(f"a device's name has {DEVICE_RULE}; or it is an EUI")
    return name


def _time(text: str) -> datetime:
    try:
        return parse_time("time", text)
    except SensError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def add_commands(
    rooms: "argparse._SubParsersAction[argparse.ArgumentParser]",
    output: argparse.ArgumentParser,
    *,
    tenant_name: Callable[[str], str],
    number: Callable[[int, int], Callable[[str], int]],
) -> None:
    """Add the commands to the administration's parser.

    Args:
        rooms: Where to.
        output: Options of all commands.
        tenant_name: Reads a tenant's name.
        number: Makes what reads a number between two others.
    """
    room = rooms.add_parser("dead-letters", help="messages that could not be stored")
    commands = room.add_subparsers(required=True, metavar="COMMAND")
    whose = argparse.ArgumentParser(add_help=False)
    group = whose.add_mutually_exclusive_group(required=True)
    group.add_argument("--tenant", type=tenant_name, help="this tenant's; it need not exist")
    group.add_argument("--unrouted", action="store_true", help="those whose topics name no tenant that exists")
    which = argparse.ArgumentParser(add_help=False)
    which.add_argument("--reason", choices=list(Reason), type=Reason, help="only those with this reason")
    which.add_argument("--device", type=_device, help="only this device's")
    which.add_argument("--topic", help="only those with this topic, or one that this filter of MQTT matches")
    which.add_argument("--since", type=_time, help="only those that were dead-lettered at this time or later")
    which.add_argument("--before", type=_time, help="only those that were dead-lettered before this time")

    command = commands.add_parser("list", parents=[whose, which, output], help="list, newest first")
    command.add_argument("--limit", type=number(1, _MAX_LIMIT), default=100, help="how many at most")
    command.add_argument("--below", type=number(0, _MAX_ID), help="go on where the last list ended")
    command.set_defaults(command=list_dead_letters)
    command = commands.add_parser("show", parents=[whose, output], help="show one with its payload")
    command.add_argument("id", type=number(1, _MAX_ID), help="its number")
    command.set_defaults(command=show_dead_letter)
    command = commands.add_parser("replay", parents=[whose, which, output], help="send some through the platform again")
    command.add_argument("ids", type=number(1, _MAX_ID), nargs="*", help="their numbers")
    command.add_argument("--all", action="store_true", help="all, or those that the filters name")
    command.add_argument("--limit", type=number(1, _MAX_ID), default=_MAX_ID, help="with --all: how many at most")
    command.add_argument(
        "--above", type=number(0, _MAX_ID), default=0, help="with --all: go on where the last command ended"
    )
    command.add_argument("--until", type=number(0, _MAX_ID), help="with --all: end where the last command would")
    command.set_defaults(command=replay_dead_letters)
    command = commands.add_parser("delete", parents=[whose, which, output], help="delete some for good")
    command.add_argument("ids", type=number(1, _MAX_ID), nargs="*", help="their numbers")
    command.add_argument("--all", action="store_true", help="all, or those that the filters name")
    command.set_defaults(command=delete_dead_letters)


def problem_of(options: argparse.Namespace) -> str | None:
    """Return what is wrong with options that are right each by itself, None when nothing is."""
    if options.command in {replay_dead_letters, delete_dead_letters} and bool(options.ids) == options.all:
        return "give either numbers, or --all"
    return None
