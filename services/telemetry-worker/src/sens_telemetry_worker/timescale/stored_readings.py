"""Looks up what is stored for the keys of readings."""

from typing import Final

import numpy as np

from sens_common.database import Connection
from sens_telemetry_worker.preparing import ReadingKey, StoredReading
from sens_telemetry_worker.rows import Rows
from sens_telemetry_worker.timescale.binary_copy import POSTGRES_EPOCH_MICROSECONDS, SIGNATURE, TRAILER, copy_to
from sens_telemetry_worker.timescale.metric_sets import MetricSets, SetContents

_KEY: Final = np.dtype(
    [
        ("fields", ">i2"),
        ("device_bytes", ">i4"),
        ("device_id", ">i4"),
        ("ts_bytes", ">i4"),
        ("ts", ">i8"),
        ("index_bytes", ">i4"),
        ("index", ">i4"),
    ]
)
_STAGE: Final = """
    CREATE TEMPORARY TABLE IF NOT EXISTS staged_keys (device_id int, ts timestamptz, index int) ON COMMIT DELETE ROWS
"""
_WEEKS: Final = "SELECT min(ts), max(ts) FROM staged_keys GROUP BY date_bin('7 days', ts, 'epoch')"
# The planner knows nothing of the temporary table's size. One look-up by the key for each row is always right, which OFFSET makes it do: a
# join would read a columnstore chunk from end to end for each row. The week leaves it one chunk or two, which TimescaleDB would else choose
# for each row among all.
_LOOK_UP: Final = """
    SELECT s.index, r.metric_set_id, r.numbers, r.texts
    FROM staged_keys s CROSS JOIN LATERAL (
        SELECT metric_set_id, numbers, texts FROM sens.readings r
        WHERE r.device_id = s.device_id AND r.ts = s.ts AND r.ts BETWEEN $1 AND $2
        OFFSET 0
    ) r
    WHERE s.ts BETWEEN $1 AND $2
"""
_LOCK: Final = "SELECT FROM sens.devices WHERE id = ANY ($1) ORDER BY id FOR NO KEY UPDATE"


async def read_stored(connection: Connection, rows: Rows, sets: MetricSets) -> dict[ReadingKey, StoredReading]:
    """Return what is stored for the keys of some readings, in a transaction."""
    if not rows.groups:
        return {}
    keys = np.unique(np.concatenate([_keys(group.device_id, group.measured_at) for group in rows.groups]))
    await connection.execute(_STAGE)
    await connection.execute("DELETE FROM staged_keys")
    await copy_to(connection, "staged_keys", ["device_id", "ts", "index"], _copy_bytes(keys))
    found = [row for week in await connection.fetch(_WEEKS) for row in await connection.fetch(_LOOK_UP, *week)]
    contents = await sets.contents(connection, {row["metric_set_id"] for row in found})
    devices, times = keys["device_id"].tolist(), keys["measured_at"].tolist()
    return {
        (devices[row["index"]], times[row["index"]]): _stored(
            contents[row["metric_set_id"]], row["numbers"], row["texts"]
        )
        for row in found
    }


async def lock_devices(connection: Connection, device_ids: set[int]) -> None:
    """Lock devices until the end of the transaction: nobody else changes their stored readings."""
    await connection.fetch(_LOCK, sorted(device_ids))


def _stored(contents: SetContents, numbers: list[float | None] | None, texts: list[str | None] | None) -> StoredReading:
    existing = {*contents.existing.number_ids, *contents.existing.text_ids}
    ids = (*contents.whole.number_ids, *contents.whole.text_ids)
    return StoredReading(
        contents.existing,
        {
            metric_id: value
            for metric_id, value in zip(ids, (*(numbers or ()), *(texts or ())), strict=True)
            if value is not None and metric_id in existing
        },
    )


_STORED_KEY: Final = np.dtype([("device_id", np.int32), ("measured_at", np.int64)])


def _keys(
    device_id: "np.typing.NDArray[np.int32]", measured_at: "np.typing.NDArray[np.int64]"
) -> "np.typing.NDArray[np.void]":
    keys = np.empty(len(device_id), _STORED_KEY)
    keys["device_id"], keys["measured_at"] = device_id, measured_at
    return keys


def _copy_bytes(keys: "np.typing.NDArray[np.void]") -> bytes:
    table = np.empty(len(keys), _KEY)
    table["fields"] = 3
    table["device_bytes"] = table["index_bytes"] = 4
    table["ts_bytes"] = 8
    table["device_id"] = keys["device_id"]
    table["ts"] = keys["measured_at"] - POSTGRES_EPOCH_MICROSECONDS
    table["index"] = np.arange(len(keys))
    return SIGNATURE + table.tobytes() + TRAILER
