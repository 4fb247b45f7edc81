"""Dead letters of any tenant, and those without a tenant, as an administrator works on them: in the database, past the API.

`sens dead-letters` finds this class as an entry point; what it asks of it is the protocol `sens_cli.commands.dead_letters.DeadLetters`.
"""

from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import typer

from sens_common.command_line.options import tenant_name
from sens_common.dead_letters import Reason
from sens_common.errors import SensError
from sens_common.jetstream import connect as connect_nats
from sens_common.logs import configure_logs
from sens_common.names import DEVICE_RULE, device_name
from sens_platform_api.administration import SERVICE, administer, owner_connection
from sens_platform_api.audit.repository import ADMINISTRATOR
from sens_platform_api.dead_letters import service
from sens_platform_api.dead_letters.filters import Filter
from sens_platform_api.dead_letters.jetstream import TelemetryStream
from sens_platform_api.dead_letters.repository import Actor, DeadLetters, Whose
from sens_platform_api.dead_letters.schemas import DeadLetterDetails, DeadLetterSummary
from sens_platform_api.errors import NotFoundError
from sens_platform_api.parameters import parse_time
from sens_platform_api.postgresql import Connection
from sens_platform_api.settings import AdministrationSettings
from sens_platform_api.tenants import repository as tenants

_REPLAYED_TOGETHER: Final = 10_000

type Document = dict[str, Any]
type Work[Result] = Callable[[DeadLetters, AdministrationSettings], Coroutine[Any, Any, Result]]


class DeadLettersInDatabase:
    """Dead letters of a tenant, or those without one; each call logs in to the database as its owner."""

    def __init__(
        self,
        data_dir: Path,
        tenant: str | None,
        filters: Mapping[str, str | None],
        *,
        replayed_together: int = _REPLAYED_TOGETHER,
    ) -> None:
        """Begin.

        Args:
            data_dir: Of the instance, where the environment names no database.
            tenant: Those of this tenant, which need not exist; None: those whose topics name no tenant that exists.
            filters: Which of them are meant: ``reason``, ``device``, ``topic``, ``since``, ``before``.
            replayed_together: How many are replayed before the progress is told.

        Raises:
            BadParameter: A filter is not one.
        """
        self._data_dir = data_dir
        self._tenant = tenant_name(tenant)
        self._filter = _filter(filters)
        self._replayed_together = replayed_together

    def list(self, limit: int) -> list[Document]:
        """Return so many dead letters, newest first."""

        async def listed(letters: DeadLetters, _settings: AdministrationSettings) -> list[Document]:
            page = await service.list_page(letters, self._filter, below=None, limit=limit)
            return [DeadLetterSummary.of(summary).model_dump(mode="json") for summary in page.letters]

        return self._run(listed)

    def get(self, letter_id: int) -> Document:
        """Return one dead letter with its payload."""

        async def found(letters: DeadLetters, _settings: AdministrationSettings) -> Document:
            return DeadLetterDetails.with_payload(await letters.get(letter_id)).model_dump(mode="json")

        return self._run(found)

    def replay(self, ids: Sequence[int], progress: Callable[[int, int, int], None]) -> None:
        """Replay these dead letters, or all that are meant; tell how many were replayed, are incomplete, and remain."""

        async def replayed(letters: DeadLetters, settings: AdministrationSettings) -> None:
            async with connect_nats(settings.nats, SERVICE) as client:
                stream = TelemetryStream(client)
                for letter_id in ids:
                    await service.replay_one(letters, stream, letter_id)
                    progress(1, 0, 0)
                above: int | None = None if ids else 0
                until: int | None = None
                while above is not None:
                    done = await service.replay_page(
                        letters, stream, self._filter, above=above, until=until, limit=self._replayed_together
                    )
                    above, until = done.above, done.until
                    progress(done.replayed, done.incomplete, done.remaining)

        self._run(replayed)

    def delete(self, ids: Sequence[int]) -> int:
        """Delete these dead letters, or all that are meant and there now; return how many."""

        async def deleted(letters: DeadLetters, _settings: AdministrationSettings) -> int:
            for letter_id in ids:
                await letters.delete(letter_id)
            count = len(ids)
            while not ids:
                done = await service.delete_page(letters, self._filter, limit=service.DELETED_TOGETHER)
                count += done.deleted
                if not done.deleted or not done.remaining:
                    break
            return count

        return self._run(deleted)

    def _run[Result](self, work: Work[Result]) -> Result:
        async def connected(settings: AdministrationSettings) -> Result:
            async with owner_connection(settings) as connection:
                return await work(await self._letters(connection), settings)

        configure_logs(SERVICE, "error")
        return administer(self._data_dir, connected)

    async def _letters(self, connection: Connection) -> DeadLetters:
        @asynccontextmanager
        async def transaction(readonly: bool) -> AsyncIterator[Connection]:
            async with connection.transaction(readonly=readonly):
                yield connection

        async with transaction(True):
            whose = await _whose(connection, self._tenant)
        return DeadLetters(transaction, Actor(ADMINISTRATOR, whose.tenant_id), whose)


async def _whose(connection: Connection, tenant: str | None) -> Whose:
    if tenant is None:
        return Whose(None)
    try:
        return Whose((await tenants.find(connection, tenant)).id)
    except NotFoundError:
        return Whose(None, tenant)


def _filter(filters: Mapping[str, str | None]) -> Filter:
    return Filter(
        _reason(filters["reason"]),
        _device(filters["device"]),
        filters["topic"],
        _time("--since", filters["since"]),
        _time("--before", filters["before"]),
    )


def _reason(text: str | None) -> str | None:
    if text is not None and text not in list(Reason):
        raise typer.BadParameter(f"the reasons are {', '.join(Reason)}", param_hint="--reason")
    return text


def _device(text: str | None) -> str | None:
    name = None if text is None else device_name(text)
    if name is None and text is not None:
        raise typer.BadParameter(f"a device's name has {DEVICE_RULE}; or it is an EUI", param_hint="--device")
    return name


def _time(option: str, text: str | None) -> datetime | None:
    try:
        return None if text is None else parse_time("time", text)
    except SensError as error:
        raise typer.BadParameter(str(error), param_hint=option) from error
