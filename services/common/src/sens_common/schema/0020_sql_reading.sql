-- What people of a tenant ask in SQL. None of it gives a right on a table: the planner's statistics of a table, which EXPLAIN shows the
-- effect of, are about the rows of all tenants. Where a view joins sens.readings itself, names come out of a function first.

-- The tenant of the session.
CREATE FUNCTION sens.own_tenant() RETURNS int
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    tenant constant int := sens.current_tenant_id();
BEGIN
    IF tenant IS NULL THEN
        RAISE '% has no tenant here', session_user USING
            ERRCODE = 'insufficient_privilege',
            HINT = 'Log in as one of the logins that "sens logins create" makes; as the owner, set sens.tenant_id.';
    END IF;
    RETURN tenant;
END
$$;

-- The same; an error while values of the tenant are not in sens.readings yet. Whatever a view joins asks it: of a join that finds nothing on one
-- side, the other one is not executed.
CREATE FUNCTION sens.own_moved_tenant() RETURNS int
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    tenant constant int := sens.own_tenant();
BEGIN
    IF EXISTS (SELECT FROM sens.former_devices f JOIN sens.devices d ON d.id = f.device_id WHERE d.tenant_id = tenant) THEN
        RAISE 'not all measurements of an earlier version are moved yet' USING
            ERRCODE = 'object_not_in_prerequisite_state', HINT = 'sens.series, sens.buckets and sens.latest have everything meanwhile.';
    END IF;
    RETURN tenant;
END
$$;

CREATE FUNCTION sens.own_devices() RETURNS TABLE (device text, created_at timestamptz, last_seen timestamptz)
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN QUERY SELECT d.name, d.created_at, d.last_seen FROM sens.devices d WHERE d.tenant_id = sens.own_tenant();
END
$$;

-- Which metric sets the tenant's devices have, and on which days (UTC) their readings lie.
CREATE FUNCTION sens.own_device_sets()
    RETURNS TABLE (device_id int, device text, metric_set_id int, first_day date, last_day date)
    LANGUAGE plpgsql STABLE SECURITY DEFINER ROWS 100 SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    tenant constant int := sens.own_moved_tenant();
BEGIN
    RETURN QUERY
        SELECT d.id, d.name, s.metric_set_id, s.first_day, s.last_day
        FROM sens.devices d JOIN sens.device_metric_sets s ON s.device_id = d.id
        WHERE d.tenant_id = tenant;
END
$$;

-- Which metrics are at which index of the tenant's metric sets.
CREATE FUNCTION sens.own_elements() RETURNS TABLE (metric_set_id int, metric text, kind text, number_index int, text_index int)
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    tenant constant int := sens.own_moved_tenant();
BEGIN
    RETURN QUERY
        SELECT x.id, m.name, m.kind, e.number_index::int, e.text_index::int
        FROM sens.metric_sets x
            CROSS JOIN LATERAL (
                SELECT n.id, n.index, NULL FROM unnest(x.number_ids) WITH ORDINALITY AS n (id, index)
                UNION ALL
                SELECT t.id, NULL, t.index FROM unnest(x.text_ids) WITH ORDINALITY AS t (id, index)
            ) AS e (id, number_index, text_index)
            JOIN sens.metrics m ON m.id = e.id
        WHERE x.tenant_id = tenant;
END
$$;

-- No measurement, but the error of sens.own_moved_tenant: where the planner knows that sens.readings is empty, it executes nothing of the join.
CREATE FUNCTION sens.unmoved_measurements()
    RETURNS TABLE (device text, metric text, kind text, ts timestamptz, value float8, text text)
    LANGUAGE plpgsql STABLE SECURITY DEFINER ROWS 1 SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM sens.own_moved_tenant();
END
$$;

-- The newest value of each metric of a device, or of all devices.
CREATE FUNCTION sens.latest(device text DEFAULT NULL)
    RETURNS TABLE (device_name text, metric text, kind text, ts timestamptz, value float8, text text)
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    tenant constant int := sens.own_tenant();
BEGIN
    RETURN QUERY
        SELECT d.name, l.name, l.kind, l.ts, l.number, l.string
        FROM sens.latest_of_devices(ARRAY(
            SELECT o.id FROM sens.devices o WHERE o.tenant_id = tenant AND (device IS NULL OR o.name = device)
        )) l JOIN sens.devices d ON d.id = l.device_id;
END
$$;

-- The values of a metric of a device from a time on and before another, in order of time: numbers, and booleans as 0 and 1, in `value`, texts in
-- `text`. Without `most` they are all, and more than a million are refused; with it, the first ones.
CREATE FUNCTION sens.series(
    device text, metric text, starts timestamptz DEFAULT now() - interval '1 day', ends timestamptz DEFAULT 'infinity',
    most int DEFAULT NULL, descending boolean DEFAULT false
) RETURNS TABLE (ts timestamptz, value float8, text text)
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    most_of_all constant int := 1000000;
    tenant constant int := sens.own_tenant();
    device_id constant int := (SELECT d.id FROM sens.devices d WHERE d.tenant_id = tenant AND d.name = device);
    direction constant text := CASE WHEN descending THEN 'DESC' ELSE 'ASC' END;
    statement text;
    found bigint;
BEGIN
    IF most NOT BETWEEN 1 AND most_of_all THEN
        RAISE 'most is %, and may be from 1 to %', most, most_of_all USING ERRCODE = 'invalid_parameter_value';
    ELSIF most IS NULL THEN
        SELECT string_agg(
            format('SELECT v.ts, %s FROM (%s) v', CASE m.kind WHEN 'text' THEN 'NULL::float8, v.value' ELSE 'v.value, NULL::text' END, s.statement),
            ' UNION ALL '
        ) INTO statement
        FROM sens.metrics m CROSS JOIN LATERAL unnest(sens.series_statements(device_id, m.id, CASE m.kind WHEN 'text' THEN 'text' ELSE 'number' END)) s (statement)
        WHERE m.tenant_id = tenant AND m.name = metric;
        IF statement IS NULL THEN
            RETURN;
        END IF;
        RETURN QUERY EXECUTE format('%s ORDER BY 1 %s LIMIT $3', statement, direction) USING starts, ends, most_of_all + 1;
        GET DIAGNOSTICS found = ROW_COUNT;
        IF found > most_of_all THEN
            RAISE 'there are more than % values', most_of_all USING
                ERRCODE = 'program_limit_exceeded',
                HINT = 'Ask for a shorter time range, for sens.buckets, or say with "most" how many of the first ones are enough.';
        END IF;
    ELSE
        RETURN QUERY EXECUTE format(
            'SELECT p.ts, p.number, p.string FROM sens.metrics m CROSS JOIN LATERAL sens.series_page('
            ' $1, m.id, CASE m.kind WHEN ''text'' THEN ''text'' ELSE ''number'' END, $2, $3, $4, $5) p'
            ' WHERE m.tenant_id = $6 AND m.name = $7 ORDER BY 1 %s LIMIT $5', direction
        ) USING device_id, starts, ends, descending, most, tenant, metric;
    END IF;
END
$$;

-- When buckets of a width begin that a time range lies in, and when the last one ends. Widths are a number of months, or anything shorter;
-- those of whole days and months begin at midnight in the zone.
CREATE FUNCTION sens.bucket_edges(starts timestamptz, ends timestamptz, width interval, zone text) RETURNS timestamptz[]
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    most constant int := 10000;
    months constant int := extract(year FROM width) * 12 + extract(month FROM width);
    rest constant interval := width - make_interval(months => months);
    seconds constant numeric := extract(epoch FROM rest);
    local_start constant timestamp := starts AT TIME ZONE zone;
    local_end constant timestamp := ends AT TIME ZONE zone;
    origin timestamp := '2001-01-01'; -- a Monday
    number numeric;
BEGIN
    IF NOT (isfinite(starts) AND isfinite(ends)) OR starts IS NULL OR ends IS NULL THEN
        RAISE 'buckets need a beginning and an end' USING ERRCODE = 'invalid_parameter_value';
    ELSIF months < 0 OR seconds < 0 OR (months = 0) = (seconds = 0) OR width IS NULL THEN
        RAISE 'buckets can''t be % wide', width USING
            ERRCODE = 'invalid_parameter_value', HINT = 'A number of months, or of days and shorter times, for example 1 hour, is needed.';
    ELSIF months = 0 AND seconds % 86400 <> 0 AND zone <> 'UTC' THEN
        RAISE 'buckets of % go by UTC', width USING
            ERRCODE = 'invalid_parameter_value', HINT = 'A zone can be given for whole days and months.';
    END IF;
    number := extract(epoch FROM ends - starts) / (months * 2592000 + seconds);
    IF number > most THEN
        RAISE 'there would be about % buckets, and there may be %', ceil(number), most USING
            ERRCODE = 'program_limit_exceeded', HINT = 'Ask for wider buckets, or for a shorter time range.';
    ELSIF starts >= ends THEN
        RETURN '{}';
    ELSIF months = 0 THEN
        origin := date_bin(rest, local_start, origin);
    ELSE
        origin := date_trunc('month', local_start) - make_interval(
            months => (extract(year FROM local_start)::int * 12 + extract(month FROM local_start)::int - 1 - 2001 * 12) % months
        );
    END IF;
    RETURN ARRAY(
        SELECT e.edge AT TIME ZONE zone FROM generate_series(origin, local_end + width - interval '1 microsecond', width) AS e (edge) ORDER BY 1
    );
END
$$;

-- The aggregates of a metric of a device in buckets that have values. Whole hours and days are read from rollups where these answer exactly.
-- Of texts there is the count. Aggregates larger than a float8 are NULL.
CREATE FUNCTION sens.buckets(
    device text, metric text, starts timestamptz, ends timestamptz, width interval, zone text DEFAULT 'UTC'
) RETURNS TABLE (
    ts timestamptz, count bigint, avg float8, min float8, max float8, sum float8, first float8, last float8, kind text
)
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    tenant constant int := sens.own_tenant();
    device_id constant int := (SELECT d.id FROM sens.devices d WHERE d.tenant_id = tenant AND d.name = device);
    edges constant timestamptz[] := sens.bucket_edges(starts, ends, width, zone);
    wanted constant text[] := ARRAY['sum', 'avg', 'first', 'last'];
    series record;
BEGIN
    IF edges = '{}' THEN
        RETURN;
    END IF;
    FOR series IN SELECT m.id, m.kind FROM sens.metrics m WHERE m.tenant_id = tenant AND m.name = metric ORDER BY m.kind LOOP
        IF series.kind = 'text' THEN
            RETURN QUERY SELECT e.bucket, e.count, NULL::float8, NULL::float8, NULL::float8, NULL::float8, NULL::float8, NULL::float8, series.kind
                FROM sens.edge_counts(device_id, series.id, starts, ends, edges) e ORDER BY 1;
            CONTINUE;
        END IF;
        BEGIN
            RETURN QUERY SELECT e.bucket, e.count, e.avg, e.min, e.max, e.sum, e.first, e.last, series.kind
                FROM sens.edge_aggregates(device_id, series.id, starts, ends, edges, wanted, false) e ORDER BY 1;
        EXCEPTION
            WHEN numeric_value_out_of_range THEN
                RETURN QUERY SELECT e.bucket, e.count, e.avg, e.min, e.max, e.sum, e.first, e.last, series.kind
                    FROM sens.edge_aggregates(device_id, series.id, starts, ends, edges, wanted, true) e ORDER BY 1;
        END;
    END LOOP;
END
$$;

CREATE VIEW sens.devices_by_name AS SELECT d.device, d.created_at, d.last_seen FROM sens.own_devices() d;
CREATE VIEW sens.series_by_name AS
    SELECT s.device, e.metric, e.kind, min(s.first_day) AS first_day, max(s.last_day) AS last_day
    FROM sens.own_device_sets() s JOIN sens.own_elements() e ON e.metric_set_id = s.metric_set_id
    GROUP BY 1, 2, 3;
CREATE VIEW sens.latest_by_name AS SELECT l.device_name AS device, l.metric, l.kind, l.ts, l.value, l.text FROM sens.latest() l;
-- A query of it costs what it reads of the devices and the time range that it names; a limit does not make it read less.
CREATE VIEW sens.measurements_by_name WITH (security_barrier) AS
    SELECT s.device, e.metric, e.kind, r.ts, r.numbers[e.number_index] AS value, r.texts[e.text_index] AS text
    FROM sens.own_device_sets() s
        JOIN sens.own_elements() e ON e.metric_set_id = s.metric_set_id
        JOIN sens.readings r ON r.device_id = s.device_id AND r.metric_set_id = s.metric_set_id
    WHERE r.numbers[e.number_index] IS NOT NULL OR r.texts[e.text_index] IS NOT NULL
    UNION ALL
    SELECT u.device, u.metric, u.kind, u.ts, u.value, u.text FROM sens.unmoved_measurements() u;

REVOKE EXECUTE ON FUNCTION sens.own_tenant(), sens.own_moved_tenant(), sens.own_devices(), sens.own_device_sets(), sens.own_elements(), sens.unmoved_measurements(),
    sens.latest(text), sens.series(text, text, timestamptz, timestamptz, int, boolean), sens.bucket_edges(timestamptz, timestamptz, interval, text),
    sens.buckets(text, text, timestamptz, timestamptz, interval, text) FROM public;
GRANT USAGE ON SCHEMA sens TO sens_reader;
GRANT EXECUTE ON FUNCTION sens.own_devices(), sens.own_device_sets(), sens.own_elements(), sens.unmoved_measurements(), sens.latest(text),
    sens.series(text, text, timestamptz, timestamptz, int, boolean),
    sens.buckets(text, text, timestamptz, timestamptz, interval, text) TO sens_reader;
GRANT SELECT ON sens.devices_by_name, sens.series_by_name, sens.latest_by_name, sens.measurements_by_name TO sens_reader;
