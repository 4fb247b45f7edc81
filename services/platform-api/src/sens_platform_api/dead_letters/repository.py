"""The dead letters in the database; and a deletion's row in the audit, in the same transaction.

The API's transactions see those of one tenant, through a view. The administration command works as the owning role and selects a tenant.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Final, NamedTuple

from sens_common.dead_letters import Origin
from sens_common.topics import TOPICS
from sens_platform_api.audit import repository as audit
from sens_platform_api.dead_letters.filters import Filter, Where
from sens_platform_api.errors import NotFoundError
from sens_platform_api.postgresql import Connection

type Transaction = Callable[[bool], AbstractAsyncContextManager[Connection]]
"""Opens a transaction, for reading only or not."""

_SUMMARY: Final = (
    "id, device, topic, reason, detail, payload_bytes, octet_length(payload) < payload_bytes AS is_shortened, received_at,"
    " dead_lettered_at, replays"
)


class Summary(NamedTuple):
    """A dead letter without its payload.

    Attributes:
        is_shortened: Whether only the beginning of the payload is kept.
    """

    id: int
    device: str | None
    topic: str
    reason: str
    detail: str
    payload_bytes: int
    is_shortened: bool
    received_at: datetime
    dead_lettered_at: datetime
    replays: int


class StoredDeadLetter(NamedTuple):
    """A dead letter."""

    summary: Summary
    payload: bytes
    origin: Origin


class Whose(NamedTuple):
    """The tenant whose dead letters the administration command selects, or those without a tenant.

    Attributes:
        tenant_id: Id of the tenant; None: dead letters without a tenant.
        tenant: Of the dead letters without a tenant, only those whose topic names this one; None: all.
    """

    tenant_id: int | None
    tenant: str | None = None


class Actor(NamedTuple):
    """The deleting caller and the tenant of the dead letters, for the audit; see `audit.repository.record`."""

    actor: str
    tenant_id: int | None
    address: str | None = None
    request_id: str | None = None


class DeadLetters:
    """Dead letters of one owner; each call is a transaction of its own."""

    def __init__(self, transaction: Transaction, actor: Actor, whose: Whose | None = None) -> None:
        """Store the arguments.

        Args:
            transaction: Opens one. Without `whose`, it sees the dead letters of one tenant.
            actor: Who deletes.
            whose: Selects a tenant, as the owning role.
        """
        self._transaction = transaction
        self._actor = actor
        self._whose = whose

    async def page(self, wanted: Filter, *, below: int | None, limit: int) -> list[Summary]:
        """Return dead letters, newest first, those with ids below one."""
        where = self._where(wanted)
        where.add("id < {}", below)
        async with self._transaction(True) as connection:
            rows = await connection.fetch(
                f"SELECT {_SUMMARY} FROM {where} ORDER BY id DESC LIMIT {int(limit)}",  # noqa: S608 - values are arguments
                *where.arguments,
            )
        return [Summary(*row) for row in rows]

    async def get(self, letter_id: int) -> StoredDeadLetter:
        """Return one dead letter.

        Raises:
            NotFoundError: There is none with this id, or it is another tenant's.
        """
        where = self._where(Filter())
        where.add("id = {}", letter_id)
        async with self._transaction(True) as connection:
            found = await _fetch_whole(connection, where, "id")
        if not found:
            raise NotFoundError(_not_there(letter_id))
        return found[0]

    async def oldest(
        self, wanted: Filter, *, above: int, until: int, limit: int, max_bytes: int
    ) -> list[StoredDeadLetter]:
        """Return dead letters, oldest first, with ids above one and up to another; fewer than `limit` where they are large."""
        where = self._where(wanted)
        where.add("id > {}", above)
        where.add("id <= {}", until)
        async with self._transaction(True) as connection:
            sizes = await connection.fetch(
                f"SELECT id, octet_length(payload) FROM {where} ORDER BY id LIMIT {int(limit)}",  # noqa: S608 - same
                *where.arguments,
            )
            ids: list[int] = []
            total = 0
            for letter_id, size in sizes:
                total += size
                if ids and total > max_bytes:
                    break
                ids.append(letter_id)
            where.add("id = ANY ({})", ids)
            return await _fetch_whole(connection, where, "id")

    async def last_id(self) -> int:
        """Return the id of the newest, 0 without one."""
        where = self._where(Filter())
        async with self._transaction(True) as connection:
            last: int | None = await connection.fetchval(f"SELECT max(id) FROM {where}", *where.arguments)  # noqa: S608 - same
        return last or 0

    async def count(self, wanted: Filter, *, above: int = 0, until: int | None = None) -> int:
        """Return how many there are with ids above one and up to another."""
        where = self._where(wanted)
        where.add("id > {}", above)
        where.add("id <= {}", until)
        async with self._transaction(True) as connection:
            count: int = await connection.fetchval(f"SELECT count(*) FROM {where}", *where.arguments)  # noqa: S608 - same
        return count

    async def delete_replayed(self, letters: Sequence[tuple[int, int]]) -> int:
        """Delete those that were replayed, given as ids and the counts of replays that they had; return how many were deleted.

        One whose replay was refused meanwhile has a higher count, and stays.
        """
        where = self._where(Filter())
        where.add(
            "(id, replays) IN (SELECT * FROM unnest({}::bigint[], {}::int[]))",
            [letter_id for letter_id, _ in letters],
            [replays for _, replays in letters],
        )
        async with self._transaction(False) as connection:
            return _affected(await connection.execute(f"DELETE FROM {where}", *where.arguments))  # noqa: S608 - same

    async def delete(self, letter_id: int) -> None:
        """Delete one.

        Raises:
            NotFoundError: There is none with this id, or it is another tenant's.
        """
        where = self._where(Filter())
        where.add("id = {}", letter_id)
        async with self._transaction(False) as connection:
            if not _affected(await connection.execute(f"DELETE FROM {where}", *where.arguments)):  # noqa: S608 - same
                raise NotFoundError(_not_there(letter_id))
            await self._audit(connection, f"dead letter {letter_id}", 1, Filter())

    async def delete_many(self, wanted: Filter, *, limit: int) -> int:
        """Delete so many of a filter, the oldest first; return how many were deleted."""
        where = self._where(wanted)
        async with self._transaction(False) as connection:
            deleted = _affected(
                await connection.execute(
                    f"DELETE FROM {where.relation} WHERE id IN"  # noqa: S608 - same
                    f" (SELECT id FROM {where} ORDER BY id LIMIT {int(limit)})",
                    *where.arguments,
                )
            )
            if deleted:
                await self._audit(connection, "dead letters", deleted, wanted)
        return deleted

    async def _audit(self, connection: Connection, subject: str, deleted: int, wanted: Filter) -> None:
        details = {"deleted": deleted} | {
            name: value if isinstance(value, str) else value.isoformat()
            for name, value in wanted._asdict().items()
            if value is not None
        }
        await audit.record(
            connection, **self._actor._asdict(), action="dead_letters.deleted", subject=subject, details=details
        )

    def _where(self, wanted: Filter) -> Where:
        if self._whose is None:
            where = Where("sens.tenant_dead_letters")
        else:
            where = Where("sens.dead_letters")
            if self._whose.tenant_id is not None:
                where.add("tenant_id = {}", self._whose.tenant_id)
            else:
                where.add("tenant_id IS NULL")
                if self._whose.tenant is not None:
                    where.add("topic ^@ ANY ({}::text[])", TOPICS.beginnings_of(self._whose.tenant))
        return where.matching(wanted)


async def _fetch_whole(connection: Connection, where: Where, order: str) -> list[StoredDeadLetter]:
    rows = await connection.fetch(
        f"SELECT {_SUMMARY}, payload, stream, sequence, number FROM {where} ORDER BY {order}",  # noqa: S608 - values are arguments
        *where.arguments,
    )
    width = len(Summary._fields)
    return [StoredDeadLetter(Summary(*row[:width]), row[width], Origin(*row[width + 1 :])) for row in map(tuple, rows)]


def _affected(status: str) -> int:
    """Return the number of rows in the status of a command (PostgreSQL documentation, "Message Formats", CommandComplete)."""
    return int(status.rpartition(" ")[2])


def _not_there(letter_id: int) -> str:
    return f"there is no dead letter {letter_id}; it may have been replayed or deleted meanwhile"
