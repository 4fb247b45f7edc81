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

-- What the newest reading of each metric set of some devices says: for each metric the time, and the value, or none where an older
-- reading may have it, because the newest one has no value of this metric or is gone from the set's last day.
CREATE FUNCTION sens.newest_elements(devices int[])
    RETURNS TABLE (device_id int, metric_id int, ts timestamptz, number float8, string text)
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp SET enable_sort = off SET enable_bitmapscan = off SET plan_cache_mode = force_custom_plan
AS $$
#variable_conflict use_column
DECLARE
    day record;
BEGIN
    -- One statement for each day: the planner then opens the partition of that day alone.
    FOR day IN
        SELECT s.last_day::timestamp AT TIME ZONE 'UTC' AS first, (s.last_day + 1)::timestamp AT TIME ZONE 'UTC' AS past,
            array_agg(s.device_id) AS devices, array_agg(s.metric_set_id) AS sets
        FROM sens.device_metric_sets s WHERE s.device_id = ANY (devices) GROUP BY s.last_day
    LOOP
        RETURN QUERY
            SELECT p.device_id, u.metric_id, coalesce(n.ts, day.first), u.number, u.string
            FROM unnest(day.devices, day.sets) p(device_id, set_id)
                LEFT JOIN LATERAL (
                    SELECT r.ts, r.numbers, r.texts FROM sens.readings r
                    WHERE r.device_id = p.device_id AND r.metric_set_id = p.set_id AND r.ts >= day.first AND r.ts < day.past
                    ORDER BY r.ts DESC LIMIT 1
                ) n ON true
                JOIN sens.metric_sets x ON x.id = p.set_id
                CROSS JOIN LATERAL (
                    SELECT i.id, i.number, NULL FROM unnest(x.number_ids, n.numbers) i(id, number)
                    UNION ALL
                    SELECT i.id, NULL, i.string FROM unnest(x.text_ids, n.texts) i(id, string)
                ) u(metric_id, number, string);
    END LOOP;
END
$$;

-- The elements of a row that are not NULL, with the ids of their metrics. A long array with few such elements is not gone through one by
-- one here, which takes ten times as long as it does inside array_remove and array_position.
CREATE FUNCTION sens.filled_elements(ids int[], elements anyarray) RETURNS TABLE (id int, element anyelement)
    LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    filled CONSTANT elements%TYPE := array_remove(elements, NULL);
    index int := 0;
BEGIN
    IF cardinality(filled) * 16 > cardinality(elements) THEN
        RETURN QUERY SELECT u.id, u.element FROM unnest(ids, elements) u(id, element) WHERE u.element IS NOT NULL;
    ELSIF cardinality(filled) > 0 THEN
        FOREACH element IN ARRAY filled LOOP
            index := array_position(elements, element, index + 1);
            id := ids[index];
            RETURN NEXT;
        END LOOP;
    END IF;
END
$$;

-- The newest values of some metrics of a device, by going back through its readings until each was found. Metrics without a value are left
-- out.
CREATE FUNCTION sens.newest_values(device int, metrics int[]) RETURNS TABLE (metric_id int, ts timestamptz, number float8, string text)
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp SET enable_sort = off SET enable_bitmapscan = off SET plan_cache_mode = force_custom_plan
AS $$
#variable_conflict use_column
DECLARE
    missing int[] := metrics;
    found int[];
    readings sens.readings[];
    sets int[];
    elements int;
    start timestamptz;
    stop timestamptz := 'infinity';
    oldest timestamptz;
    newest timestamptz;
    width interval := '24 hours';
    -- How many readings are looked at in one statement.
    step int := 64;
BEGIN
    WHILE cardinality(missing) > 0 LOOP
        IF sets IS NULL THEN
            -- The sets of the device that have any of the metrics.
            SELECT array_agg(x.id), min(s.first_day)::timestamp AT TIME ZONE 'UTC', (max(s.last_day) + 1)::timestamp AT TIME ZONE 'UTC',
                max(cardinality(x.number_ids) + cardinality(x.text_ids))
            INTO sets, oldest, newest, elements
            FROM sens.device_metric_sets s JOIN sens.metric_sets x ON x.id = s.metric_set_id
            WHERE s.device_id = device AND s.first_day::timestamp AT TIME ZONE 'UTC' < stop
                AND EXISTS (SELECT FROM unnest(x.number_ids || x.text_ids) e(id) WHERE e.id = ANY (missing));
            stop := least(stop, newest);
        END IF;
        EXIT WHEN sets IS NULL OR stop <= oldest;
        start := greatest(stop - width, oldest);
        readings := ARRAY(
            SELECT r FROM sens.readings r
            WHERE r.device_id = device AND r.metric_set_id = ANY (sets) AND r.ts >= start AND r.ts < stop
            ORDER BY r.ts DESC LIMIT step
        );
        found := '{}';
        FOR metric_id, ts, number, string IN
            SELECT DISTINCT ON (e.id) e.id, e.ts, e.number, e.string
            FROM (
                SELECT f.id, r.ts, f.element AS number, NULL AS string
                FROM unnest(readings) r JOIN sens.metric_sets x ON x.id = r.metric_set_id
                    CROSS JOIN LATERAL sens.filled_elements(x.number_ids, r.numbers) f
                UNION ALL
                SELECT f.id, r.ts, NULL, f.element
                FROM unnest(readings) r JOIN sens.metric_sets x ON x.id = r.metric_set_id
                    CROSS JOIN LATERAL sens.filled_elements(x.text_ids, r.texts) f
            ) e
            WHERE e.id = ANY (missing)
            ORDER BY e.id, e.ts DESC
        LOOP
            RETURN NEXT;
            found := found || metric_id;
        END LOOP;
        IF cardinality(readings) = step THEN
            stop := readings[step].ts;
        ELSE
            stop := start;
            width := width * 2;
        END IF;
        -- Some 200,000 elements at once.
        step := greatest(64, least(step * 2, 200000 / elements));
        IF cardinality(found) = 0 THEN
            sets := NULL; -- those that have a metric that is still missing may be fewer
        ELSE
            missing := ARRAY(SELECT unnest(missing) EXCEPT SELECT unnest(found));
        END IF;
    END LOOP;
END
$$;

-- The newest value of each series of some devices that has one; `number` holds those of booleans too, `string` those of texts.
CREATE FUNCTION sens.latest_of_devices(devices int[])
    RETURNS TABLE (device_id int, metric_id int, name text, kind text, ts timestamptz, number float8, string text)
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    own CONSTANT int[] := ARRAY(
        SELECT d.id FROM sens.devices d WHERE d.id = ANY (devices) AND d.tenant_id = sens.current_tenant_id()
    );
    -- Of a device with many sets, the newest reading of each would cost more than to go back until all metrics are found.
    with_many CONSTANT int[] := ARRAY(
        SELECT s.device_id FROM sens.device_metric_sets s WHERE s.device_id = ANY (own) GROUP BY s.device_id HAVING count(*) > 8
    );
BEGIN
    RETURN QUERY
        WITH newest AS MATERIALIZED (
            SELECT DISTINCT ON (e.device_id, e.metric_id) e.*
            FROM sens.newest_elements(ARRAY(SELECT d.id FROM unnest(own) d(id) WHERE d.id <> ALL (with_many))) e
            ORDER BY e.device_id, e.metric_id, e.ts DESC
        ), missing AS (
            SELECT n.device_id, n.metric_id FROM newest n WHERE n.number IS NULL AND n.string IS NULL
            UNION ALL
            SELECT DISTINCT s.device_id, e.id
            FROM sens.device_metric_sets s JOIN sens.metric_sets x ON x.id = s.metric_set_id
                CROSS JOIN LATERAL unnest(x.number_ids || x.text_ids) e(id)
            WHERE s.device_id = ANY (with_many)
        ), found AS (
            SELECT n.* FROM newest n WHERE n.number IS NOT NULL OR n.string IS NOT NULL
            UNION ALL
            SELECT i.device_id, o.* FROM (
                SELECT g.device_id, array_agg(g.metric_id) AS metrics
                FROM missing g JOIN sens.metrics m ON m.id = g.metric_id GROUP BY g.device_id
            ) i CROSS JOIN LATERAL sens.newest_values(i.device_id, i.metrics) o
            UNION ALL
            SELECT d.id, o.* FROM unnest(own) d(id) CROSS JOIN LATERAL sens.former_latest(d.id) o WHERE sens.has_former_rows(d.id)
        )
        SELECT DISTINCT ON (f.device_id, f.metric_id) f.device_id, f.metric_id, m.name, m.kind, f.ts, f.number, f.string
        FROM found f JOIN sens.metrics m ON m.id = f.metric_id
        ORDER BY f.device_id, f.metric_id, f.ts DESC;
END
$$;

-- The same of one device.
CREATE FUNCTION sens.latest_values(device int)
    RETURNS TABLE (metric_id int, name text, kind text, ts timestamptz, number float8, string text)
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
    BEGIN ATOMIC
        SELECT l.metric_id, l.name, l.kind, l.ts, l.number, l.string FROM sens.latest_of_devices(ARRAY[device]) l;
    END;

-- How many series some devices may have, at most: metrics count once for each set that has them.
CREATE FUNCTION sens.element_counts(devices int[]) RETURNS TABLE (device_id int, elements bigint)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    BEGIN ATOMIC
        SELECT d.id, sum(cardinality(x.number_ids) + cardinality(x.text_ids))
        FROM sens.devices d JOIN sens.device_metric_sets s ON s.device_id = d.id JOIN sens.metric_sets x ON x.id = s.metric_set_id
        WHERE d.id = ANY (devices) AND d.tenant_id = sens.current_tenant_id()
        GROUP BY d.id;
    END;

REVOKE EXECUTE ON FUNCTION sens.has_former_rows(int), sens.former_rows_from(int), sens.series_statements(int, int, text),
    sens.page_statement(int, int, text, boolean), sens.series_range(int, int, text),
    sens.series_page(int, int, text, timestamptz, timestamptz, boolean, int), sens.former_metrics(int), sens.former_latest(int),
    sens.device_series(int), sens.newest_elements(int[]), sens.filled_elements(int[], anyarray), sens.newest_values(int, int[]),
    sens.latest_of_devices(int[]), sens.latest_values(int), sens.element_counts(int[]) FROM public;
GRANT EXECUTE ON FUNCTION sens.device_series(int), sens.latest_of_devices(int[]), sens.latest_values(int),
    sens.element_counts(int[]) TO sens_api;
