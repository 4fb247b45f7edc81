"""Runs of codecs of one tenant in the database, by the functions of migration 0022. A telemetry worker does them."""

import json
from datetime import datetime
from typing import Any, Final, Literal, NamedTuple

from sens_platform_api.caller import Caller
from sens_platform_api.parameters import time_text
from sens_platform_api.postgresql import TenantDatabase

type Kind = Literal["redecode", "dry_run", "compare"]


class Order(NamedTuple):
    """What a run is to do.

    Attributes:
        kind: Store what messages say now, see what that would change, or compare two versions.
        codec: Name of the codec.
        number: Its version.
        first: Readings from this time on; of a comparison, messages received.
        past: And before this time.
        device: Whose messages, None of a comparison.
        other_number: Of a comparison: the version before.
        source: Of a comparison: whose messages, None: those of all sources.
    """

    kind: Kind
    codec: str
    number: int
    first: datetime
    past: datetime
    device: str | None = None
    other_number: int | None = None
    source: str | None = None


class Run(NamedTuple):
    """A run.

    Attributes:
        id: Its number.
        order: What it is to do.
        phase: What it is at.
        report: What it has found so far: see `sens_telemetry_worker.codec_runs.report`.
        requested_at: When somebody asked for it.
        requested_by: The actor, as in the audit.
        finished_at: None while it is not.
        outcome: ``finished``, ``cancelled``, or ``failed``; None while it is not.
        failure: Why it has failed.
    """

    id: int
    order: Order
    phase: str
    report: dict[str, Any]
    requested_at: datetime
    requested_by: str
    finished_at: datetime | None
    outcome: str | None
    failure: str | None


class Begun(NamedTuple):
    """What became of an order: `outcome` is ``begun``, ``running`` (the other run), ``unknown_device``, ``unknown_codec``, ``unknown_source``."""

    outcome: str
    run: int | None


_RUNS: Final = """
    SELECT id, kind, codec, number, first, past, device, other_number, source, coalesce(progress ->> 'phase', 'waiting') AS phase, report,
        requested_at, requested_by, finished_at, outcome, failure
    FROM sens.codec_runs
"""


class TenantRuns:
    """The runs of one tenant, asked for in the name of one caller."""

    def __init__(self, database: TenantDatabase, caller: Caller) -> None:
        self._database = database
        self._caller = caller

    async def begin(self, order: Order) -> Begun:
        """Begin a run, unless another one is not finished."""
        document = order._asdict() | {"first": time_text(order.first), "past": time_text(order.past)}
        async with self._database.transaction(readonly=False) as connection:
            row = await connection.fetchrow(
                "SELECT outcome, run FROM sens.begin_codec_run($1::text::jsonb, $2, $3, $4)",
                json.dumps(document),
                self._caller.actor,
                self._caller.address,
                self._caller.request_id,
            )
        assert row is not None  # noqa: S101 - for the type checker: it returns one row in any case
        return Begun(*row)

    async def get(self, run: int) -> Run | None:
        """Return a run, None when the tenant has none with this number."""
        async with self._database.transaction() as connection:
            row = await connection.fetchrow(_RUNS + "WHERE id = $1", run)
        return None if row is None else _run(row)

    async def newest(self, *, before: int | None, limit: int) -> list[Run]:
        """Return runs with numbers below one, the newest first."""
        async with self._database.transaction() as connection:
            rows = await connection.fetch(
                _RUNS + "WHERE id < coalesce($1, 9223372036854775807) ORDER BY id DESC LIMIT $2", before, limit
            )
        return [_run(row) for row in rows]

    async def cancel(self, run: int) -> str:
        """Cancel a run; return ``cancelled``, ``finished``, or ``unknown``."""
        async with self._database.transaction(readonly=False) as connection:
            outcome: str = await connection.fetchval(
                "SELECT sens.cancel_codec_run($1, $2, $3, $4)",
                run,
                self._caller.actor,
                self._caller.address,
                self._caller.request_id,
            )
        return outcome


def _run(row: Any) -> Run:
    order = Order(*(row[column] for column in Order._fields))
    rest = {column: row[column] for column in Run._fields if column not in {"order", "report"}}
    return Run(order=order, report=json.loads(row["report"]), **rest)
