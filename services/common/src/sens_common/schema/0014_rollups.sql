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

-- Moves the watermark up to a time, once nobody is at the gate: 'worked'; 'idle' when it is there already; 'busy' when another refresher
-- works, or somebody was at the gate for too long.
CREATE FUNCTION sens.move_rollup_watermark(up_to timestamptz) RETURNS text
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '100ms'
AS $$
DECLARE
    hour timestamptz := date_bin('1 hour', up_to, timestamptz 'epoch');
BEGIN
    PERFORM FROM sens.rollup_progress FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN 'busy';
    ELSIF (SELECT watermark >= hour FROM sens.rollup_state) THEN
        RETURN 'idle';
    END IF;
    LOCK TABLE sens.rollup_state IN ACCESS EXCLUSIVE MODE;
    UPDATE sens.rollup_state SET watermark = hour;
    RETURN 'worked';
EXCEPTION
    WHEN lock_not_available THEN
        RETURN 'busy';
END
$$;

-- Adds the next hours before the watermark, of the next devices, at most so many: 'worked'; 'idle' when all are added; 'busy' when another
-- refresher works. Once all devices have the same hours, it goes on with the next ones, at most so many and those of one day; `again`
-- begins with fewer hours, because those of a single device take too long.
CREATE FUNCTION sens.add_rollups(device_count int, hours int, again boolean) RETURNS text
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET timezone = 'UTC'
AS $$
DECLARE
    progress sens.rollup_progress;
    watermark timestamptz;
    day date;
    devices int[];
BEGIN
    SELECT * INTO progress FROM sens.rollup_progress FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN 'busy';
    END IF;
    SELECT s.watermark INTO watermark FROM sens.rollup_state s;
    IF progress.filled_until >= watermark THEN
        RETURN 'idle';
    END IF;
    IF progress.filling_until IS NULL OR again THEN
        progress.filling_until := least(
            watermark, progress.filled_until + hours * interval '1 hour',
            date_bin('1 day', progress.filled_until, timestamptz 'epoch') + interval '1 day'
        );
        progress.after_device_id := 0;
    END IF;
    day := progress.filled_until::date;
    SELECT array_agg(d.device_id) INTO devices
    FROM (
        SELECT DISTINCT s.device_id FROM sens.device_metric_sets s
        WHERE s.device_id > progress.after_device_id AND s.first_day <= day AND s.last_day >= day
        ORDER BY s.device_id
        LIMIT device_count
    ) d;
    IF devices IS NOT NULL THEN
        PERFORM sens.compute_rollups(
            devices, array_fill(progress.filled_until, ARRAY[cardinality(devices)]),
            array_fill(progress.filling_until, ARRAY[cardinality(devices)]), progress.filling_until
        );
        progress.after_device_id := (SELECT max(d) FROM unnest(devices) AS d);
    END IF;
    IF coalesce(cardinality(devices), 0) < device_count THEN
        progress.filled_until := progress.filling_until;
        progress.filling_until := NULL;
        progress.after_device_id := 0;
    END IF;
    UPDATE sens.rollup_progress SET
        filled_until = progress.filled_until, filling_until = progress.filling_until, after_device_id = progress.after_device_id;
    RETURN 'worked';
END
$$;

-- Computes again what was changed, of at most so many changes and days of devices, or fewer hours of each: 'worked'; 'idle' when there is
-- nothing; 'busy' when another refresher works.
CREATE FUNCTION sens.apply_rollup_changes(most int, hours int) RETURNS text
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET timezone = 'UTC'
AS $$
DECLARE
    filled timestamptz;
    devices int[];
    firsts timestamptz[];
    pasts timestamptz[];
    found_any boolean;
BEGIN
    SELECT filled_until INTO filled FROM sens.rollup_progress FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN 'busy';
    END IF;
    WITH taken AS MATERIALIZED (
        -- Hours whose readings may be gone stay as they are.
        SELECT c.id, c.device_id, c.past, greatest(
            c.first, date_bin('1 hour', complete.since + interval '1 hour' - interval '1 microsecond', timestamptz 'epoch')
        ) AS first
        FROM sens.rollup_changes c CROSS JOIN LATERAL (SELECT sens.raw_complete_since(c.device_id)) AS complete (since)
        WHERE c.first < filled
        ORDER BY c.id LIMIT most
    ), piece AS MATERIALIZED (
        SELECT t.id, t.device_id, t.first, t.past, least(
            t.past, filled, CASE
                WHEN hours < 24 THEN t.first + hours * interval '1 hour'
                ELSE date_bin('1 day', t.first, timestamptz 'epoch') + interval '1 day' * greatest(1, most / (SELECT count(*) FROM taken))
            END
        ) AS done
        FROM taken t
    ), finished AS (
        DELETE FROM sens.rollup_changes c USING piece p WHERE c.id = p.id AND p.done >= p.past
    ), shortened AS (
        UPDATE sens.rollup_changes c SET first = greatest(p.first, p.done) FROM piece p WHERE c.id = p.id AND p.done < p.past
    ), united AS (
        SELECT p.device_id, unnest(range_agg(tstzrange(p.first, p.done))) AS hours FROM piece p WHERE p.first < p.done GROUP BY p.device_id
    )
    SELECT EXISTS (SELECT FROM taken), coalesce(array_agg(u.device_id), '{}'), array_agg(lower(u.hours)), array_agg(upper(u.hours))
    INTO found_any, devices, firsts, pasts
    FROM united u;
    PERFORM sens.compute_rollups(devices, firsts, pasts, filled);
    RETURN CASE WHEN found_any THEN 'worked' ELSE 'idle' END;
END
$$;

-- Deletes rollups of a device, of all its metrics or of one, whose hour or day begins in a time range: at most so many rows of each table
-- at a time; returns how many went, 0 at the end. The name, or the readings, must be deleted before: the last step waits for a refresher
-- that may have seen them.
CREATE FUNCTION sens.delete_rollups(device int, metric int, first timestamptz, past timestamptz, most int) RETURNS int
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    target text;
    of_metric int;
    following timestamptz;
    remaining int;
    deleted int;
    total int := 0;
    is_last boolean := false;
BEGIN
    PERFORM set_config('timescaledb.max_tuples_decompressed_per_dml_transaction', '0', true);
    LOOP
        FOREACH target IN ARRAY ARRAY['rollup_1h', 'rollup_1d'] LOOP
            remaining := most;
            of_metric := coalesce(metric, -2147483648);
            LOOP
                EXECUTE format(
                    'SELECT metric_id FROM sens.%I WHERE device_id = $1 AND metric_id >= $2 AND ts >= $3 AND ts < $4'
                    ' ORDER BY metric_id LIMIT 1', target
                ) INTO of_metric USING device, of_metric, first, past;
                EXIT WHEN of_metric IS NULL OR of_metric <> metric OR remaining <= 0;
                EXECUTE format(
                    'SELECT ts FROM sens.%I WHERE device_id = $1 AND metric_id = $2 AND ts >= $3 AND ts < $4'
                    ' ORDER BY ts OFFSET $5 LIMIT 1', target
                ) INTO following USING device, of_metric, first, past, remaining;
                EXECUTE format('DELETE FROM sens.%I WHERE device_id = $1 AND metric_id = $2 AND ts >= $3 AND ts < $4', target)
                    USING device, of_metric, first, coalesce(following, past);
                GET DIAGNOSTICS deleted = ROW_COUNT;
                remaining := remaining - deleted;
                total := total + deleted;
            END LOOP;
        END LOOP;
        IF total > 0 OR is_last THEN
            RETURN total;
        END IF;
        PERFORM FROM sens.rollup_progress FOR SHARE;
        is_last := true;
    END LOOP;
END
$$;

-- Where the aggregates of a series are read, so that they are exact: stretches that do not overlap, each with its source: days (1d), hours
-- (1h) or readings (raw), the coarsest that buckets of such a width allow. What the rollups lack is read from the readings; so are, where
-- `exact`, hours whose sum is not known, as long as their readings are there.
CREATE FUNCTION sens.bucket_sources(
    device int, metric int, first timestamptz, past timestamptz, width interval, origin timestamptz, exact boolean
) RETURNS TABLE (source text, starts timestamptz, ends timestamptz)
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    asked CONSTANT tstzmultirange := tstzmultirange(tstzrange(first, past));
    by_hour CONSTANT boolean := extract(epoch FROM width)::numeric % 3600 = 0 AND extract(epoch FROM origin)::numeric % 3600 = 0;
    by_day CONSTANT boolean := extract(epoch FROM width)::numeric % 86400 = 0 AND extract(epoch FROM origin)::numeric % 86400 = 0;
    filled timestamptz;
    lacking tstzmultirange;
    hours tstzmultirange := '{}';
    days tstzmultirange := '{}';
BEGIN
    IF by_hour THEN
        SELECT p.filled_until INTO filled FROM sens.rollup_progress p;
        IF sens.has_former_rows(device) THEN
            filled := least(filled, date_bin('1 hour', sens.former_rows_from(device), timestamptz 'epoch'));
        END IF;
        SELECT coalesce(range_agg(tstzrange(c.first, c.past)), '{}') INTO lacking
        FROM sens.rollup_changes c
        WHERE c.device_id = device AND c.first < bucket_sources.past AND c.past > bucket_sources.first;
        IF exact THEN
            SELECT lacking + coalesce(range_agg(tstzrange(r.ts, r.ts + interval '1 hour')), '{}') INTO lacking
            FROM sens.rollup_1h r
            WHERE r.device_id = device AND r.metric_id = metric AND r.ts >= bucket_sources.first AND r.ts < bucket_sources.past
                AND r.sum IS NULL AND r.ts >= coalesce(sens.raw_complete_since(device), '-infinity');
        END IF;
        IF (SELECT count(*) FROM unnest(lacking)) > 8 THEN
            lacking := tstzmultirange(range_merge(lacking));
        END IF;
        hours := asked * tstzmultirange(tstzrange(NULL, filled)) - lacking;
        SELECT coalesce(range_agg(h.whole), '{}') INTO hours
        FROM unnest(hours) AS o (open) CROSS JOIN LATERAL (SELECT sens.whole_range(o.open, '1 hour')) AS h (whole);
        IF by_day THEN
            SELECT coalesce(range_agg(d.whole), '{}') INTO days
            FROM unnest(hours) AS h (hour) CROSS JOIN LATERAL (SELECT sens.whole_range(h.hour, '1 day')) AS d (whole);
        END IF;
    END IF;
    RETURN QUERY
        SELECT s.source, lower(s.stretch), upper(s.stretch)
        FROM (
            SELECT '1d', unnest(days) UNION ALL SELECT '1h', unnest(hours - days) UNION ALL SELECT 'raw', unnest(asked - hours)
        ) AS s (source, stretch)
        ORDER BY 2;
END
$$;

-- The whole hours or days (UTC) of a range.
CREATE FUNCTION sens.whole_range(range tstzrange, width interval) RETURNS tstzrange
    LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp
    BEGIN ATOMIC
        SELECT CASE WHEN e.starts < e.ends THEN tstzrange(e.starts, e.ends) ELSE 'empty' END
        FROM (
            SELECT date_bin(width, lower(range) + width - interval '1 microsecond', timestamptz 'epoch') AS starts,
                date_bin(width, upper(range), timestamptz 'epoch') AS ends
        ) e;
    END;

-- The first bucket of a series that has values, or the last; NULL without one.
CREATE FUNCTION sens.first_bucket(
    device int, metric int, first timestamptz, past timestamptz, width interval, origin timestamptz, descending boolean
) RETURNS timestamptz
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp SET enable_sort = off SET enable_bitmapscan = off
AS $$
DECLARE
    raw CONSTANT text := sens.page_statement(device, metric, 'number', descending);
    stretch record;
    found timestamptz;
BEGIN
    IF NOT sens.owns_device(device) OR NOT EXISTS (SELECT FROM sens.metrics m WHERE m.id = metric) THEN
        RETURN NULL;
    END IF;
    FOR stretch IN
        SELECT * FROM sens.bucket_sources(device, metric, first, past, width, origin, false) s
        ORDER BY CASE WHEN descending THEN past - s.starts ELSE s.starts - first END
    LOOP
        IF stretch.source <> 'raw' THEN
            EXECUTE format(
                'SELECT ts FROM sens.%I WHERE device_id = $1 AND metric_id = $2 AND ts >= $3 AND ts < $4 ORDER BY ts %s LIMIT 1',
                'rollup_' || stretch.source, CASE WHEN descending THEN 'DESC' END
            ) INTO found USING device, metric, stretch.starts, stretch.ends;
        ELSIF raw IS NOT NULL THEN
            EXECUTE raw INTO found USING stretch.starts, stretch.ends, 1;
        END IF;
        IF found IS NOT NULL THEN
            RETURN date_bin(width, found, origin);
        END IF;
    END LOOP;
    RETURN NULL;
END
$$;

REVOKE EXECUTE ON FUNCTION sens.note_changes(int[], timestamptz[], timestamptz[]), sens.note_hours(int[], int[], int[]),
    sens.note_changed(int, timestamptz, timestamptz),
    sens.raw_complete_since(int), sens.rollups_complete(int, timestamptz), sens.ensure_rollup_partitions(timestamptz, timestamptz),
    sens.rollup_query(int, int), sens.wide_rollup_query(int), sens.numbers_of_device(int),
    sens.compute_rollups(int[], timestamptz[], timestamptz[], timestamptz), sens.move_rollup_watermark(timestamptz),
    sens.add_rollups(int, int, boolean), sens.apply_rollup_changes(int, int), sens.delete_rollups(int, int, timestamptz, timestamptz, int),
    sens.bucket_sources(int, int, timestamptz, timestamptz, interval, timestamptz, boolean), sens.whole_range(tstzrange, interval),
    sens.first_bucket(int, int, timestamptz, timestamptz, interval, timestamptz, boolean) FROM public;
GRANT SELECT ON sens.rollup_progress, sens.rollup_changes TO sens_worker;
GRANT EXECUTE ON FUNCTION sens.note_hours(int[], int[], int[]), sens.move_rollup_watermark(timestamptz),
    sens.add_rollups(int, int, boolean), sens.apply_rollup_changes(int, int) TO sens_worker;
GRANT EXECUTE ON FUNCTION sens.first_bucket(int, int, timestamptz, timestamptz, interval, timestamptz, boolean) TO sens_api;
