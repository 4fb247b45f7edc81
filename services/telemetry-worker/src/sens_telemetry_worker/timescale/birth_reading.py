"""The births in the database, as `births.BirthRegister`."""

from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping
from typing import Final

import msgspec
import structlog

from sens_common.database import Connection
from sens_common.dead_letters import Origin, Reason
from sens_payloads.formats.sparkplug_births import Birth
from sens_payloads.formats.sparkplug_history import Announcement, History
from sens_telemetry_worker.births import BirthPosition, EdgeNode, EdgeNodeKey, RegisteredEdgeNodes
from sens_telemetry_worker.storing import StoreUnavailableError
from sens_telemetry_worker.tenants import Refusal
from sens_telemetry_worker.timescale.database import Database

log = structlog.get_logger()

MAX_EDGE_NODES: Final = 10_000
"""Of a source."""
MAX_BIRTHS: Final = 100_000
"""Births and deaths that are kept of a source."""
MAX_BYTES: Final = 256 << 20
"""Their size."""
_REMEMBERED_NODES: Final = 20_000
_REMEMBERED_METRICS: Final = 500_000
"""Of the births that are remembered, all together."""

_FIND: Final = """
    SELECT e.source_id, e.name, e.id, e.changes
    FROM unnest($1::int[], $2::text[]) AS wanted (source_id, name) JOIN sens.edge_nodes e USING (source_id, name)
"""
_USED: Final = """
    SELECT e.source_id, count(*)::int AS nodes, coalesce(sum(e.births), 0)::bigint AS births, coalesce(sum(e.bytes), 0)::bigint AS bytes
    FROM sens.edge_nodes e WHERE e.source_id = ANY($1) GROUP BY e.source_id
"""
_REGISTER: Final = """
    INSERT INTO sens.edge_nodes (tenant_id, source_id, name)
    SELECT s.tenant_id, s.id, new.name FROM unnest($1::int[], $2::text[]) AS new (source_id, name) JOIN sens.sources s ON s.id = new.source_id
    ORDER BY s.id, new.name
    ON CONFLICT DO NOTHING
"""
# The number is read together with the history that it is of.
_HISTORIES: Final = """
    SELECT e.id, e.changes, b.device, b.stream, b.sequence, b.number, b.is_birth, b.bd_seq, b.follows_forgotten
    FROM sens.edge_nodes e LEFT JOIN sens.births b ON b.edge_node_id = e.id
    WHERE e.id = ANY($1)
"""
_CONTENTS: Final = """
    SELECT b.edge_node_id, b.device, b.stream, b.sequence, b.number, b.content
    FROM unnest($1::bigint[], $2::text[], $3::bigint[], $4::bigint[], $5::int[]) AS wanted (edge_node_id, device, stream, sequence, number)
    JOIN sens.births b USING (edge_node_id, device, stream, sequence, number)
    WHERE b.is_birth
"""
_decoder: Final = msgspec.msgpack.Decoder(Birth)


class TimescaleBirths:
    """The births in the database; remembers those that did not change since they were read."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._nodes: OrderedDict[EdgeNodeKey, EdgeNode] = OrderedDict()
        self._births: OrderedDict[BirthPosition, Birth] = OrderedDict()
        self._metrics = 0

    async def edge_nodes(
        self, wanted: Collection[EdgeNodeKey], announcing: Collection[EdgeNodeKey]
    ) -> RegisteredEdgeNodes:
        """See `births.BirthRegister.edge_nodes`."""
        async with self._database.connection() as connection:
            found = await _find(connection, wanted)
            refusals: dict[EdgeNodeKey, Refusal] = {}
            missing = set(wanted) - found.keys()
            if missing or announcing:
                used = await _used(connection, {key.source_id for key in (*missing, *announcing)})
                refusals = {key: refusal for key in announcing if (refusal := _no_room(*used[key.source_id][1:]))}
                new = _allowed(missing, used)
                refusals |= dict.fromkeys(missing - new, _TOO_MANY_NODES)
                if new:
                    await connection.execute(_REGISTER, [key.source_id for key in new], [key.name for key in new])
                    found |= await _find(connection, new)
                    if new - found.keys():
                        raise StoreUnavailableError("a source was deleted meanwhile; its messages are read again")
            nodes = {key: self._nodes[key] for key, state in found.items() if self._is_known(key, *state)}
            changed = {key: state[0] for key, state in found.items() if key not in nodes}
            if changed:
                histories = await read_histories(connection, changed.values())
                if any(node_id not in histories for node_id in changed.values()):
                    raise StoreUnavailableError("a source was deleted meanwhile; its messages are read again")
                for key, node_id in changed.items():
                    nodes[key] = self._nodes[key] = histories[node_id]
        for key in nodes:
            self._nodes.move_to_end(key)
        while len(self._nodes) > _REMEMBERED_NODES:
            self._nodes.popitem(last=False)
        return RegisteredEdgeNodes(nodes, refusals)

    def _is_known(self, key: EdgeNodeKey, node_id: int, changes: int) -> bool:
        known = self._nodes.get(key)
        return known is not None and (known.id, known.changes) == (node_id, changes)

    async def births(self, positions: Collection[BirthPosition]) -> dict[BirthPosition, Birth]:
        """See `births.BirthRegister.births`."""
        found = {position: self._births[position] for position in positions if position in self._births}
        missing = [position for position in positions if position not in found]
        if missing:
            async with self._database.connection() as connection:
                rows = await connection.fetch(
                    _CONTENTS,
                    [each.edge_node_id for each in missing],
                    [each.device for each in missing],
                    *(list(column) for column in zip(*(each.position for each in missing), strict=True)),
                )
            for row in rows:
                position = BirthPosition(row[0], row[1], Origin(*row[2:5]))
                found[position] = _decoder.decode(row[5])
        self._remember(found)
        return found

    def _remember(self, births: Mapping[BirthPosition, Birth]) -> None:
        for position, birth in births.items():
            if position not in self._births:
                self._metrics += len(birth.datatypes)
            self._births[position] = birth
            self._births.move_to_end(position)
        while self._metrics > _REMEMBERED_METRICS and len(self._births) > 1:
            self._metrics -= len(self._births.popitem(last=False)[1].datatypes)


def _no_room(births: int, size: int) -> Refusal | None:
    if births < MAX_BIRTHS and size < MAX_BYTES:
        return None
    return Refusal(
        Reason.LIMIT_REACHED,
        f"the source keeps {births:,} births and deaths of Sparkplug B with {size:,} bytes, and at most {MAX_BIRTHS:,} with {MAX_BYTES:,} bytes are"
        " kept; give groups of edge nodes a source each, then replay",
    )


_TOO_MANY_NODES: Final = Refusal(
    Reason.LIMIT_REACHED,
    f"the source has {MAX_EDGE_NODES:,} edge nodes of Sparkplug B, which is what one may have; give groups of edge nodes a source each, then replay",
)


def _allowed(missing: Collection[EdgeNodeKey], used: Mapping[int, tuple[int, int, int]]) -> set[EdgeNodeKey]:
    """Return those of new edge nodes for which their sources have room."""
    left = {source_id: MAX_EDGE_NODES - nodes for source_id, (nodes, _, _) in used.items()}
    allowed: set[EdgeNodeKey] = set()
    for key in sorted(missing):
        if left[key.source_id] > 0:
            left[key.source_id] -= 1
            allowed.add(key)
    return allowed


async def _used(connection: Connection, source_ids: Collection[int]) -> dict[int, tuple[int, int, int]]:
    """Return how many edge nodes, births and bytes sources have."""
    rows = await connection.fetch(_USED, list(source_ids))
    return dict.fromkeys(source_ids, (0, 0, 0)) | {row[0]: (row[1], row[2], row[3]) for row in rows}


async def _find(connection: Connection, keys: Collection[EdgeNodeKey]) -> dict[EdgeNodeKey, tuple[int, int]]:
    rows = await connection.fetch(_FIND, [key.source_id for key in keys], [key.name for key in keys])
    by_name = {(key.source_id, key.name): key for key in keys}
    return {by_name[row[0], row[1]]: (row[2], row[3]) for row in rows}


async def read_histories(connection: Connection, node_ids: Iterable[int]) -> dict[int, EdgeNode]:
    """Return edge nodes by their ids, those that exist."""
    announcements: dict[int, list[Announcement]] = {}
    changes: dict[int, int] = {}
    for row in await connection.fetch(_HISTORIES, list(node_ids)):
        changes[row[0]] = row[1]
        of_node = announcements.setdefault(row[0], [])
        if row[2] is not None:
            of_node.append(Announcement(Origin(*row[3:6]), row[2], row[6], row[7], row[8]))
    return {node_id: EdgeNode(node_id, changes[node_id], History(each)) for node_id, each in announcements.items()}
