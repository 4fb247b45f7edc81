-- Aggregates of calibrated values. Rollups hold what is stored: a linear map of their rows is the aggregate of the mapped values, as long as one
-- calibration is valid for all of them. The hours and days in which another one becomes valid are read from the readings.

-- How an aggregate of stored values becomes one of calibrated values.
CREATE FUNCTION sens.linear_expression(element text, scale float8, addend float8) RETURNS text
    LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp
    RETURN CASE WHEN scale IS NULL THEN element ELSE format('sens.calibrated(%s, %L::float8, %L::float8)', element, scale, addend) END;

-- What sens.bucket_sources says, in stretches of which one calibration is valid; scale and addend are of stretches of rollups, NULL where none is.
-- An hour whose readings are gone because of their age, and in which another calibration becomes valid, counts with the one that was valid when it
-- began.
CREATE FUNCTION sens.calibrated_sources(
    device int, metric int, first timestamptz, past timestamptz, width interval, exact boolean
) RETURNS TABLE (source text, starts timestamptz, ends timestamptz, scale float8, addend float8)
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    edges timestamptz[];
    scales float8[];
    addends float8[];
    raw_since timestamptz;
    stretch record;
    unit interval;
    position timestamptz;
    edge timestamptz;
    beginning timestamptz;
BEGIN
    IF EXISTS (SELECT FROM sens.calibrations c WHERE c.device_id = device AND c.metric_id = metric) THEN
        SELECT c.edges, c.scales, c.addends INTO edges, scales, addends FROM sens.calibrations_of(ARRAY[device]) c WHERE c.metric_id = metric;
    END IF;
    IF edges IS NULL THEN
        RETURN QUERY SELECT s.source, s.starts, s.ends, NULL::float8, NULL::float8
            FROM sens.bucket_sources(device, metric, first, past, width, timestamptz 'epoch', exact) s;
        RETURN;
    END IF;
    raw_since := sens.complete_since(device, metric, 'raw');
    FOR stretch IN SELECT * FROM sens.bucket_sources(device, metric, first, past, width, timestamptz 'epoch', exact) s ORDER BY s.starts LOOP
        position := stretch.starts;
        IF stretch.source <> 'raw' THEN
            unit := CASE stretch.source WHEN '1d' THEN interval '24 hours' ELSE interval '1 hour' END;
            FOREACH edge IN ARRAY edges LOOP
                CONTINUE WHEN edge <= position;
                EXIT WHEN edge >= stretch.ends;
                beginning := date_bin(unit, edge, timestamptz 'epoch');
                IF beginning < edge AND beginning < raw_since THEN
                    beginning := beginning + unit;
                END IF;
                IF beginning > position THEN
                    RETURN QUERY SELECT stretch.source, position, beginning, o.scale, o.addend
                        FROM sens.valid_calibration(position, edges, scales, addends) o;
                    position := beginning;
                END IF;
                IF beginning < edge THEN
                    RETURN QUERY SELECT 'raw', beginning, beginning + unit, NULL::float8, NULL::float8;
                    position := beginning + unit;
                END IF;
            END LOOP;
        END IF;
        IF position < stretch.ends THEN
            RETURN QUERY SELECT stretch.source, position, stretch.ends, o.scale, o.addend
                FROM sens.valid_calibration(position, edges, scales, addends) o;
        END IF;
    END LOOP;
END
$$;

-- The calibration that is valid at a time, NULL where none is.
CREATE FUNCTION sens.valid_calibration(at timestamptz, edges timestamptz[], scales float8[], addends float8[], OUT scale float8, OUT addend float8)
    LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp
    BEGIN ATOMIC
        SELECT scales[width_bucket(at, edges)], addends[width_bucket(at, edges)];
    END;

-- Aggregates of a series in buckets that have values; bucket i is from edges[i] on and before edges[i + 1], as far as it is in the range. What
-- is not wanted is NULL; the count always comes. Where rollups can answer, the coarsest one that answers exactly is read; `source` is the
-- finest of what a bucket was made of, `rows_read` of how many rows. Of a calibrated counter, each step counts with the scale that is valid at its
-- end, and offsets do not count.
--
-- A sum, a difference or a weight beyond a float8 is refused as out of range, unless `exact`: then they are computed as numeric, some
-- five times slower, and those that a float8 can't hold are NULL.
CREATE OR REPLACE FUNCTION sens.edge_aggregates(
    device int, metric int, starts timestamptz, ends timestamptz, edges timestamptz[], wanted text[], exact boolean
) RETURNS TABLE (
    bucket timestamptz, count bigint, sum float8, avg float8, min float8, max float8, first float8, last float8, difference float8,
    p50 float8, p95 float8, p99 float8, time_weighted_avg float8, rows_read bigint, source text
)
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    statement CONSTANT text := sens.values_statement(device, metric, 'number');
    number CONSTANT text := CASE WHEN exact THEN 'numeric' ELSE 'float8' END;
    with_sum CONSTANT boolean := wanted && ARRAY['sum', 'avg'];
    with_steps CONSTANT boolean := wanted && ARRAY['difference', 'time_weighted_avg'];
    with_percentiles CONSTANT boolean := wanted && ARRAY['p50', 'p95', 'p99'];
    calibrated CONSTANT boolean := EXISTS (SELECT FROM sens.calibrations c WHERE c.device_id = device AND c.metric_id = metric)
        AND EXISTS (SELECT FROM sens.calibrations_of(ARRAY[device]) c WHERE c.metric_id = metric);
    more CONSTANT text := CASE WHEN calibrated THEN ', v.raw, v.scale' ELSE '' END;
    grid interval := interval '1 microsecond';
    parts text;
BEGIN
    IF cardinality(edges) NOT BETWEEN 2 AND 10001 THEN
        RAISE EXCEPTION 'from 1 to 10000 buckets can be aggregated at once, not %', cardinality(edges) - 1;
    ELSIF NOT sens.owns_device(device) OR NOT EXISTS (SELECT FROM sens.metrics m WHERE m.id = metric) THEN
        RETURN;
    END IF;
    IF NOT with_steps AND NOT with_percentiles THEN
        SELECT CASE
            WHEN bool_and(extract(epoch FROM e) % 86400 = 0) THEN interval '1 day'
            WHEN bool_and(extract(epoch FROM e) % 3600 = 0) THEN interval '1 hour'
            ELSE grid
        END INTO grid
        FROM unnest(edges) e;
    END IF;
    -- A column for each of: index, count, sum, min, max, first, last, time, difference, percentiles, weighted, weight, rows, source.
    SELECT string_agg(
        CASE s.source
            WHEN 'raw' THEN format(
                'SELECT v.index, count(*), %s, min(v.value), max(v.value), %s, min(v.ts), %s, %s, %s, count(*), ''raw'' FROM (%s) v GROUP BY 1',
                CASE WHEN with_sum THEN format('sum(v.value::%s)', number) ELSE format('NULL::%s', number) END,
                CASE WHEN 'first' = ANY (wanted) THEN '(array_agg(v.value ORDER BY v.ts))[1]' ELSE 'NULL::float8' END
                    || CASE WHEN 'last' = ANY (wanted) THEN ', (array_agg(v.value ORDER BY v.ts DESC))[1]' ELSE ', NULL::float8' END,
                CASE
                    WHEN 'difference' = ANY (wanted) AND calibrated THEN format(
                        'sum(CASE WHEN v.raw >= v.before THEN (v.raw::%1$s - v.before::%1$s) * v.scale::%1$s'
                        ' WHEN v.raw < v.before THEN v.raw::%1$s * v.scale::%1$s ELSE 0 END)',
                        number
                    )
                    WHEN 'difference' = ANY (wanted) THEN format(
                        'sum(CASE WHEN v.value >= v.before THEN v.value::%1$s - v.before::%1$s WHEN v.value < v.before THEN v.value::%1$s ELSE 0 END)',
                        number
                    )
                    ELSE format('NULL::%s', number)
                END,
                CASE
                    WHEN with_percentiles THEN 'percentile_cont(ARRAY[0.5, 0.95, 0.99]) WITHIN GROUP (ORDER BY v.value)'
                    ELSE 'NULL::float8[]'
                END,
                CASE
                    WHEN 'time_weighted_avg' = ANY (wanted) THEN format('sum(v.value::%1$s * v.held::%1$s), sum(v.held::%1$s)', number)
                    ELSE format('NULL::%1$s, NULL::%1$s', number)
                END,
                CASE
                    WHEN with_steps THEN format(
                        'SELECT v.*, lag(v.%s) OVER w AS before,'
                        ' extract(epoch FROM coalesce(lead(v.ts) OVER w, least($1[v.index + 1], %L)) - v.ts) AS held'
                        ' FROM (SELECT v.ts, v.value%s, width_bucket(v.ts, $1) AS index FROM (%s) v) v'
                        ' WINDOW w AS (PARTITION BY v.index ORDER BY v.ts)',
                        CASE WHEN calibrated THEN 'raw' ELSE 'value' END, s.ends, more, sens.values_between(statement, s.starts, s.ends)
                    )
                    ELSE format(
                        'SELECT v.ts, v.value, width_bucket(v.ts, $1) AS index FROM (%s) v', sens.values_between(statement, s.starts, s.ends)
                    )
                END
            )
            ELSE format(
                'SELECT width_bucket(v.ts, $1), sum(v.count)::bigint, %1$s, %11$s, %12$s, %3$s, %4$s, min(v.ts),'
                ' NULL::%2$s, NULL::float8[], NULL::%2$s, NULL::%2$s, count(*), %5$L'
                ' FROM sens.%6$I v WHERE v.device_id = %7$s AND v.metric_id = %8$s AND v.ts >= %9$L AND v.ts < %10$L GROUP BY 1',
                CASE
                    WHEN NOT with_sum THEN format('NULL::%s', number)
                    WHEN s.scale IS NULL THEN format('CASE WHEN count(*) = count(v.sum) THEN sum(v.sum::%s) END', number)
                    ELSE format(
                        'CASE WHEN count(*) = count(v.sum) THEN sum(v.sum::%1$s) * %2$L::%1$s + sum(v.count)::%1$s * %3$L::%1$s END',
                        number, s.scale, s.addend
                    )
                END,
                number,
                CASE WHEN 'first' = ANY (wanted) THEN sens.linear_expression('(array_agg(v.first ORDER BY v.ts))[1]', s.scale, s.addend) ELSE 'NULL::float8' END,
                CASE WHEN 'last' = ANY (wanted) THEN sens.linear_expression('(array_agg(v.last ORDER BY v.ts DESC))[1]', s.scale, s.addend) ELSE 'NULL::float8' END,
                s.source, 'rollup_' || s.source, device, metric, s.starts, s.ends,
                sens.linear_expression(CASE WHEN s.scale < 0 THEN 'max(v.max)' ELSE 'min(v.min)' END, s.scale, s.addend),
                sens.linear_expression(CASE WHEN s.scale < 0 THEN 'min(v.min)' ELSE 'max(v.max)' END, s.scale, s.addend)
            )
        END,
        ' UNION ALL '
    )
    INTO parts
    FROM sens.calibrated_sources(device, metric, starts, ends, grid, exact) s
    WHERE s.source <> 'raw' OR statement IS NOT NULL;
    IF parts IS NULL THEN
        RETURN;
    END IF;
    RETURN QUERY EXECUTE format(
        'SELECT $1[b.index], b.count, %s, %s, b.min, b.max, b.first, b.last, %s, %s, %s, b.rows_read, b.source FROM ('
        ' SELECT p.index, sum(p.count)::bigint AS count, %s AS sum, min(p.min) AS min, max(p.max) AS max,'
        ' %s AS first, %s AS last, sum(p.difference) AS difference,'
        ' max(p.percentiles) AS percentiles, sum(p.weighted) AS weighted, sum(p.weight) AS weight,'
        ' sum(p.rows_read)::bigint AS rows_read, max(p.source) AS source'
        ' FROM (%s) p (index, count, sum, min, max, first, last, at, difference, percentiles, weighted, weight, rows_read, source)'
        ' GROUP BY p.index) b',
        CASE WHEN NOT 'sum' = ANY (wanted) THEN 'NULL::float8' WHEN exact THEN 'sens.as_float8(b.sum)' ELSE 'b.sum' END,
        -- With 40 digits after the point, so that it is rounded once: 16, which a quotient has otherwise, may miss the nearest float8.
        CASE WHEN exact THEN 'sens.as_float8((b.sum + 0e-40) / b.count)' ELSE 'b.sum / b.count' END,
        CASE WHEN exact THEN 'sens.as_float8(b.difference)' ELSE 'b.difference' END,
        (
            SELECT string_agg(format('CASE WHEN abs(b.percentiles[%1$s]) < ''Infinity'' THEN b.percentiles[%1$s] END', i), ', ')
            FROM generate_series(1, 3) i
        ),
        CASE WHEN exact THEN 'sens.as_float8(b.weighted / b.weight)' ELSE 'b.weighted / b.weight' END,
        CASE
            WHEN NOT with_sum THEN format('NULL::%s', number)
            WHEN exact THEN 'CASE WHEN count(p.sum) = count(*) THEN sum(p.sum) END'
            -- A sum that a rollup does not know is out of range.
            ELSE 'CASE WHEN count(p.sum) = count(*) THEN sum(p.sum) ELSE 1e308::float8 * (count(*) + 9) END'
        END,
        CASE WHEN 'first' = ANY (wanted) THEN '(array_agg(p.first ORDER BY p.at))[1]' ELSE 'NULL::float8' END,
        CASE WHEN 'last' = ANY (wanted) THEN '(array_agg(p.last ORDER BY p.at DESC))[1]' ELSE 'NULL::float8' END,
        parts
    ) USING edges;
END
$$;

-- For people who ask in SQL: the calibrations by which values are read.
CREATE FUNCTION sens.own_calibrations() RETURNS TABLE (device text, metric text, edges timestamptz[], scales float8[], addends float8[])
    LANGUAGE plpgsql STABLE SECURITY DEFINER ROWS 10 SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    tenant constant int := sens.own_tenant();
BEGIN
    RETURN QUERY
        SELECT d.name, m.name, c.edges, c.scales, c.addends
        FROM sens.calibrations_of(ARRAY(
            SELECT o.id FROM sens.devices o WHERE o.tenant_id = tenant AND EXISTS (SELECT FROM sens.calibrations e WHERE e.device_id = o.id)
        )) c
            JOIN sens.devices d ON d.id = c.device_id JOIN sens.metrics m ON m.id = c.metric_id;
END
$$;

CREATE OR REPLACE VIEW sens.measurements_by_name WITH (security_barrier) AS
    SELECT s.device, e.metric, e.kind, r.ts,
        CASE
            WHEN c.edges IS NULL OR r.ts < c.edges[1]
                OR NOT (abs(r.numbers[e.number_index]) BETWEEN 1e-290 AND 1e290 OR r.numbers[e.number_index] = 0)
                THEN r.numbers[e.number_index]
            ELSE r.numbers[e.number_index] * c.scales[width_bucket(r.ts, c.edges)] + c.addends[width_bucket(r.ts, c.edges)]
        END AS value,
        r.texts[e.text_index] AS text
    FROM sens.own_device_sets() s
        JOIN sens.own_elements() e ON e.metric_set_id = s.metric_set_id
        LEFT JOIN sens.own_calibrations() c ON c.device = s.device AND c.metric = e.metric AND e.kind = 'number'
        JOIN sens.readings r ON r.device_id = s.device_id AND r.metric_set_id = s.metric_set_id
    WHERE r.numbers[e.number_index] IS NOT NULL OR r.texts[e.text_index] IS NOT NULL
    UNION ALL
    SELECT u.device, u.metric, u.kind, u.ts, u.value, u.text FROM sens.unmoved_measurements() u;

REVOKE EXECUTE ON FUNCTION sens.linear_expression(text, float8, float8),
    sens.calibrated_sources(int, int, timestamptz, timestamptz, interval, boolean),
    sens.valid_calibration(timestamptz, timestamptz[], float8[], float8[]), sens.own_calibrations() FROM public;
GRANT EXECUTE ON FUNCTION sens.own_calibrations() TO sens_reader;
