"""One step of a run: what messages of a device say now takes the place of what they had led to, in one transaction with how far the run is.

Its locks come in the order of `store`: the gate of the names, the run, the device, metric sets, readings, the gate of the rollups. What is
remembered of sets is remembered for the step alone.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np

from sens_common.database import Connection
from sens_common.dead_letters import Origin
from sens_telemetry_worker.codec_runs.judging import Judgement, Metric, Statement, Values, differences, judge
from sens_telemetry_worker.codec_runs.runs import ChangedMeanwhileError, DecodedFrame, Run, microseconds, moment
from sens_telemetry_worker.preparing import PreparedRows
from sens_telemetry_worker.rows import Reading, ReadingGroup, group_of
from sens_telemetry_worker.storing import StoreUnavailableError
from sens_telemetry_worker.tenants import Device, MetricSet, Refusal
from sens_telemetry_worker.timescale.codec_runs import lock_run, save_run
from sens_telemetry_worker.timescale.database import Database
from sens_telemetry_worker.timescale.late_readings import note_late
from sens_telemetry_worker.timescale.partitions import Partitions
from sens_telemetry_worker.timescale.readings import NoPartitionError, ReadingExistsError
from sens_telemetry_worker.timescale.row_writing import RowWriter
from sens_telemetry_worker.timescale.stored_readings import lock_devices

_GENERATION: Final = "SELECT generation FROM sens.name_generation"
_STORED: Final = """
    SELECT r.ts, r.numbers, r.texts, s.number_ids, s.text_ids
    FROM sens.readings r JOIN sens.metric_sets s ON s.id = r.metric_set_id
    WHERE r.device_id = $1 AND r.ts = ANY ($2) AND r.ts BETWEEN $3 AND $4
"""
_ROWS: Final = """
    SELECT f.ts, f.received_at, f.stream, f.sequence, f.number, f.metric_ids, NOT (f.stream = $5 AND f.sequence > $6) AS covered
    FROM sens.frames f WHERE f.device_id = $1 AND f.ts = ANY ($2) AND f.ts BETWEEN $3 AND $4
"""
_METRICS: Final = "SELECT id, name, kind FROM sens.metrics WHERE tenant_id = $1 AND id = ANY ($2)"
_IDS: Final = """
    SELECT m.id, m.name, m.kind FROM unnest($2::text[], $3::text[]) AS w (name, kind)
    JOIN sens.metrics m ON m.tenant_id = $1 AND m.name = w.name AND m.kind = w.kind
"""
_NEVER: Final = "SELECT metric_ids, first, past, received_before FROM sens.never_redecoded($1)"
_DELETED_METRICS: Final = "SELECT name, kind, deleted_at FROM sens.deleted_metrics WHERE tenant_id = $1"
_UPDATE_FRAMES: Final = """
    UPDATE sens.frames f SET metric_ids = string_to_array(w.metric_ids, ',')::int[], codec = w.codec, run_id = $2
    FROM unnest($3::timestamptz[], $4::bigint[], $5::bigint[], $6::int[], $7::text[], $8::text[])
        AS w (ts, stream, sequence, number, metric_ids, codec)
    WHERE f.device_id = $1 AND f.ts = w.ts AND f.stream = w.stream AND f.sequence = w.sequence AND f.number = w.number
"""
_TOUCHED: Final = "SELECT ts FROM sens.codec_run_times WHERE run_id = $1 AND ts = ANY ($2)"
_TOUCH: Final = "INSERT INTO sens.codec_run_times SELECT $1, unnest($2::timestamptz[]) ON CONFLICT DO NOTHING"
_UNCOVERED: Final = """
    SELECT r.ts, EXISTS (SELECT FROM sens.frames f WHERE f.device_id = $1 AND f.ts = r.ts)
        OR EXISTS (SELECT FROM sens.codec_run_times t WHERE t.run_id = $5 AND t.ts = r.ts) AS covered
    FROM sens.readings r WHERE r.device_id = $1 AND r.ts >= $2 AND r.ts < $3 ORDER BY r.ts LIMIT $4
"""
_FAR: Final = 1 << 62


class _Past(NamedTuple):
    """What of a device is not brought back: times in microseconds since the epoch.

    Attributes:
        metrics: Of which metrics, None: of all.
        first: Readings from this time on.
        past: And before this one.
        received_before: Of messages that were received before this.
    """

    metrics: frozenset[Metric] | None
    first: int
    past: int
    received_before: int

    def means(self, each: DecodedFrame) -> bool:
        """Tell whether it means what a message says of its time."""
        return self.first <= each.ts < self.past and each.received_at < self.received_before


class _Row(NamedTuple):
    """A row of a kept message."""

    origin: Origin
    received_at: int
    metric_ids: frozenset[int]
    is_covered: bool


class _Stored(NamedTuple):
    """What the database has at the times of a step.

    Attributes:
        values: By time and metric.
        kept: Rows of kept messages by time.
        names: Of metrics that exist, by their ids.
    """

    values: Mapping[int, Mapping[int, float | str]]
    kept: Mapping[int, list[_Row]]
    names: Mapping[int, Metric]

    def named(self, metric_ids: Iterable[int]) -> frozenset[Metric]:
        """Return metrics by their names, those that exist."""
        return frozenset(self.names[metric_id] for metric_id in metric_ids if metric_id in self.names)

    def at(self, ts: int) -> dict[Metric, float | str]:
        """Return what is stored at a time."""
        return {self.names[id_]: value for id_, value in self.values.get(ts, {}).items() if id_ in self.names}


class _Step(NamedTuple):
    """What a step has to write.

    Attributes:
        target: The values to be stored by time, where they differ from what is.
        kept: What accepted kept messages have led to then: time, origin, metrics.
    """

    target: dict[int, Values]
    kept: list[tuple[int, Origin, frozenset[Metric]]]


class Redecoder:
    """The readings of devices."""

    def __init__(self, database: Database, partitions: Partitions) -> None:
        self._database = database
        self._partitions = partitions

    async def step(
        self, run: Run, device: Device, decoded: Sequence[DecodedFrame], generation: int, *, are_kept: bool
    ) -> None:
        """Judge what messages say, store it unless it is a dry run, and keep how far the run is; its report is added to.

        Args:
            run: With the progress after the step.
            device: Its device.
            decoded: All messages of some times that the run covers.
            generation: Of names, under which the device was looked up.
            are_kept: Whether they are kept messages, or such of the stream that were not kept.

        Raises:
            RunLostError: The run is not ours any more.
            ChangedMeanwhileError: Do the step again.
            StoreUnavailableError: The same.
        """
        await self._partitions.ensure(np.array([each.ts for each in decoded], np.int64))
        async with self._database.connection() as connection, connection.transaction():
            if await connection.fetchval(_GENERATION) != generation:
                raise ChangedMeanwhileError
            await lock_run(connection, run)
            if run.kind == "redecode":
                await lock_devices(connection, {device.id})
                if await connection.fetchval("SELECT sens.is_arriving($1)", device.id):
                    raise StoreUnavailableError(
                        f"the history of device {device.name} is still being moved to its tenant"
                    )
            if decoded:
                step = await _judge(connection, run, device, decoded, are_kept=are_kept)
                if run.kind == "redecode":
                    try:
                        await _write(connection, run, device, step)
                    except (ReadingExistsError, NoPartitionError) as error:
                        self._partitions.forget()
                        raise ChangedMeanwhileError from error
            await save_run(connection, run)

    async def coverage(self, run: Run, device: Device, most: int) -> None:
        """Count the readings that no message was found for, of the next ones; the run goes on behind them, or is at its end."""
        progress = run.progress
        async with self._database.connection() as connection, connection.transaction():
            await lock_run(connection, run)
            rows = await connection.fetch(
                _UNCOVERED, device.id, moment(progress.reached), moment(run.past), most, run.id
            )
            for ts, covered in rows:
                at = microseconds(ts)
                if not covered:
                    run.report.add_uncovered(at, at, 1, continues=progress.uncovered)
                progress.uncovered = not covered
            progress.reached = microseconds(rows[-1]["ts"]) + 1 if len(rows) == most else run.past
            await save_run(connection, run)


async def _judge(
    connection: Connection, run: Run, device: Device, decoded: Sequence[DecodedFrame], *, are_kept: bool
) -> _Step:
    stored = await _read(connection, run, device, sorted({each.ts for each in decoded}))
    gone = await _gone(connection, device)
    touched = set() if are_kept else await _touched(connection, run, decoded)
    step = _Step({}, [])
    by_time: dict[int, list[DecodedFrame]] = {}
    for each in decoded:
        by_time.setdefault(each.ts, []).append(each)
    for ts, frames in by_time.items():
        rows = {row.origin: row for row in stored.kept.get(ts, ())}
        covered = {row.origin for row in rows.values() if row.is_covered}
        if are_kept and not covered <= {each.origin for each in frames}:
            raise ChangedMeanwhileError
        before = stored.at(ts)
        usable = [
            (each, statement)
            for each in frames
            if (statement := _statement(each, rows.get(each.origin), before, stored, gone, is_touched=ts in touched))
        ]
        own = {each.origin for each, _ in usable}
        others = [row.metric_ids for row in rows.values() if row.origin not in own]
        judgement = judge(
            before, [statement for _, statement in usable], stored.named(id_ for ids in others for id_ in ids)
        )
        _report(run, ts, usable, before, judgement)
        if judgement.values != before:
            step.target[ts] = judgement.values
        for (each, statement), refusal in zip(usable, judgement.refusals, strict=True):
            if each.origin in rows and refusal is None and not isinstance(statement.values, Refusal):
                step.kept.append((ts, each.origin, frozenset(statement.values)))
    if not are_kept:
        await connection.execute(_TOUCH, run.id, [moment(ts) for ts in by_time if ts in stored.values])
    return step


def _statement(
    each: DecodedFrame,
    row: _Row | None,
    before: Values,
    stored: _Stored,
    gone: Sequence[_Past],
    *,
    is_touched: bool,
) -> Statement | None:
    """Return what a message had led to and says now, without what is not brought back; None where nothing is left.

    Of a message that was not kept it is looked which candidate says what is stored; one of which nothing is stored was not stored.
    """
    hidden: set[Metric] = set()
    for past in gone:
        if past.means(each):
            if past.metrics is None:
                return None
            hidden |= past.metrics
    values = each.values
    if not isinstance(values, Refusal):
        values = {metric: value for metric, value in values.items() if metric not in hidden}
    if row is not None:
        led = stored.named(row.metric_ids)
    elif not before:
        return None
    else:
        led = _led_to(each, values, before, is_touched=is_touched)
    return Statement(led - hidden, values)


def _led_to(each: DecodedFrame, values: Values | Refusal, before: Values, *, is_touched: bool) -> frozenset[Metric]:
    """Return of which metrics a message that was not kept had led to values, as far as one can tell."""
    candidates = (*(() if isinstance(values, Refusal) else (values,)), *each.former)
    for candidate in candidates:
        if candidate and all(before.get(metric) == value for metric, value in candidate.items()):
            return frozenset(candidate)
    # A profile that has changed since: what it says now of a metric takes the place of what is stored, once.
    return frozenset() if is_touched or isinstance(values, Refusal) else frozenset(values)


def _report(
    run: Run,
    ts: int,
    usable: Sequence[tuple[DecodedFrame, Statement]],
    before: Values,
    judgement: Judgement,
) -> None:
    report, changed = run.report, differences(before, judgement.values)
    for difference in changed:
        report.add_difference(ts, difference)
    metrics = {difference.metric for difference in changed}
    for (each, statement), refusal in zip(usable, judgement.refusals, strict=True):
        report.counts.messages += 1
        if refusal is not None:
            report.counts.failed += 1
            report.add_error(ts, each.received_at, each.origin, refusal)
        elif metrics & (
            statement.before | (frozenset() if isinstance(statement.values, Refusal) else frozenset(statement.values))
        ):
            report.counts.changed += 1
        else:
            report.counts.unchanged += 1


async def _read(connection: Connection, run: Run, device: Device, times: Sequence[int]) -> _Stored:
    moments = [moment(ts) for ts in times]
    within = moments, moments[0], moments[-1]
    values: dict[int, dict[int, float | str]] = {}
    for ts, numbers, texts, number_ids, text_ids in await connection.fetch(_STORED, device.id, *within):
        elements = zip((*number_ids, *text_ids), (*(numbers or ()), *(texts or ())), strict=True)
        values[microseconds(ts)] = {metric_id: value for metric_id, value in elements if value is not None}
    kept: dict[int, list[_Row]] = {}
    for row in await connection.fetch(_ROWS, device.id, *within, run.progress.stream, run.progress.until):
        origin = Origin(row["stream"], row["sequence"], row["number"])
        kept.setdefault(microseconds(row["ts"]), []).append(
            _Row(origin, microseconds(row["received_at"]), frozenset(row["metric_ids"]), row["covered"])
        )
    ids = {id_ for each in values.values() for id_ in each} | {
        id_ for rows in kept.values() for row in rows for id_ in row.metric_ids
    }
    names = await connection.fetch(_METRICS, device.tenant.id, list(ids))
    return _Stored(values, kept, {row["id"]: (row["name"], row["kind"]) for row in names})


async def _gone(connection: Connection, device: Device) -> list[_Past]:
    rows = await connection.fetch(_NEVER, device.id)
    ids = {metric_id for row in rows for metric_id in row["metric_ids"] or ()}
    metrics = await connection.fetch(_METRICS, device.tenant.id, list(ids))
    names = {row["id"]: (row["name"], row["kind"]) for row in metrics}
    found = [
        _Past(
            None if metric_ids is None else frozenset(names[each] for each in metric_ids if each in names),
            *map(microseconds, times),
        )
        for metric_ids, *times in rows
    ]
    deleted = await connection.fetch(_DELETED_METRICS, device.tenant.id)
    return found + [_Past(frozenset([(name, kind)]), -_FAR, _FAR, microseconds(at)) for name, kind, at in deleted]


async def _touched(connection: Connection, run: Run, decoded: Sequence[DecodedFrame]) -> set[int]:
    rows = await connection.fetch(_TOUCHED, run.id, [moment(each.ts) for each in decoded])
    return {microseconds(row["ts"]) for row in rows}


async def _write(connection: Connection, run: Run, device: Device, step: _Step) -> None:
    """Store what the step has found, and note its hours."""
    metrics = {metric for values in step.target.values() for metric in values} | {
        metric for _, _, of_message in step.kept for metric in of_message
    }
    ids = await _ids(connection, device.tenant.id, metrics)
    if step.target:
        await _write_readings(connection, run, device, step.target, ids)
    if step.kept:
        columns = zip(
            *(
                (moment(ts), *origin, ",".join(str(ids[metric]) for metric in sorted(led)), str(run.codec))
                for ts, origin, led in step.kept
            ),
            strict=True,
        )
        await connection.execute(_UPDATE_FRAMES, device.id, run.id, *map(list, columns))


async def _write_readings(
    connection: Connection, run: Run, device: Device, target: Mapping[int, Values], ids: Mapping[Metric, int]
) -> None:
    times = [moment(ts) for ts in sorted(target)]
    found = await connection.fetch(
        "SELECT ts FROM sens.readings WHERE device_id = $1 AND ts = ANY ($2) AND ts BETWEEN $3 AND $4",
        device.id, times, times[0], times[-1],
    )  # fmt: skip
    stored = {microseconds(row["ts"]) for row in found}
    inserts = _groups(device, {ts: values for ts, values in target.items() if values and ts not in stored}, ids)
    updates = _groups(device, {ts: values for ts, values in target.items() if values and ts in stored}, ids)
    gone = [ts for ts, values in target.items() if not values]
    await connection.execute("SET LOCAL timescaledb.max_tuples_decompressed_per_dml_transaction = 0")
    await RowWriter().put(connection, PreparedRows(inserts, updates, {}, np.zeros(0, np.int64)))
    if gone:
        deleted = await connection.fetchval(
            "SELECT sens.delete_redecoded($1, $2, $3)", run.id, device.id, [moment(ts) for ts in gone]
        )
        if deleted != len(gone):
            raise ReadingExistsError
    watermark = await connection.fetchval("SELECT watermark FROM sens.rollup_state")
    await note_late(connection, [*inserts, *updates, *_emptied(device, gone)], watermark)


def _groups(device: Device, target: Mapping[int, Values], ids: Mapping[Metric, int]) -> list[ReadingGroup]:
    by_set: dict[MetricSet, list[Reading]] = {}
    for ts, values in sorted(target.items()):
        texts = [ids[metric] for metric in values if metric[1] == "text"]
        numbers = [ids[metric] for metric in values if metric[1] != "text"]
        by_id = {ids[metric]: value for metric, value in values.items()}
        by_set.setdefault(MetricSet.of(device.tenant.id, numbers, texts), []).append(Reading(0, device.id, ts, by_id))
    return [group_of(metric_set, readings).sorted() for metric_set, readings in by_set.items()]


def _emptied(device: Device, times: Collection[int]) -> list[ReadingGroup]:
    """Return readings without values as a group, so that their hours are noted."""
    nothing = MetricSet(device.tenant.id, (), ())
    return [group_of(nothing, [Reading(0, device.id, ts, {}) for ts in times])] if times else []


async def _ids(connection: Connection, tenant_id: int, metrics: Collection[Metric]) -> dict[Metric, int]:
    """Return the ids of metrics.

    Raises:
        ChangedMeanwhileError: One is not there any more.
    """
    wanted = sorted(metrics)
    rows = await connection.fetch(_IDS, tenant_id, [name for name, _ in wanted], [kind for _, kind in wanted])
    found: dict[Metric, int] = {(row["name"], row["kind"]): row["id"] for row in rows}
    if len(found) < len(wanted):
        raise ChangedMeanwhileError
    return found
