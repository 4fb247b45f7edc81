"""Imports: lines are read, those that can be stored go into the stream, at a pace that leaves live data its place."""

import asyncio
from collections.abc import Sequence
from typing import Final, NamedTuple, Protocol

from sens_common.errors import RejectedMessageError, SettingsError
from sens_payloads.sources import Source
from sens_platform_api.errors import InvalidRequestError, NotFoundError
from sens_platform_api.imports import pace as paces
from sens_platform_api.imports.lines import Bounds, Line, Message, NativeReader, Reader, SourceReader, check_late
from sens_platform_api.imports.pace import Pace

MOST_LINES: Final = 1000
"""Lines of one request; they are one envelope."""
_LINES_BETWEEN_OTHERS: Final = 100


class Refused(NamedTuple):
    """Why a line is not imported."""

    line: int
    reason: str
    detail: str


class Imported(NamedTuple):
    """What became of some lines: those that are in the stream, and the others."""

    messages: list[Message]
    refused: list[Refused]


class Tenants(Protocol):
    """The tenant that imports, and its sources."""

    async def bounds(self) -> Bounds:
        """Return what holds for its imports."""

    async def source(self, name: str) -> Source | None:
        """Return a source, None when the tenant has none with this name; raise `SettingsError` where it can't be used."""


class Stream(paces.Stream, Protocol):
    """The stream of envelopes."""

    async def publish(self, identity: str, messages: Sequence[Message], received_at: int, late_days: int) -> None:
        """Put messages into the stream as one envelope; the same identity twice within a short time has no effect.

        Raises:
            UnavailableError: NATS can't be used, or the stream takes nothing. It may have happened all the same.
        """


async def import_lines(
    tenants: Tenants,
    stream: Stream,
    pace: Pace,
    lines: Sequence[Line],
    *,
    tenant: str,
    identity: str,
    source: str | None = None,
    topic: str | None = None,
    received_at: int,
    dry_run: bool = False,
) -> Imported:
    """Put lines into the stream; nothing with `dry_run`.

    Args:
        tenants: The tenant's data.
        stream: Where they go.
        pace: Of all imports.
        lines: In their order.
        tenant: Name of the tenant.
        identity: Of the import and these lines.
        source: Name of the source that reads them, None for native payloads.
        topic: That messages of the source were published to.
        received_at: Now, microseconds since the epoch.
        dry_run: Whether nothing is put into the stream.

    Raises:
        NotFoundError: There is no such source.
        InvalidRequestError: The source can't be used.
        TooManyImportsError: Others import as much as may be imported.
        UnavailableError: NATS can't be used.
    """
    reader = NativeReader(tenant) if source is None else await _source_reader(tenants, tenant, source, topic)
    bounds = await tenants.bounds()
    imported = await _read(reader, lines, received_at, bounds.late_days, tenant)
    if imported.messages and not dry_run:
        await pace.wait(tenant, len(imported.messages), stream, bounds.messages_per_second)
        await stream.publish(identity, imported.messages, received_at, bounds.late_days)
    return imported


async def _source_reader(tenants: Tenants, tenant: str, name: str, topic: str | None) -> Reader:
    try:
        source = await tenants.source(name)
    except SettingsError as error:
        raise InvalidRequestError.in_body("source", f"source {name} can't be used: {error}") from None
    if source is None:
        raise NotFoundError(f"there is no source {name}")
    if source.has_births:
        raise InvalidRequestError.in_body(
            "source",
            f"source {name} takes Sparkplug B, whose messages are read by the births that precede them in the stream; a file has no place there."
            " Import its values as CSV or JSON lines, with devices called group.edge_node.device",
        )
    return SourceReader(tenant, source, topic)


async def _read(reader: Reader, lines: Sequence[Line], received_at: int, late_days: int, tenant: str) -> Imported:
    """Read lines; others are served meanwhile."""
    imported = Imported([], [])
    for index, line in enumerate(lines):
        if index % _LINES_BETWEEN_OTHERS == 0:
            await asyncio.sleep(0)
        try:
            message = reader.read(line, received_at)
            check_late(message, received_at, late_days, tenant)
        except RejectedMessageError as error:
            imported.refused.append(Refused(line.number, error.reason, error.detail))
        else:
            imported.messages.append(message)
    return imported
