"""The table of metric sets: their ids by what they contain, and what they contain by their ids."""

import hashlib
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from sens_common.database import Connection
from sens_telemetry_worker.tenants import MetricSet

MAX_CACHED_SETS: Final = 50_000
"""Sets that are remembered; when there are more, the cache begins with none."""

_FIND: Final = """
    SELECT s.tenant_id, s.digest, s.id
    FROM unnest($1::int[], $2::bytea[]) AS wanted (tenant_id, digest) JOIN sens.metric_sets s USING (tenant_id, digest)
"""
# In the order of the key, so that no two transactions wait for each other.
_REGISTER: Final = """
    INSERT INTO sens.metric_sets (tenant_id, number_ids, text_ids)
    SELECT tenant_id, string_to_array(number_ids, ',')::int[], string_to_array(text_ids, ',')::int[]
    FROM unnest($1::int[], $2::text[], $3::text[]) AS new (tenant_id, number_ids, text_ids)
    ON CONFLICT DO NOTHING
"""
_CONTENTS: Final = """
    SELECT s.id, s.tenant_id, s.number_ids, s.text_ids,
        ARRAY(SELECT m.id FROM sens.metrics m WHERE m.id = ANY (s.number_ids || s.text_ids)) AS existing
    FROM sens.metric_sets s WHERE s.id = ANY ($1)
"""


class SetContents(NamedTuple):
    """A set of the database.

    Attributes:
        whole: As it is stored: what a reading's arrays have values of.
        existing: Those of its metrics that have not been deleted.
    """

    whole: MetricSet
    existing: MetricSet


class MetricSets:
    """What is remembered of the table, for one generation of ids; see `store.TimescaleStore`."""

    def __init__(self) -> None:
        self._ids: dict[MetricSet, int] = {}
        self._contents: dict[int, SetContents] = {}

    def forget(self) -> None:
        """Forget everything: metrics were deleted."""
        self._ids.clear()
        self._contents.clear()

    async def find(self, connection: Connection, wanted: Iterable[MetricSet]) -> dict[MetricSet, int]:
        """Return the ids of those sets that are registered."""
        found = {each: self._ids[each] for each in wanted if each in self._ids}
        if missing := [each for each in wanted if each not in found]:
            committed = await _find(connection, missing)
            self.remember(committed)
            found |= committed
        return found

    async def register(self, connection: Connection, wanted: Iterable[MetricSet]) -> dict[MetricSet, int]:
        """Return the ids of sets, registering those that are new; they are to be remembered when the transaction is committed."""
        ordered = sorted(wanted, key=lambda each: (each.tenant_id, _digest(each)))
        if not ordered:
            return {}
        await connection.execute(
            _REGISTER,
            [each.tenant_id for each in ordered],
            [_listed(each.number_ids) for each in ordered],
            [_listed(each.text_ids) for each in ordered],
        )
        return await _find(connection, ordered)

    def remember(self, ids: dict[MetricSet, int]) -> None:
        """Remember ids of sets that are committed."""
        if len(self._ids) + len(ids) > MAX_CACHED_SETS:
            self._ids.clear()
        self._ids |= ids

    async def contents(self, connection: Connection, set_ids: set[int]) -> dict[int, SetContents]:
        """Return what sets contain."""
        found = {set_id: self._contents[set_id] for set_id in set_ids & self._contents.keys()}
        if missing := set_ids - found.keys():
            loaded: dict[int, SetContents] = {}
            for row in await connection.fetch(_CONTENTS, list(missing)):
                whole = MetricSet(row["tenant_id"], tuple(row["number_ids"]), tuple(row["text_ids"]))
                loaded[row["id"]] = SetContents(whole, _only(whole, set(row["existing"])))
            if len(self._contents) + len(loaded) > MAX_CACHED_SETS:
                self._contents.clear()
            self._contents |= loaded
            found |= loaded
        return found


async def _find(connection: Connection, wanted: Sequence[MetricSet]) -> dict[MetricSet, int]:
    by_digest = {(each.tenant_id, _digest(each)): each for each in wanted}
    rows = await connection.fetch(_FIND, [key[0] for key in by_digest], [key[1] for key in by_digest])
    return {by_digest[row["tenant_id"], row["digest"]]: row["id"] for row in rows}


def _digest(metric_set: MetricSet) -> bytes:
    """Return what ``sens.metric_set_digest`` returns."""
    return hashlib.sha256(f"{_listed(metric_set.number_ids)};{_listed(metric_set.text_ids)}".encode()).digest()


def _listed(ids: Iterable[int]) -> str:
    return ",".join(map(str, ids))


def _only(metric_set: MetricSet, existing: set[int]) -> MetricSet:
    return MetricSet.of(
        metric_set.tenant_id, existing.intersection(metric_set.number_ids), existing.intersection(metric_set.text_ids)
    )
