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
