-- How the API reads: functions that check the tenant and hold the range and the limit inside, so that a request costs what it returns.
-- They read sens.readings, and the tables with a row a value while there are any.
--
-- Statements are planned with the values of their arguments: the planner then opens the partitions of the range alone, where a plan for
-- all values would lock and open each partition that there is.

-- Whether values of a device may be in the tables with a row a value.
CREATE FUNCTION sens.has_former_rows(device int) RETURNS boolean
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
    RETURN to_regclass('sens.measurements') IS NOT NULL;
-- From which time on values of such a device are read there.
CREATE FUNCTION sens.former_rows_from(device int) RETURNS timestamptz
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
    RETURN '-infinity'::timestamptz;

-- The statements that select the values of a series as (ts, value), one for each form of rows in which the device may have some; their
-- parameters $1 and $2 are the range. `kind` is number (booleans too) or text. None when there is no such series.
CREATE FUNCTION sens.series_statements(device int, metric int, kind text) RETURNS text[]
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    elements CONSTANT text := CASE kind WHEN 'text' THEN 'texts' ELSE 'numbers' END;
    former CONSTANT text := CASE kind WHEN 'text' THEN 'text_measurements' ELSE 'measurements' END;
    sets int[];
    indexes int[];
    first date;
    last date;
    element text;
    statements text[] := '{}';
BEGIN
    IF NOT EXISTS (SELECT FROM sens.metrics m WHERE m.id = metric) THEN
        RETURN statements;
    END IF;
    -- Where the metric's values are in the rows of each set that has it, and between which days such rows lie.
    SELECT array_agg(f.id), array_agg(f.index), min(f.first_day), max(f.last_day) INTO sets, indexes, first, last
    FROM (
        SELECT x.id, s.first_day, s.last_day,
            array_position(CASE kind WHEN 'text' THEN x.text_ids ELSE x.number_ids END, metric) AS index
        FROM sens.device_metric_sets s JOIN sens.metric_sets x ON x.id = s.metric_set_id
        WHERE s.device_id = device
    ) f
    WHERE f.index IS NOT NULL;
    IF sets IS NOT NULL THEN
        element := CASE
            WHEN indexes[1] = ALL (indexes) THEN format('r.%I[%s]', elements, indexes[1])
            ELSE format('r.%I[(%L::int[])[array_position(%L::int[], r.metric_set_id)]]', elements, indexes, sets)
        END;
        statements := statements || format(
            'SELECT r.ts, %1$s AS value FROM sens.readings r WHERE r.device_id = %2$s AND r.metric_set_id = ANY (%3$L::int[])'
            ' AND r.ts >= greatest($1, %4$L) AND r.ts < least($2, %5$L) AND %1$s IS NOT NULL',
            element, device, sets, first::timestamp AT TIME ZONE 'UTC', (last + 1)::timestamp AT TIME ZONE 'UTC'
        );
    END IF;
    IF sens.has_former_rows(device) THEN
        statements := statements || format(
            'SELECT m.ts, m.value FROM sens.%I m WHERE m.device_id = %s AND m.metric_id = %s AND m.ts >= greatest($1, %L) AND m.ts < $2',
            former, device, metric, sens.former_rows_from(device)
        );
    END IF;
    RETURN statements;
END
$$;

-- The statement for a page of a series; its parameter $3 is the number of rows. NULL when there is no such series.
CREATE FUNCTION sens.page_statement(device int, metric int, kind text, descending boolean) RETURNS text
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
    BEGIN ATOMIC
        SELECT 'SELECT v.ts, v.value FROM (' || string_agg(format('(%s ORDER BY 1 %s LIMIT $3)', s.statement, o.direction), ' UNION ALL ')
            || format(') v ORDER BY 1 %s LIMIT $3', o.direction)
        FROM unnest(sens.series_statements(device, metric, kind)) s(statement),
            (SELECT CASE WHEN descending THEN 'DESC' ELSE 'ASC' END AS direction) o
        GROUP BY o.direction;
    END;

-- The times between which the values of a series are. In the tables with a row a value they may be anywhere.
CREATE FUNCTION sens.series_range(device int, metric int, kind text, OUT first timestamptz, OUT past timestamptz)
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF sens.has_former_rows(device) THEN
        first := '-infinity';
        past := 'infinity';
        RETURN;
    END IF;
    SELECT min(s.first_day)::timestamp AT TIME ZONE 'UTC', (max(s.last_day) + 1)::timestamp AT TIME ZONE 'UTC' INTO first, past
    FROM sens.device_metric_sets s JOIN sens.metric_sets x ON x.id = s.metric_set_id
    WHERE s.device_id = device AND metric = ANY (CASE kind WHEN 'text' THEN x.text_ids ELSE x.number_ids END);
END
$$;

-- The first values of a series in a range, `most` at most, as rows of page_statement. It looks into longer and longer stretches of the
-- range, so that the planner opens few partitions where the values of a page are close together.
CREATE FUNCTION sens.series_page(
    device int, metric int, kind text, first timestamptz, past timestamptz, descending boolean, most int
) RETURNS TABLE (ts timestamptz, number float8, string text)
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET enable_sort = off SET enable_bitmapscan = off
AS $$
DECLARE
    range CONSTANT record := sens.series_range(device, metric, kind);
    statement CONSTANT text := format(
        'SELECT p.ts, %s FROM (%s) p',
        CASE kind WHEN 'text' THEN 'NULL::float8, p.value' ELSE 'p.value, NULL::text' END,
        sens.page_statement(device, metric, kind, descending)
    );
    start timestamptz := greatest(first, range.first);
    stop timestamptz := least(past, range.past);
    -- NULL: all at once.
    width interval := CASE WHEN isfinite(start) AND isfinite(stop) THEN interval '768 hours' END;
    missing int := most;
    found int;
BEGIN
    IF range.first IS NULL OR NOT EXISTS (SELECT FROM sens.metrics m WHERE m.id = metric) THEN
        RETURN;
    END IF;
    WHILE start < stop AND missing > 0 LOOP
        IF descending THEN
            RETURN QUERY EXECUTE statement USING greatest(start, stop - width), stop, missing;
            stop := stop - width;
        ELSE
            RETURN QUERY EXECUTE statement USING start, least(stop, start + width), missing;
            start := start + width;
        END IF;
        GET DIAGNOSTICS found = ROW_COUNT;
        missing := missing - found;
        width := width * 2;
    END LOOP;
END
$$;

CREATE OR REPLACE FUNCTION sens.number_page(device int, metric int, first timestamptz, past timestamptz, descending boolean, most int)
    RETURNS TABLE (ts timestamptz, value float8)
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF sens.owns_device(device) THEN
        RETURN QUERY SELECT p.ts, p.number FROM sens.series_page(device, metric, 'number', first, past, descending, most) p;
    END IF;
END
$$;

CREATE OR REPLACE FUNCTION sens.text_page(device int, metric int, first timestamptz, past timestamptz, descending boolean, most int)
    RETURNS TABLE (ts timestamptz, value text)
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF sens.owns_device(device) THEN
        RETURN QUERY SELECT p.ts, p.string FROM sens.series_page(device, metric, 'text', first, past, descending, most) p;
    END IF;
END
$$;

-- Buckets that have values, with how many; `exact` averages values whose sum a float8 can't hold, some five times slower. Not avg(value),
-- whose sum of squares overflows from 1e154 on.
CREATE OR REPLACE FUNCTION sens.number_buckets(
    device int, metric int, first timestamptz, past timestamptz, width interval, origin timestamptz, exact boolean
) RETURNS TABLE (bucket timestamptz, count bigint, avg float8, min float8, max float8)
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    statements text[];
BEGIN
    IF NOT sens.owns_device(device) THEN
        RETURN;
    END IF;
    statements := sens.series_statements(device, metric, 'number');
    IF cardinality(statements) > 0 THEN
        RETURN QUERY EXECUTE format(
            'SELECT date_bin($3, v.ts, $4), count(*), %s, min(v.value), max(v.value) FROM (%s) v GROUP BY 1',
            CASE WHEN exact THEN 'avg(v.value::numeric)::float8' ELSE 'sum(v.value) / count(*)' END,
            array_to_string(statements, ' UNION ALL ')
        ) USING first, past, width, origin;
    END IF;
END
$$;

CREATE OR REPLACE FUNCTION sens.text_buckets(
    device int, metric int, first timestamptz, past timestamptz, width interval, origin timestamptz
) RETURNS TABLE (bucket timestamptz, count bigint)
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    statements text[];
BEGIN
    IF NOT sens.owns_device(device) THEN
        RETURN;
    END IF;
    statements := sens.series_statements(device, metric, 'text');
    IF cardinality(statements) > 0 THEN
        RETURN QUERY EXECUTE format(
            'SELECT date_bin($3, v.ts, $4), count(*) FROM (%s) v GROUP BY 1', array_to_string(statements, ' UNION ALL ')
        ) USING first, past, width, origin;
    END IF;
END
$$;

-- The metrics of a device in the tables with a row a value. The primary key (device_id, metric_id, ts) is walked from metric to metric,
-- one look into the index for each ("loose index scan", PostgreSQL wiki).
CREATE FUNCTION sens.former_metrics(device int) RETURNS int[]
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET enable_sort = off SET enable_bitmapscan = off
AS $$
DECLARE
    former text;
    metrics int[];
    found int[] := '{}';
BEGIN
    FOREACH former IN ARRAY ARRAY['measurements', 'text_measurements'] LOOP
        EXECUTE format($statement$
            WITH RECURSIVE present AS (
                (SELECT metric_id FROM sens.%1$I WHERE device_id = $1 ORDER BY metric_id LIMIT 1)
                UNION ALL
                SELECT (
                    SELECT m.metric_id FROM sens.%1$I m
                    WHERE m.device_id = $1 AND m.metric_id > present.metric_id ORDER BY m.metric_id LIMIT 1
                )
                FROM present WHERE present.metric_id IS NOT NULL
            )
            SELECT array_agg(metric_id) FROM present WHERE metric_id IS NOT NULL
        $statement$, former) INTO metrics USING device;
        found := found || metrics;
    END LOOP;
    RETURN found;
END
$$;

-- The newest values of a device in the tables with a row a value.
CREATE FUNCTION sens.former_latest(device int) RETURNS TABLE (metric_id int, ts timestamptz, number float8, string text)
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET enable_sort = off SET enable_bitmapscan = off
AS $$
DECLARE
    metrics CONSTANT int[] := sens.former_metrics(device);
    first CONSTANT timestamptz := sens.former_rows_from(device);
BEGIN
    RETURN QUERY
        SELECT m.id, l.ts, l.value, NULL::text FROM unnest(metrics) m(id) CROSS JOIN LATERAL (
            SELECT v.ts, v.value FROM sens.measurements v
            WHERE v.device_id = device AND v.metric_id = m.id AND v.ts >= first ORDER BY v.ts DESC LIMIT 1
        ) l
        UNION ALL
        SELECT m.id, l.ts, NULL, l.value FROM unnest(metrics) m(id) CROSS JOIN LATERAL (
            SELECT v.ts, v.value FROM sens.text_measurements v
            WHERE v.device_id = device AND v.metric_id = m.id AND v.ts >= first ORDER BY v.ts DESC LIMIT 1
        ) l;
END
$$;
