-- Rollups are computed from what is there: an hour whose readings may be gone because of their age stays as it is, metric by metric. A day is
-- made of hours, so it is computed again as long as these are there, or when all of its hours are computed from their readings.

-- Computes hours of devices again, and the days among `complete_until` that they belong to. Only the refresher may be at it, and one at a
-- time. The stretches of a device do not overlap, and begin and end with hours.
CREATE OR REPLACE FUNCTION sens.compute_rollups(devices int[], firsts timestamptz[], pasts timestamptz[], complete_until timestamptz) RETURNS void
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
    raw_since CONSTANT timestamptz := (SELECT p.raw_complete_since FROM sens.rollup_progress p);
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
        WITH asked AS (
            SELECT s.device_id, s.past, greatest(s.first, date_bin(
                '1 hour',
                greatest(e.before, (SELECT p.raw_complete_since FROM sens.rollup_progress p)) + interval '1 hour' - interval '1 microsecond', 'epoch'
            )) AS first
            FROM unnest($1::int[], $2::timestamptz[], $3::timestamptz[]) AS s (device_id, first, past)
                LEFT JOIN sens.expired e ON e.device_id = s.device_id AND e.kind = 'raw' AND e.metric_id = 0
        ), span AS MATERIALIZED (
            SELECT a.device_id, a.first, a.past FROM asked a WHERE a.first < a.past
        ), old AS MATERIALIZED (
            SELECT e.device_id, e.metric_id, e.before FROM sens.expired e WHERE e.device_id = ANY ($1) AND e.kind = 'raw' AND e.metric_id <> 0
        ), part (device_id, metric_id, ts, count, sum, min, max, first_ts, first, last_ts, last) AS (
            %s
        ), fresh AS MATERIALIZED (
            SELECT p.device_id, p.metric_id, p.ts, sum(p.count)::bigint AS count,
                CASE WHEN min(p.min) >= -1e290 AND max(p.max) <= 1e290 THEN sum(p.sum) END AS sum, min(p.min) AS min, max(p.max) AS max,
                (array_agg(p.first ORDER BY p.first_ts))[1] AS first, (array_agg(p.last ORDER BY p.last_ts DESC))[1] AS last
            FROM part p LEFT JOIN old o ON o.device_id = p.device_id AND o.metric_id = p.metric_id
            WHERE EXISTS (SELECT FROM sens.metrics m WHERE m.id = p.metric_id) AND (o.before IS NULL OR p.ts >= o.before)
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
        LEFT JOIN old o ON o.device_id = r.device_id AND o.metric_id = r.metric_id
        WHERE (o.before IS NULL OR r.ts >= o.before)
            AND NOT EXISTS (SELECT FROM fresh f WHERE (f.device_id, f.metric_id, f.ts) = (r.device_id, r.metric_id, r.ts))
        $query$,
        parts
    ) INTO gone USING devices, firsts, pasts, lower_bound, upper_bound;
    FOREACH key IN ARRAY coalesce(gone, '{}') LOOP
        DELETE FROM sens.rollup_1h r WHERE r.device_id = key.device_id AND r.metric_id = key.metric_id AND r.ts = key.ts;
    END LOOP;
    IF first_day >= past_day THEN
        RETURN;
    END IF;
    WITH old AS MATERIALIZED (
        SELECT e.device_id, e.metric_id, max(e.before) FILTER (WHERE e.kind = 'raw') AS raw, max(e.before) FILTER (WHERE e.kind = 'rollup_1h') AS hours
        FROM sens.expired e WHERE e.device_id = ANY (devices) AND e.kind IN ('raw', 'rollup_1h') GROUP BY e.device_id, e.metric_id
    ), day AS MATERIALIZED (
        SELECT s.device_id, d.ts, bool_or(s.first <= d.ts AND s.past >= d.ts + interval '1 day') AS is_whole
        FROM unnest(devices, firsts, pasts) AS s (device_id, first, past)
        CROSS JOIN LATERAL generate_series(
            date_bin('1 day', s.first, timestamptz 'epoch'), least(s.past, past_day) - interval '1 microsecond', interval '1 day'
        ) AS d (ts)
        GROUP BY s.device_id, d.ts
    ), series AS MATERIALIZED (
        SELECT day.device_id, n.metric_id, day.ts
        FROM day CROSS JOIN LATERAL sens.numbers_of_device(day.device_id) AS n (metric_id)
            LEFT JOIN old o ON o.device_id = day.device_id AND o.metric_id = n.metric_id
            LEFT JOIN old a ON a.device_id = day.device_id AND a.metric_id = 0
        WHERE day.ts >= coalesce(greatest(o.hours, a.hours), '-infinity')
            OR (day.is_whole AND day.ts >= coalesce(greatest(o.raw, a.raw, raw_since), '-infinity'))
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

-- Computes again what was changed, of at most so many changes and days of devices, or fewer hours of each: 'worked'; 'idle' when there is
-- nothing; 'busy' when another refresher works. A day whose hours may be gone because of their age is computed as a whole.
CREATE OR REPLACE FUNCTION sens.apply_rollup_changes(most int, hours int) RETURNS text
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
        SELECT c.id, c.device_id, c.past, c.first < old.hours AS by_day,
            CASE WHEN c.first < old.hours THEN date_bin('1 day', c.first, timestamptz 'epoch') ELSE c.first END AS first,
            CASE
                WHEN c.first < old.hours THEN date_bin('1 day', c.past + interval '1 day' - interval '1 microsecond', timestamptz 'epoch')
                ELSE c.past
            END AS whole_past
        FROM sens.rollup_changes c
            -- More than those are gone by the next midnight.
            CROSS JOIN LATERAL (
                SELECT max(e.before) + interval '1 day' FROM sens.expired e WHERE e.device_id = c.device_id AND e.kind = 'rollup_1h'
            ) AS old (hours)
        WHERE c.first < filled
        ORDER BY c.id LIMIT most
    ), piece AS MATERIALIZED (
        SELECT t.id, t.device_id, t.first, t.past, least(
            t.whole_past, filled, CASE
                WHEN hours < 24 AND t.by_day IS NOT TRUE THEN t.first + hours * interval '1 hour'
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
