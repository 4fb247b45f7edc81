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

CREATE OR REPLACE FUNCTION sens.number_page(device int, metric int, first timestamptz, past timestamptz, descending boolean, most int)
    RETURNS TABLE (ts timestamptz, value float8)
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp SET enable_sort = off SET enable_bitmapscan = off
AS $$
DECLARE
    statement text;
BEGIN
    IF sens.owns_device(device) THEN
        statement := sens.page_statement(device, metric, 'number', descending);
        IF statement IS NOT NULL THEN
            RETURN QUERY EXECUTE statement USING first, past, most;
        END IF;
    END IF;
END
$$;

CREATE OR REPLACE FUNCTION sens.text_page(device int, metric int, first timestamptz, past timestamptz, descending boolean, most int)
    RETURNS TABLE (ts timestamptz, value text)
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp SET enable_sort = off SET enable_bitmapscan = off
AS $$
DECLARE
    statement text;
BEGIN
    IF sens.owns_device(device) THEN
        statement := sens.page_statement(device, metric, 'text', descending);
        IF statement IS NOT NULL THEN
            RETURN QUERY EXECUTE statement USING first, past, most;
        END IF;
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

-- The metrics of a device; those of which all values were deleted may be among them.
CREATE FUNCTION sens.device_series(device int) RETURNS TABLE (metric_id int, name text, kind text)
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    found int[];
BEGIN
    IF NOT sens.owns_device(device) THEN
        RETURN;
    END IF;
    found := ARRAY(
        SELECT DISTINCT e.id
        FROM sens.device_metric_sets s JOIN sens.metric_sets x ON x.id = s.metric_set_id
            CROSS JOIN LATERAL unnest(x.number_ids || x.text_ids) e(id)
        WHERE s.device_id = device
    );
    IF sens.has_former_rows(device) THEN
        found := found || sens.former_metrics(device);
    END IF;
    RETURN QUERY SELECT m.id, m.name, m.kind FROM sens.metrics m WHERE m.id = ANY (found);
END
$$;

-- What the newest readings of devices say about each of their metrics: the time, and the value, or none where an older reading may have
-- it: the newest of a metric set has no value of this metric, or is older than the set's last day.
CREATE FUNCTION sens.newest_elements(devices int[])
    RETURNS TABLE (device_id int, metric_id int, ts timestamptz, number float8, string text)
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp SET enable_sort = off SET enable_bitmapscan = off SET plan_cache_mode = force_custom_plan
AS $$
#variable_conflict use_column
DECLARE
    day record;
    newest sens.readings[] := '{}';
BEGIN
    -- One statement for each day: the planner then opens the partition of that day alone.
    FOR day IN
        SELECT s.last_day::timestamp AT TIME ZONE 'UTC' AS first, (s.last_day + 1)::timestamp AT TIME ZONE 'UTC' AS past,
            array_agg(s.device_id) AS devices, array_agg(s.metric_set_id) AS sets
        FROM sens.device_metric_sets s WHERE s.device_id = ANY (devices) GROUP BY s.last_day
    LOOP
        newest := newest || ARRAY(
            SELECT l.reading FROM unnest(day.devices, day.sets) p(device_id, set_id) CROSS JOIN LATERAL (
                SELECT r AS reading FROM sens.readings r
                WHERE r.device_id = p.device_id AND r.metric_set_id = p.set_id AND r.ts >= day.first AND r.ts < day.past
                ORDER BY r.ts DESC LIMIT 1
            ) l
        );
    END LOOP;
    RETURN QUERY
        SELECT DISTINCT ON (e.device_id, e.metric_id) e.*
        FROM (
            SELECT s.device_id, u.metric_id, coalesce(n.ts, s.last_day::timestamp AT TIME ZONE 'UTC') AS ts, u.number, u.string
            FROM sens.device_metric_sets s JOIN sens.metric_sets x ON x.id = s.metric_set_id
                LEFT JOIN unnest(newest) n ON n.device_id = s.device_id AND n.metric_set_id = s.metric_set_id
                CROSS JOIN LATERAL (
                    SELECT i.id, i.number, NULL FROM unnest(x.number_ids, n.numbers) i(id, number)
                    UNION ALL
                    SELECT i.id, NULL, i.string FROM unnest(x.text_ids, n.texts) i(id, string)
                ) u(metric_id, number, string)
            WHERE s.device_id = ANY (devices)
        ) e
        ORDER BY e.device_id, e.metric_id, e.ts DESC;
END
$$;

-- The newest value of a series, no row when it has none. It looks into longer and longer stretches of time, the newest first.
CREATE FUNCTION sens.newest_value(device int, metric int, kind text) RETURNS TABLE (ts timestamptz, number float8, string text)
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET enable_sort = off SET enable_bitmapscan = off
AS $$
DECLARE
    statement CONSTANT text := sens.page_statement(device, metric, kind, true);
    width interval := '24 hours';
    oldest timestamptz;
    first timestamptz;
    past timestamptz;
BEGIN
    SELECT min(s.first_day)::timestamp AT TIME ZONE 'UTC', (max(s.last_day) + 1)::timestamp AT TIME ZONE 'UTC' INTO oldest, past
    FROM sens.device_metric_sets s JOIN sens.metric_sets x ON x.id = s.metric_set_id
    WHERE s.device_id = device AND metric = ANY (CASE kind WHEN 'text' THEN x.text_ids ELSE x.number_ids END);
    WHILE past > oldest LOOP
        first := greatest(past - width, oldest);
        IF kind = 'text' THEN
            EXECUTE statement INTO ts, string USING first, past, 1;
        ELSE
            EXECUTE statement INTO ts, number USING first, past, 1;
        END IF;
        IF ts IS NOT NULL THEN
            RETURN NEXT;
            RETURN;
        END IF;
        past := first;
        width := width * 2;
    END LOOP;
END
$$;

-- The newest value of each series of a device that has one; `number` holds those of booleans too, `string` those of texts.
CREATE FUNCTION sens.latest_values(device int)
    RETURNS TABLE (metric_id int, name text, kind text, ts timestamptz, number float8, string text)
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp SET enable_sort = off SET enable_bitmapscan = off
AS $$
#variable_conflict use_column
DECLARE
    former boolean;
BEGIN
    IF NOT sens.owns_device(device) THEN
        RETURN;
    END IF;
    former := sens.has_former_rows(device);
    RETURN QUERY
        WITH newest AS MATERIALIZED (
            SELECT m.id, m.name, m.kind, e.ts, e.number, e.string
            FROM sens.newest_elements(ARRAY[device]) e JOIN sens.metrics m ON m.id = e.metric_id
        )
        SELECT DISTINCT ON (v.id) v.*
        FROM (
            SELECT n.* FROM newest n WHERE n.number IS NOT NULL OR n.string IS NOT NULL
            UNION ALL
            SELECT n.id, n.name, n.kind, o.ts, o.number, o.string
            FROM newest n CROSS JOIN LATERAL sens.newest_value(device, n.id, n.kind) o
            WHERE n.number IS NULL AND n.string IS NULL
            UNION ALL
            SELECT m.id, m.name, m.kind, o.ts, o.number, o.string
            FROM sens.former_latest(device) o JOIN sens.metrics m ON m.id = o.metric_id
            WHERE former
        ) v
        ORDER BY v.id, v.ts DESC;
END
$$;

-- The newest values of a device in the tables with a row a value.
CREATE FUNCTION sens.former_latest(device int) RETURNS TABLE (metric_id int, ts timestamptz, number float8, string text)
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET enable_sort = off SET enable_bitmapscan = off
AS $$
#variable_conflict use_column
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

REVOKE EXECUTE ON FUNCTION sens.has_former_rows(int), sens.former_rows_from(int), sens.series_statements(int, int, text),
    sens.page_statement(int, int, text, boolean), sens.former_metrics(int), sens.device_series(int), sens.newest_elements(int[]),
    sens.newest_value(int, int, text), sens.latest_values(int), sens.former_latest(int) FROM public;
GRANT EXECUTE ON FUNCTION sens.device_series(int), sens.latest_values(int) TO sens_api;
