-- What the API computes of series for its answers: aggregates between any edges, minima and maxima with their times, pages in columns.

-- The statement that selects the values of a series as (ts, value); its parameters $1 and $2 are the range. NULL when there is no such series.
CREATE FUNCTION sens.values_statement(device int, metric int, kind text) RETURNS text
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
    RETURN (SELECT string_agg(s.statement, ' UNION ALL ') FROM unnest(sens.series_statements(device, metric, kind)) s(statement));

-- The same of a certain range.
CREATE FUNCTION sens.values_between(statement text, starts timestamptz, ends timestamptz) RETURNS text
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
    RETURN replace(replace(statement, '$1', quote_literal(starts) || '::timestamptz'), '$2', quote_literal(ends) || '::timestamptz');

-- A number of any size as a float8; NULL when it is too large for one.
CREATE FUNCTION sens.as_float8(number numeric) RETURNS float8
    LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp
    RETURN CASE WHEN abs(number) < 1.7976931348623158e308 THEN CASE WHEN abs(number) < 1e-307 THEN 0 ELSE number::float8 END END;

-- Aggregates of a series in buckets that have values; bucket i is from edges[i] on and before edges[i + 1], as far as it is in the range. What
-- is not wanted is NULL; the count always comes. Where rollups can answer, the coarsest one that answers exactly is read; `source` is the
-- finest of what a bucket was made of, `rows_read` of how many rows.
--
-- A sum, a difference or a weight beyond a float8 is refused as out of range, unless `exact`: then they are computed as numeric, some
-- five times slower, and those that a float8 can't hold are NULL.
CREATE FUNCTION sens.edge_aggregates(
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
                        'SELECT v.*, lag(v.value) OVER w AS before,'
                        ' extract(epoch FROM coalesce(lead(v.ts) OVER w, least($1[v.index + 1], %L)) - v.ts) AS held'
                        ' FROM (SELECT v.ts, v.value, width_bucket(v.ts, $1) AS index FROM (%s) v) v'
                        ' WINDOW w AS (PARTITION BY v.index ORDER BY v.ts)',
                        s.ends, sens.values_between(statement, s.starts, s.ends)
                    )
                    ELSE format(
                        'SELECT v.ts, v.value, width_bucket(v.ts, $1) AS index FROM (%s) v', sens.values_between(statement, s.starts, s.ends)
                    )
                END
            )
            ELSE format(
                'SELECT width_bucket(v.ts, $1), sum(v.count)::bigint, %1$s, min(v.min), max(v.max), %3$s, %4$s, min(v.ts),'
                ' NULL::%2$s, NULL::float8[], NULL::%2$s, NULL::%2$s, count(*), %5$L'
                ' FROM sens.%6$I v WHERE v.device_id = %7$s AND v.metric_id = %8$s AND v.ts >= %9$L AND v.ts < %10$L GROUP BY 1',
                CASE WHEN with_sum THEN format('CASE WHEN count(*) = count(v.sum) THEN sum(v.sum::%s) END', number) ELSE format('NULL::%s', number) END,
                number,
                CASE WHEN 'first' = ANY (wanted) THEN '(array_agg(v.first ORDER BY v.ts))[1]' ELSE 'NULL::float8' END,
                CASE WHEN 'last' = ANY (wanted) THEN '(array_agg(v.last ORDER BY v.ts DESC))[1]' ELSE 'NULL::float8' END,
                s.source, 'rollup_' || s.source, device, metric, s.starts, s.ends
            )
        END,
        ' UNION ALL '
    )
    INTO parts
    FROM sens.bucket_sources(device, metric, starts, ends, grid, timestamptz 'epoch', exact) s
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

-- How many values a text has in buckets that have some; see sens.edge_aggregates.
CREATE FUNCTION sens.edge_counts(device int, metric int, starts timestamptz, ends timestamptz, edges timestamptz[])
    RETURNS TABLE (bucket timestamptz, count bigint)
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    statement CONSTANT text := sens.values_statement(device, metric, 'text');
BEGIN
    IF cardinality(edges) NOT BETWEEN 2 AND 10001 THEN
        RAISE EXCEPTION 'from 1 to 10000 buckets can be aggregated at once, not %', cardinality(edges) - 1;
    ELSIF sens.owns_device(device) AND statement IS NOT NULL THEN
        RETURN QUERY EXECUTE format(
            'SELECT $3[width_bucket(v.ts, $3)], count(*) FROM (%s) v GROUP BY 1', statement
        ) USING starts, ends, edges;
    END IF;
END
$$;

REVOKE EXECUTE ON FUNCTION sens.values_statement(int, int, text), sens.values_between(text, timestamptz, timestamptz),
    sens.as_float8(numeric), sens.edge_aggregates(int, int, timestamptz, timestamptz, timestamptz[], text[], boolean),
    sens.edge_counts(int, int, timestamptz, timestamptz, timestamptz[]) FROM public;
GRANT EXECUTE ON FUNCTION sens.edge_aggregates(int, int, timestamptz, timestamptz, timestamptz[], text[], boolean),
    sens.edge_counts(int, int, timestamptz, timestamptz, timestamptz[]) TO sens_api;
