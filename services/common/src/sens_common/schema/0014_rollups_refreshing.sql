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
