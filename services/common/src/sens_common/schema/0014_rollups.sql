-- Rollups: for each device and metric the aggregates of an hour and of a day (UTC), of numbers and booleans. Texts have none.
--
-- In every snapshot: for an hour before rollup_progress.filled_until that no row of rollup_changes covers, the rows of rollup_1h are the
-- aggregates of the readings. The same holds of whole days and rollup_1d. An hour that is older than readings are kept is an exception:
-- it stays as it was when they went.
--
-- How: a transaction that changes readings reads rollup_state, the gate, before its commit; the watermark stays where it is until then.
-- What it changed before the watermark, it notes in rollup_changes. The refresher locks the gate only to move the watermark, and reads the
-- hours before it afterwards. So it finds each reading there, or a note of it.

DO $migration$
DECLARE
    on_timescaledb boolean := (SELECT kind FROM sens.storage) = 'timescaledb';
    columns text := $$ (
        device_id int NOT NULL,
        metric_id int NOT NULL,
        -- When the hour or day begins.
        ts timestamptz NOT NULL,
        count bigint NOT NULL,
        -- NULL: a value is beyond 1e290, and the sum, or one of several such sums, may be more than a float8 holds.
        sum float8,
        min float8 NOT NULL,
        max float8 NOT NULL,
        -- The values at the earliest and at the latest time.
        first float8 NOT NULL,
        last float8 NOT NULL,
        PRIMARY KEY (device_id, metric_id, ts)
    )$$;
BEGIN
    EXECUTE 'CREATE TABLE sens.rollup_1h' || columns || CASE WHEN on_timescaledb THEN '' ELSE ' PARTITION BY RANGE (ts)' END;
    EXECUTE 'CREATE TABLE sens.rollup_1d' || columns;
    IF on_timescaledb THEN
        PERFORM create_hypertable('sens.rollup_1h', by_range('ts', INTERVAL '30 days'), create_default_indexes => false);
        PERFORM create_hypertable('sens.rollup_1d', by_range('ts', INTERVAL '360 days'), create_default_indexes => false);
        IF current_setting('timescaledb.license', true) = 'timescale'
            AND EXISTS (SELECT FROM pg_proc WHERE proname = 'add_columnstore_policy')
        THEN
            ALTER TABLE sens.rollup_1h SET (
                timescaledb.enable_columnstore, timescaledb.segmentby = 'device_id, metric_id', timescaledb.orderby = 'ts'
            );
            ALTER TABLE sens.rollup_1d SET (
                timescaledb.enable_columnstore, timescaledb.segmentby = 'device_id, metric_id', timescaledb.orderby = 'ts'
            );
            CALL add_columnstore_policy('sens.rollup_1h', after => INTERVAL '60 days');
            CALL add_columnstore_policy('sens.rollup_1d', after => INTERVAL '720 days');
        END IF;
    END IF;
END
$migration$;

-- The gate. Hours before the watermark are in the rollups, or will be when the refresher comes to them.
CREATE TABLE sens.rollup_state (watermark timestamptz NOT NULL);
CREATE UNIQUE INDEX ON sens.rollup_state ((true));
INSERT INTO sens.rollup_state SELECT date_bin('1 hour', coalesce(min(r.ts), now()), timestamptz 'epoch') FROM sens.readings r;
GRANT SELECT ON sens.rollup_state TO sens_worker;

-- How far the refresher is. Who holds the lock of the row is the one that works.
CREATE TABLE sens.rollup_progress (
    -- Hours before it are in the rollups.
    filled_until timestamptz NOT NULL,
    -- The hours from there up to this time are being added; devices up to this one are done.
    filling_until timestamptz,
    after_device_id int NOT NULL DEFAULT 0,
    -- Readings before it may be gone, because they are not kept for longer; NULL: all are there.
    raw_complete_since timestamptz
) WITH (fillfactor = 50);
CREATE UNIQUE INDEX ON sens.rollup_progress ((true));
INSERT INTO sens.rollup_progress (filled_until) SELECT watermark FROM sens.rollup_state;

-- Hours of devices whose readings have changed after they were added.
CREATE TABLE sens.rollup_changes (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    device_id int NOT NULL,
    first timestamptz NOT NULL,
    past timestamptz NOT NULL CHECK (past > first),
    noted_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX ON sens.rollup_changes (device_id);

-- Notes that readings of devices, from a time on and before another, were stored, deleted, moved or changed. Whoever changes readings calls
-- it in the same transaction, before or after the change. It notes nothing of hours that are not in the rollups yet.
CREATE FUNCTION sens.note_changes(devices int[], firsts timestamptz[], pasts timestamptz[]) RETURNS void
    LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    BEGIN ATOMIC
        INSERT INTO sens.rollup_changes (device_id, first, past)
        SELECT n.device_id, date_bin('1 hour', n.first, timestamptz 'epoch'),
            least(s.watermark, date_bin('1 hour', n.past + interval '1 hour' - interval '1 microsecond', timestamptz 'epoch'))
        FROM sens.rollup_state s, unnest(devices, firsts, pasts) AS n (device_id, first, past)
        WHERE n.first < n.past AND n.first < s.watermark;
    END;
-- The same of whole hours, as numbers since 1970.
CREATE FUNCTION sens.note_hours(devices int[], firsts int[], pasts int[]) RETURNS void
    LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    BEGIN ATOMIC
        INSERT INTO sens.rollup_changes (device_id, first, past)
        SELECT n.device_id, timestamptz 'epoch' + n.first * interval '1 hour',
            least(s.watermark, timestamptz 'epoch' + n.past * interval '1 hour')
        FROM sens.rollup_state s, unnest(devices, firsts, pasts) AS n (device_id, first, past)
        WHERE n.first < n.past AND timestamptz 'epoch' + n.first * interval '1 hour' < s.watermark;
    END;
-- The same of one device.
CREATE FUNCTION sens.note_changed(device int, first timestamptz, past timestamptz) RETURNS void
    LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    BEGIN ATOMIC
        SELECT sens.note_changes(ARRAY[device], ARRAY[first], ARRAY[past]);
    END;

-- Since when all readings of a device are there; hours before are never computed again. NULL: since ever.
CREATE FUNCTION sens.raw_complete_since(device int) RETURNS timestamptz
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
    RETURN (SELECT raw_complete_since FROM sens.rollup_progress);

-- Whether the rollups hold all that the readings of a device before a time say. Whoever deletes readings because of their age asks it
-- first, in the same transaction, and raises what sens.raw_complete_since answers.
CREATE FUNCTION sens.rollups_complete(device int, before timestamptz) RETURNS boolean
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
    RETURN (SELECT filled_until >= before FROM sens.rollup_progress)
        AND NOT EXISTS (SELECT FROM sens.rollup_changes c WHERE c.device_id = device AND c.first < before);

-- Makes the partitions of rollup_1h, one a year, that hold the times from `first` to `last`; on plain PostgreSQL.
CREATE FUNCTION sens.ensure_rollup_partitions(first timestamptz, last timestamptz) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET timezone = 'UTC'
AS $$
DECLARE
    year timestamptz := date_trunc('year', first);
    partition text;
BEGIN
    IF (SELECT kind FROM sens.storage) <> 'postgresql' THEN
        RETURN;
    END IF;
    WHILE year <= last LOOP
        partition := to_char(year, '"rollup_1h_"YYYY');
        IF to_regclass(format('sens.%I', partition)) IS NULL THEN
            LOCK TABLE sens.partition_gate IN EXCLUSIVE MODE;
            IF NOT EXISTS (SELECT FROM pg_class WHERE relnamespace = 'sens'::regnamespace AND relname = partition) THEN
                EXECUTE format('CREATE TABLE sens.%I (LIKE sens.rollup_1h INCLUDING ALL)', partition);
                EXECUTE format(
                    'ALTER TABLE sens.rollup_1h ATTACH PARTITION sens.%I FOR VALUES FROM (%L) TO (%L)',
                    partition, year, year + interval '1 year'
                );
            END IF;
        END IF;
        year := year + interval '1 year';
    END LOOP;
END
$$;

-- The query of aggregates of hours, for readings with so many numbers; those of a metric that is in several sets come several times.
-- A column for each number is five times as fast as a row for each.
CREATE FUNCTION sens.rollup_query(fewest int, most int) RETURNS text
    LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT format(
        $query$
        SELECT g.device_id, s.number_ids[p.i] AS metric_id, g.ts, p.count, p.sum, p.min, p.max,
            coalesce(earliest.ts, g.first_ts) AS first_ts, coalesce(earliest.value, f.numbers[p.i]) AS first,
            coalesce(latest.ts, g.last_ts) AS last_ts, coalesce(latest.value, l.numbers[p.i]) AS last
        FROM (
            SELECT span.device_id, hour.*
            FROM span CROSS JOIN LATERAL (
                SELECT r.metric_set_id, r.hour AS ts, min(r.ts) AS first_ts, max(r.ts) AS last_ts,
                    ARRAY[%1$s] AS counts, ARRAY[%2$s] AS sums, ARRAY[%3$s] AS mins, ARRAY[%4$s] AS maxs
                FROM (
                    SELECT r.metric_set_id, r.ts, date_bin('1 hour', r.ts, timestamptz 'epoch') AS hour, %5$s
                    FROM sens.readings r
                    WHERE r.device_id = span.device_id AND r.ts >= span.first AND r.ts < span.past AND r.ts >= $4 AND r.ts < $5
                        AND cardinality(r.numbers) BETWEEN %6$s AND %7$s
                    ORDER BY r.ts OFFSET 0
                ) r
                GROUP BY r.metric_set_id, r.hour
            ) hour
        ) g
        JOIN sens.metric_sets s ON s.id = g.metric_set_id
        CROSS JOIN LATERAL (
            SELECT r.numbers FROM sens.readings r
            WHERE r.device_id = g.device_id AND r.ts = g.first_ts AND r.ts >= $4 AND r.ts < $5 OFFSET 0
        ) f
        CROSS JOIN LATERAL (
            SELECT r.numbers FROM sens.readings r
            WHERE r.device_id = g.device_id AND r.ts = g.last_ts AND r.ts >= $4 AND r.ts < $5 OFFSET 0
        ) l
        CROSS JOIN LATERAL unnest(g.counts, g.sums, g.mins, g.maxs) WITH ORDINALITY AS p (count, sum, min, max, i)
        LEFT JOIN LATERAL (
            SELECT r.ts, r.numbers[p.i] AS value FROM sens.readings r
            WHERE f.numbers[p.i] IS NULL AND r.device_id = g.device_id AND r.ts > g.first_ts AND r.ts <= g.last_ts
                AND r.ts >= $4 AND r.ts < $5 AND r.metric_set_id = g.metric_set_id AND r.numbers[p.i] IS NOT NULL
            ORDER BY r.ts LIMIT 1
        ) earliest ON true
        LEFT JOIN LATERAL (
            SELECT r.ts, r.numbers[p.i] AS value FROM sens.readings r
            WHERE l.numbers[p.i] IS NULL AND r.device_id = g.device_id AND r.ts >= g.first_ts AND r.ts < g.last_ts
                AND r.ts >= $4 AND r.ts < $5 AND r.metric_set_id = g.metric_set_id AND r.numbers[p.i] IS NOT NULL
            ORDER BY r.ts DESC LIMIT 1
        ) latest ON true
        WHERE p.count > 0
        $query$,
        string_agg(format('count(r.v%s)', i), ', ' ORDER BY i),
        string_agg(format('sum(r.v%1$s) FILTER (WHERE r.v%1$s BETWEEN -1e290 AND 1e290)', i), ', ' ORDER BY i),
        string_agg(format('min(r.v%s)', i), ', ' ORDER BY i),
        string_agg(format('max(r.v%s)', i), ', ' ORDER BY i),
        string_agg(format('r.numbers[%1$s] AS v%1$s', i), ', ' ORDER BY i),
        fewest, most
    )
    FROM generate_series(1, most) AS i
$$;

-- The same for readings with more numbers than that.
CREATE FUNCTION sens.wide_rollup_query(fewest int) RETURNS text
    LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT format(
        $query$
        SELECT r.device_id, r.metric_id, r.hour, count(*), sum(r.value) FILTER (WHERE r.value BETWEEN -1e290 AND 1e290),
            min(r.value), max(r.value), min(r.ts), (array_agg(r.value ORDER BY r.ts))[1],
            max(r.ts), (array_agg(r.value ORDER BY r.ts DESC))[1]
        FROM (
            SELECT span.device_id, v.metric_id, date_bin('1 hour', r.ts, timestamptz 'epoch') AS hour, r.ts, v.value
            FROM span CROSS JOIN LATERAL (
                SELECT r.metric_set_id, r.ts, r.numbers FROM sens.readings r
                WHERE r.device_id = span.device_id AND r.ts >= span.first AND r.ts < span.past AND r.ts >= $4 AND r.ts < $5
                    AND cardinality(r.numbers) >= %s
                ORDER BY r.ts OFFSET 0
            ) r
            JOIN sens.metric_sets s ON s.id = r.metric_set_id
            CROSS JOIN LATERAL unnest(s.number_ids, r.numbers) AS v (metric_id, value)
            WHERE v.value IS NOT NULL
        ) r
        GROUP BY r.device_id, r.metric_id, r.hour
        $query$,
        fewest
    )
$$;

CREATE TYPE sens.rollup_key AS (device_id int, metric_id int, ts timestamptz);

-- The numbers and booleans that a device has had.
CREATE FUNCTION sens.numbers_of_device(device int) RETURNS TABLE (metric_id int)
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
    BEGIN ATOMIC
        SELECT DISTINCT n.id
        FROM sens.device_metric_sets d JOIN sens.metric_sets s ON s.id = d.metric_set_id CROSS JOIN LATERAL unnest(s.number_ids) AS n (id)
        WHERE d.device_id = device;
    END;

-- Computes hours of devices again, and the days among `complete_until` that they belong to. Only the refresher may be at it, and one at a
-- time. The stretches of a device do not overlap, and begin and end with hours.
CREATE FUNCTION sens.compute_rollups(devices int[], firsts timestamptz[], pasts timestamptz[], complete_until timestamptz) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET timezone = 'UTC'
    SET jit = off SET enable_sort = off
AS $$
DECLARE
    lower_bound timestamptz := (SELECT min(f) FROM unnest(firsts) AS f);
    upper_bound timestamptz := (SELECT max(p) FROM unnest(pasts) AS p);
    first_day timestamptz := date_bin('1 day', lower_bound, timestamptz 'epoch');
    past_day timestamptz := date_bin(
        '1 day', least(complete_until, upper_bound + interval '1 day' - interval '1 microsecond'), timestamptz 'epoch'
    );
    parts text;
    gone sens.rollup_key[];
    key sens.rollup_key;
BEGIN
    IF cardinality(devices) = 0 THEN
        RETURN;
    END IF;
    -- Late readings may lie in the columnstore.
    PERFORM set_config('timescaledb.max_tuples_decompressed_per_dml_transaction', '0', true);
    PERFORM sens.ensure_rollup_partitions(lower_bound, upper_bound - interval '1 microsecond');
    SELECT string_agg(
        CASE WHEN size.most IS NULL THEN sens.wide_rollup_query(65) ELSE sens.rollup_query(size.fewest, size.most) END, ' UNION ALL '
    )
    INTO parts
    FROM (
        -- Sets of about the same size are computed together.
        SELECT min(n) AS fewest, CASE WHEN step IS NOT NULL THEN (n + step - 1) / step * step END AS most
        FROM (
            SELECT DISTINCT cardinality(s.number_ids) AS n
            FROM sens.device_metric_sets d JOIN sens.metric_sets s ON s.id = d.metric_set_id
            WHERE d.device_id = ANY (devices) AND s.number_ids <> '{}'
        ) sizes
        CROSS JOIN LATERAL (SELECT CASE WHEN n <= 8 THEN 1 WHEN n <= 16 THEN 4 WHEN n <= 32 THEN 8 WHEN n <= 64 THEN 16 END) AS c (step)
        GROUP BY 2
    ) size;
    IF parts IS NULL THEN
        RETURN;
    END IF;
    -- What is there and has no reading any more is returned, so that it is deleted by its key.
    EXECUTE format(
        $query$
        WITH span AS MATERIALIZED (
            SELECT s.device_id, s.first, s.past FROM unnest($1::int[], $2::timestamptz[], $3::timestamptz[]) AS s (device_id, first, past)
        ), part (device_id, metric_id, ts, count, sum, min, max, first_ts, first, last_ts, last) AS (
            %s
        ), fresh AS MATERIALIZED (
            SELECT p.device_id, p.metric_id, p.ts, sum(p.count)::bigint AS count,
                CASE WHEN min(p.min) >= -1e290 AND max(p.max) <= 1e290 THEN sum(p.sum) END AS sum, min(p.min) AS min, max(p.max) AS max,
                (array_agg(p.first ORDER BY p.first_ts))[1] AS first, (array_agg(p.last ORDER BY p.last_ts DESC))[1] AS last
            FROM part p
            WHERE EXISTS (SELECT FROM sens.metrics m WHERE m.id = p.metric_id)
            GROUP BY p.device_id, p.metric_id, p.ts
        ), written AS (
            INSERT INTO sens.rollup_1h AS r SELECT * FROM fresh ORDER BY device_id, metric_id, ts
            ON CONFLICT (device_id, metric_id, ts) DO UPDATE
                SET count = excluded.count, sum = excluded.sum, min = excluded.min, max = excluded.max,
                    first = excluded.first, last = excluded.last
                WHERE (r.count, r.sum, r.min, r.max, r.first, r.last)
                    IS DISTINCT FROM (excluded.count, excluded.sum, excluded.min, excluded.max, excluded.first, excluded.last)
        )
        SELECT array_agg((r.device_id, r.metric_id, r.ts)::sens.rollup_key)
        FROM span
        CROSS JOIN LATERAL sens.numbers_of_device(span.device_id) AS n (metric_id)
        CROSS JOIN LATERAL (
            SELECT r.device_id, r.metric_id, r.ts FROM sens.rollup_1h r
            WHERE r.device_id = span.device_id AND r.metric_id = n.metric_id AND r.ts >= span.first AND r.ts < span.past
                AND r.ts >= $4 AND r.ts < $5
            OFFSET 0
        ) r
        WHERE NOT EXISTS (SELECT FROM fresh f WHERE (f.device_id, f.metric_id, f.ts) = (r.device_id, r.metric_id, r.ts))
        $query$,
        parts
    ) INTO gone USING devices, firsts, pasts, lower_bound, upper_bound;
    FOREACH key IN ARRAY coalesce(gone, '{}') LOOP
        DELETE FROM sens.rollup_1h r WHERE r.device_id = key.device_id AND r.metric_id = key.metric_id AND r.ts = key.ts;
    END LOOP;
    IF first_day >= past_day THEN
        RETURN;
    END IF;
    WITH day AS MATERIALIZED (
        SELECT DISTINCT s.device_id, d.ts
        FROM unnest(devices, firsts, pasts) AS s (device_id, first, past)
        CROSS JOIN LATERAL generate_series(
            date_bin('1 day', s.first, timestamptz 'epoch'), least(s.past, past_day) - interval '1 microsecond', interval '1 day'
        ) AS d (ts)
    ), series AS MATERIALIZED (
        SELECT day.device_id, n.metric_id, day.ts FROM day CROSS JOIN LATERAL sens.numbers_of_device(day.device_id) AS n (metric_id)
    ), fresh AS MATERIALIZED (
        SELECT s.device_id, s.metric_id, s.ts, d.count, d.sum, d.min, d.max, d.first, d.last
        FROM series s
        CROSS JOIN LATERAL (
            SELECT sum(h.count)::bigint AS count, CASE WHEN count(*) = count(h.sum) THEN sum(h.sum) END AS sum,
                min(h.min) AS min, max(h.max) AS max,
                (array_agg(h.first ORDER BY h.ts))[1] AS first, (array_agg(h.last ORDER BY h.ts DESC))[1] AS last
            FROM (
                SELECT * FROM sens.rollup_1h h
                WHERE h.device_id = s.device_id AND h.metric_id = s.metric_id AND h.ts >= s.ts AND h.ts < s.ts + interval '1 day'
                    AND h.ts >= first_day AND h.ts < past_day
                OFFSET 0
            ) h
        ) d
        WHERE d.count IS NOT NULL
    ), written AS (
        INSERT INTO sens.rollup_1d AS r SELECT * FROM fresh ORDER BY device_id, metric_id, ts
        ON CONFLICT (device_id, metric_id, ts) DO UPDATE
            SET count = excluded.count, sum = excluded.sum, min = excluded.min, max = excluded.max,
                first = excluded.first, last = excluded.last
            WHERE (r.count, r.sum, r.min, r.max, r.first, r.last)
                IS DISTINCT FROM (excluded.count, excluded.sum, excluded.min, excluded.max, excluded.first, excluded.last)
    )
    SELECT array_agg((r.device_id, r.metric_id, r.ts)::sens.rollup_key)
    INTO gone
    FROM series s
    CROSS JOIN LATERAL (
        SELECT r.device_id, r.metric_id, r.ts FROM sens.rollup_1d r
        WHERE r.device_id = s.device_id AND r.metric_id = s.metric_id AND r.ts = s.ts AND r.ts >= first_day AND r.ts < past_day
        OFFSET 0
    ) r
    WHERE NOT EXISTS (SELECT FROM fresh f WHERE (f.device_id, f.metric_id, f.ts) = (r.device_id, r.metric_id, r.ts));
    FOREACH key IN ARRAY coalesce(gone, '{}') LOOP
        DELETE FROM sens.rollup_1d r WHERE r.device_id = key.device_id AND r.metric_id = key.metric_id AND r.ts = key.ts;
    END LOOP;
END
$$;
