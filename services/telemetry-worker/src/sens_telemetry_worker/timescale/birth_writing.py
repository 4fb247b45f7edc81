"""How births get into the database: in the transaction that stores their messages, or their dead letters."""

from collections import Counter
from collections.abc import Collection, Sequence
from typing import Final

import asyncpg
import msgspec

from sens_common.database import Connection
from sens_common.dead_letters import Reason
from sens_telemetry_worker.batch import BatchPart
from sens_telemetry_worker.births import NotedAnnouncement
from sens_telemetry_worker.storing import StoreUnavailableError

KEPT_BIRTHS: Final = 8
"""Births and deaths of a publisher that are kept, besides those whose followers may still come."""

# Whoever writes births, or letters that wait for some, locks the edge nodes first: a letter that waits and the birth that explains it never
# miss each other.
_LOCK: Final = "SELECT id, changes FROM sens.edge_nodes WHERE id = ANY($1) ORDER BY id FOR NO KEY UPDATE"
_ADD: Final = """
    INSERT INTO sens.births (edge_node_id, device, stream, sequence, number, is_birth, bd_seq, content)
    SELECT n.edge_node_id, n.device, n.stream, n.sequence, n.number, n.content IS NOT NULL, n.bd_seq, n.content
    FROM unnest($1::bigint[], $2::text[], $3::bigint[], $4::bigint[], $5::int[], $6::bigint[], $7::bytea[])
        AS n (edge_node_id, device, stream, sequence, number, bd_seq, content)
    ON CONFLICT DO NOTHING
    RETURNING edge_node_id, device, stream, sequence, number, coalesce(octet_length(content), 0) AS bytes
"""
_COUNT: Final = """
    UPDATE sens.edge_nodes e SET changes = e.changes + 1, births = e.births + n.births, bytes = e.bytes + n.bytes
    FROM unnest($1::bigint[], $2::int[], $3::bigint[]) AS n (id, births, bytes) WHERE e.id = n.id
"""
_FORGET: Final = """
    WITH ranked AS (
        SELECT b.edge_node_id, b.device, b.stream, b.sequence, b.number,
            row_number() OVER (PARTITION BY b.edge_node_id, b.device ORDER BY b.stream DESC, b.sequence DESC, b.number DESC) AS rank
        FROM unnest($1::bigint[], $2::text[]) AS touched (edge_node_id, device) JOIN sens.births b USING (edge_node_id, device)
        WHERE (b.stream, b.sequence) < ($3, $4)
    ), gone AS (
        DELETE FROM sens.births b USING ranked r
        WHERE r.rank > $5 AND (b.edge_node_id, b.device, b.stream, b.sequence, b.number)
            = (r.edge_node_id, r.device, r.stream, r.sequence, r.number)
        RETURNING b.edge_node_id, b.device, coalesce(octet_length(b.content), 0) AS bytes
    ), marked AS (
        UPDATE sens.births b SET follows_forgotten = true FROM ranked r
        WHERE r.rank = $5 AND NOT b.follows_forgotten
            AND (b.edge_node_id, b.device, b.stream, b.sequence, b.number) = (r.edge_node_id, r.device, r.stream, r.sequence, r.number)
            AND EXISTS (SELECT FROM gone g WHERE (g.edge_node_id, g.device) = (r.edge_node_id, r.device))
    )
    UPDATE sens.edge_nodes e SET births = e.births - g.births, bytes = e.bytes - g.bytes
    FROM (SELECT gone.edge_node_id, count(*) AS births, sum(gone.bytes) AS bytes FROM gone GROUP BY gone.edge_node_id) g
    WHERE e.id = g.edge_node_id
"""
_WAKE: Final = """
    INSERT INTO sens.birth_replays (edge_node_id, device, stream, sequence, number, topic)
    SELECT b.edge_node_id, b.device, b.stream, b.sequence, b.number, b.topic
    FROM unnest($1::bigint[], $2::text[], $3::bigint[], $4::bigint[], $5::int[], $6::text[], $7::int[])
        AS b (edge_node_id, device, stream, sequence, number, topic, tenant_id)
    WHERE EXISTS (
        SELECT FROM sens.dead_letters l
        WHERE l.tenant_id = b.tenant_id AND l.reason = 'unknown_alias' AND left(l.topic, 200) = left(b.topic, 200) AND l.topic = b.topic
    )
    ON CONFLICT DO NOTHING
"""
_encode: Final = msgspec.msgpack.Encoder().encode


async def write_births(connection: Connection, part: BatchPart) -> None:
    """Write what the messages of a part announce, and look that its letters that wait for births are right still.

    Args:
        connection: In the transaction of the part.
        part: Its messages' edge nodes are registered.

    Raises:
        StoreUnavailableError: Births came meanwhile that may explain a message, or a source is gone; interpret the messages again.
    """
    births = part.batch.interpreted.births
    if not births.noted and not births.waiting_for:
        return
    noted = [births.noted[index] for index in part.message_indexes.tolist() if index in births.noted]
    waiting = {
        births.waiting_for[each.message_index]
        for each in part.rejections
        if each.reason == Reason.UNKNOWN_ALIAS and each.message_index in births.waiting_for
    }
    ids = {each.edge_node_id for each in noted} | {each.edge_node_id for each in waiting}
    if not ids:
        return
    rows = await connection.fetch(_LOCK, list(ids))
    changes = {row["id"]: row["changes"] for row in rows}
    if ids - changes.keys():
        raise StoreUnavailableError("a source was deleted meanwhile; its messages are read again")
    if any(changes[each.edge_node_id] != each.changes for each in waiting):
        raise StoreUnavailableError("births came meanwhile; the messages that wait for them are read again")
    if noted:
        added = await connection.fetch(_ADD, *_columns(noted))
        if added:
            await _forget_and_wake(connection, added, noted, births.keep_from)


async def _forget_and_wake(
    connection: Connection,
    added: Collection[asyncpg.Record],
    noted: Collection[NotedAnnouncement],
    keep_from: tuple[int, int],
) -> None:
    """Count what was added, forget what is not needed any more, and wake the letters that waited."""
    counts: Counter[int] = Counter()
    sizes: Counter[int] = Counter()
    for row in added:
        counts[row["edge_node_id"]] += 1
        sizes[row["edge_node_id"]] += row["bytes"]
    await connection.execute(_COUNT, list(counts), list(counts.values()), [sizes[each] for each in counts])
    touched = sorted({(row["edge_node_id"], row["device"]) for row in added})
    await connection.execute(
        _FORGET, [each[0] for each in touched], [each[1] for each in touched], *keep_from, KEPT_BIRTHS
    )
    new = {tuple(row)[:5] for row in added}
    births = [each for each in noted if each.birth is not None and _key(each) in new]
    columns = [list(column) for column in zip(*map(_key, births), strict=True)] or [[] for _ in range(5)]
    topics, tenant_ids = [each.data_topic for each in births], [each.tenant_id for each in births]
    await connection.execute(_WAKE, *columns, topics, tenant_ids)


def _key(noted: NotedAnnouncement) -> tuple[int, str, int, int, int]:
    return (noted.edge_node_id, noted.announcement.device, *noted.announcement.position)


def _columns(noted: Sequence[NotedAnnouncement]) -> list[list[object]]:
    rows = [
        (*_key(each), each.announcement.bd_seq, None if each.birth is None else _encode(each.birth)) for each in noted
    ]
    return [list(column) for column in zip(*rows, strict=True)]
