"""Keeps historical values of Sparkplug B from becoming the latest ones, in the transaction that stores them: see migration 0023.

A live value that another worker stores at the same moment may be overlooked: the latest value is the live one before it then, until the next.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final, NamedTuple

import numpy as np

from sens_common.database import Connection
from sens_common.formats import KINDS
from sens_telemetry_worker.batch import BatchPart
from sens_telemetry_worker.tenants import UplinkReading
from sens_telemetry_worker.timescale.stored_readings import lock_devices

_NEVER: Final = datetime.min.replace(tzinfo=UTC)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_HOLDS: Final = (
    "SELECT device_id, metric_id, live_until, historical_until FROM sens.latest_holds WHERE device_id = ANY ($1)"
)
_NEWEST: Final = "SELECT device_id, metric_id, ts FROM sens.newest_times($1, $2)"
_HOLD: Final = """
    INSERT INTO sens.latest_holds AS h (device_id, metric_id, live_until, historical_until)
    SELECT * FROM unnest($1::int[], $2::int[], $3::timestamptz[], $4::timestamptz[]) AS n ORDER BY 1, 2
    ON CONFLICT (device_id, metric_id) DO UPDATE SET live_until = excluded.live_until, historical_until = excluded.historical_until
"""

type _Series = tuple[int, int]
"""A device's id and a metric's."""


class Hold(NamedTuple):
    """Of a series: up to when live values are known, `_NEVER` without one, and up to when historical ones are; what lies between is historical."""

    live_until: datetime
    historical_until: datetime


class HoldsBefore(NamedTuple):
    """What is known of series before a part is stored.

    Attributes:
        readings: Of the part's messages of Sparkplug B.
        holds: Of series of their devices.
        newest: Times of the newest values of series with a historical one among the readings.
    """

    readings: Sequence[UplinkReading]
    holds: Mapping[_Series, Hold]
    newest: Mapping[_Series, datetime]


async def read_holds(connection: Connection, part: BatchPart) -> HoldsBefore | None:
    """Look what has to be known before a part is stored; None where it can't change what the latest values are.

    Where there are historical values, the part's devices are locked: all at once and in their order, for some of them are locked again where rows collide.
    """
    readings = _readings(part)
    if not readings:
        return None
    historical = any(reading.is_historical for reading in readings)
    if historical:
        await lock_devices(
            connection, {each for group in part.rows.groups for each in np.unique(group.device_id).tolist()}
        )
    rows = await connection.fetch(_HOLDS, list({reading.device.id for reading in readings}))
    if not historical and not rows:
        return None
    series = sorted({each for reading in readings if reading.is_historical for each in _series(reading)})
    newest = await connection.fetch(_NEWEST, [each[0] for each in series], [each[1] for each in series])
    return HoldsBefore(
        readings,
        {(row[0], row[1]): Hold(row[2] or _NEVER, row[3]) for row in rows},
        {(row[0], row[1]): row[2] for row in newest},
    )


async def write_holds(connection: Connection, before: HoldsBefore | None, conflicting: Collection[int]) -> None:
    """Keep what the latest values are, in the transaction that has stored a part.

    Args:
        connection: In the transaction.
        before: See `read_holds`.
        conflicting: Indexes of messages of which nothing is stored.
    """
    if before is None:
        return
    live: dict[_Series, list[datetime]] = {}
    historical: dict[_Series, list[datetime]] = {}
    for reading in before.readings:
        if reading.message_index not in conflicting:
            times = historical if reading.is_historical else live
            for series in _series(reading):
                times.setdefault(series, []).append(_EPOCH + reading.measured_at * datetime.resolution)
    changed: list[tuple[int, int, datetime | None, datetime]] = []
    for series in sorted(historical.keys() | (live.keys() & before.holds.keys())):
        known = before.holds.get(series)
        after = hold(known, before.newest.get(series), live.get(series, ()), historical.get(series, ()))
        if after is not None and after != known:
            changed.append((*series, None if after.live_until == _NEVER else after.live_until, after.historical_until))
    if changed:
        await connection.execute(_HOLD, *(list(column) for column in zip(*changed, strict=True)))


def hold(
    before: Hold | None, newest: datetime | None, live: Collection[datetime], historical: Collection[datetime]
) -> Hold | None:
    """Return the hold of a series when values are added to it; None where it needs none.

    Args:
        before: The hold so far.
        newest: The time of the newest value so far; of a series to which no historical value is added it need not be known.
        live: Times of the live values that are added.
        historical: Times of the historical ones.
    """
    if before is None:
        live_until = max(live, default=_NEVER) if newest is None else max([newest, *live])
        historical_until = max(historical, default=_NEVER)
        return Hold(live_until, historical_until) if historical_until > live_until else None
    # A value behind the historical ones is live, whoever has stored it.
    later = [] if newest is None or newest <= before.historical_until else [newest]
    live_until = max([before.live_until, *later, *live])
    historical_until = max([before.historical_until, *historical])
    if historical_until > live_until:
        return Hold(live_until, historical_until)
    within = [time for time in live if time <= before.historical_until]
    return before._replace(live_until=max([before.live_until, *within]))


def _readings(part: BatchPart) -> list[UplinkReading]:
    """Return the readings of messages of Sparkplug B that a part stores."""
    interpreted = part.batch.interpreted
    sparkplug = interpreted.births.device_names
    if not sparkplug:
        return []
    stored = set(part.message_indexes.tolist()) - {each.message_index for each in part.rejections}
    return [
        reading
        for reading in interpreted.uplink_readings
        if reading.message_index in sparkplug and reading.message_index in stored
    ]


def _series(reading: UplinkReading) -> list[_Series]:
    ids = reading.device.tenant.metric_ids
    return [(reading.device.id, ids[KINDS[type(value)]][name]) for name, value in reading.values.items()]
