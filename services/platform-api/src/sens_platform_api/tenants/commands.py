"""``python -m sens_platform_api.admin tenants limits``: what a tenant may have and send, and what it has."""

import argparse
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

from sens_common.database import connect
from sens_common.names import TENANT_RULE, is_tenant_name
from sens_platform_api.audit import repository as audit
from sens_platform_api.audit.repository import ADMINISTRATOR
from sens_platform_api.command import Answer
from sens_platform_api.postgresql import Connection, translated_errors
from sens_platform_api.settings import AdministrationSettings
from sens_platform_api.tenants import repository
from sens_platform_api.tenants.limits import LIMITS, Limit

_SERVICE: Final = "sens-admin"
_NONE: Final = "none"


async def limits(settings: AdministrationSettings, options: argparse.Namespace) -> Answer:
    """``tenants limits``: change those that are given, and show all."""
    given = {limit: getattr(options, limit.name) for limit in LIMITS if getattr(options, limit.name) is not None}
    changes = {limit: None if value == _NONE else int(value) for limit, value in given.items()}
    async with _database(settings) as connection:
        tenant = await repository.find(connection, options.name)
        before = await repository.limits(connection, tenant.id, lock=bool(changes))
        changed = {limit.name: value for limit, value in changes.items() if before[limit.name] != value}
        if changed:
            await repository.set_limits(connection, tenant.id, changes)
            await audit.record(
                connection,
                tenant_id=tenant.id,
                actor=ADMINISTRATOR,
                action="tenant.limits_changed",
                subject=f"tenant {tenant.name}",
                details={name: {"before": before[name], "after": value} for name, value in changed.items()},
            )
        now = await repository.limits(connection, tenant.id)
        used = await repository.usage(connection, tenant.id)
    lines = [_line(limit, now[limit.name], used.get(limit.name)) for limit in LIMITS]
    return Answer({"tenant": tenant.name, "limits": now, "used": used, "changed": sorted(changed)}, lines)


def add_limits(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]", output: argparse.ArgumentParser
) -> None:
    """Add the command to those of the room."""
    command = commands.add_parser(
        "limits",
        parents=[output],
        help="show what a tenant may have and send, and change it",
        description="Without options, shows the limits. A change holds within ten seconds, without a restart.",
    )
    command.add_argument("name", type=_tenant_name, help="the tenant")
    for limit in LIMITS:
        metavar = "NUMBER|none" if limit.may_be_none else "NUMBER"
        command.add_argument(limit.option, type=_value(limit), metavar=metavar, help=limit.meaning)
    command.set_defaults(command=limits)


@asynccontextmanager
async def _database(settings: AdministrationSettings) -> AsyncIterator[Connection]:
    connection = await connect(settings.database, _SERVICE)
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


def _value(limit: Limit) -> Callable[[str], str]:
    def value(text: str) -> str:
        if limit.may_be_none and text == _NONE:
            return text
        if not (text.isascii() and text.isdigit() and len(text) <= len(str(limit.most))) or not (
            limit.least <= int(text) <= limit.most
        ):
            raise argparse.ArgumentTypeError(
                f"a number from {limit.least} to {limit.most} is needed{', or none' if limit.may_be_none else ''}"
            )
        return text

    return value


def _line(limit: Limit, value: int | None, used: int | None) -> str:
    amount = "no limit" if value is None else f"{value:,}" if used is None else f"{used:,} of {value:,}"
    return f"{limit.option}\t{amount}\t{limit.meaning}"
