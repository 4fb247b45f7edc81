-- Pages of readings in columns, for answers with millions of rows: what the database has to say of a value is a dozen bytes, and the API
-- has nothing to do for a single one.

-- How the elements of some metrics are selected from rows `r` of some metric sets, one expression for each metric; `elements` is numbers or
-- texts. A metric that is in none of the sets, or is deleted, is NULL.
CREATE FUNCTION sens.element_expressions(elements text, sets int[], metrics int[]) RETURNS text[]
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
BEGIN
    RETURN (
        SELECT array_agg(
            CASE
                WHEN p.found IS NULL OR cardinality(array_remove(p.found, NULL)) = 0
                    THEN CASE elements WHEN 'texts' THEN 'NULL::text' ELSE 'NULL::float8' END
                WHEN p.found[1] = ALL (p.found) THEN format('r.%I[%s]', elements, p.found[1])
                ELSE format('r.%I[(%L::int[])[array_position(%L::int[], r.metric_set_id)]]', elements, p.found, p.of_sets)
            END
            ORDER BY w.ordinality
        )
        FROM unnest(metrics) WITH ORDINALITY w(id, ordinality) CROSS JOIN LATERAL (
            SELECT array_agg(x.id) AS of_sets,
                array_agg(array_position(CASE elements WHEN 'texts' THEN x.text_ids ELSE x.number_ids END, w.id)) AS found
            FROM sens.metric_sets x
            WHERE x.id = ANY (sets) AND EXISTS (SELECT FROM sens.metrics m WHERE m.id = w.id)
        ) p
    );
END
$$;

-- The statement that selects the readings of a device as (ts, rank, numbers, texts): the device's index among those that are asked for, and
-- an element for each metric in the order of `number_metrics` and `text_metrics`; 'NaN' is a number that is missing. Readings without any of them
-- are left out. Its parameters are the range ($1, $2) and the number of rows ($3); the device's own range is in it. NULL when there is nothing
-- to select.
CREATE FUNCTION sens.readings_statement(
    device int, rank int, number_metrics int[], text_metrics int[], first timestamptz, past timestamptz, descending boolean
) RETURNS text
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    sets int[];
    first_day date;
    last_day date;
    number_elements text[];
    text_elements text[];
    selected text;
    parts text;
BEGIN
    IF sens.has_former_rows(device) THEN
        -- Each series with its limit, then united by time.
        SELECT string_agg(
            format(
                'SELECT p.ts, %s AS index, %s FROM (%s) p', s.index,
                CASE s.kind WHEN 'text' THEN 'NULL::float8 AS number, p.value AS string' ELSE 'p.value AS number, NULL::text AS string' END,
                replace(replace(s.statement, '$1', format('greatest($1, %L)', first)), '$2', format('least($2, %L)', past))
            ),
            ' UNION ALL '
        )
        INTO parts
        FROM (
            SELECT w.kind, w.index, sens.page_statement(device, w.id, w.kind, descending) AS statement
            FROM (
                SELECT 'number', n.id, n.index FROM unnest(number_metrics) WITH ORDINALITY n(id, index)
                UNION ALL
                SELECT 'text', t.id, t.index FROM unnest(text_metrics) WITH ORDINALITY t(id, index)
            ) w(kind, id, index)
        ) s
        WHERE s.statement IS NOT NULL;
        IF parts IS NULL THEN
            RETURN NULL;
        END IF;
        RETURN format(
            'SELECT v.ts, %s AS rank, ARRAY[%s]::float8[] AS numbers, ARRAY[%s]::text[] AS texts FROM (%s) v GROUP BY v.ts', rank,
            (
                SELECT string_agg(format('coalesce(max(v.number) FILTER (WHERE v.index = %s AND v.number IS NOT NULL), ''NaN'')', i), ', ' ORDER BY i)
                FROM generate_series(1, cardinality(number_metrics)) i
            ),
            (
                SELECT string_agg(format('max(v.string) FILTER (WHERE v.index = %s)', i), ', ' ORDER BY i)
                FROM generate_series(1, cardinality(text_metrics)) i
            ),
            parts
        );
    END IF;
    SELECT array_agg(x.id), min(s.first_day), max(s.last_day) INTO sets, first_day, last_day
    FROM sens.device_metric_sets s JOIN sens.metric_sets x ON x.id = s.metric_set_id
    WHERE s.device_id = device AND (x.number_ids && number_metrics OR x.text_ids && text_metrics);
    IF sets IS NULL THEN
        RETURN NULL;
    END IF;
    number_elements := sens.element_expressions('numbers', sets, number_metrics);
    text_elements := sens.element_expressions('texts', sets, text_metrics);
    selected := (SELECT format('ARRAY[%s]::float8[]', string_agg(format('coalesce(%s, ''NaN'')', n.element), ', ' ORDER BY n.index))
        FROM unnest(number_elements) WITH ORDINALITY n(element, index));
    IF cardinality(sets) = 1 AND EXISTS (SELECT FROM sens.metric_sets x WHERE x.id = sets[1] AND x.number_ids = number_metrics) THEN
        -- The row's own array has just these elements; to make another one takes a third of the time of a page.
        selected := format('CASE WHEN array_position(r.numbers, NULL) IS NULL AND cardinality(r.numbers) = %s THEN r.numbers ELSE %s END',
            cardinality(number_metrics), selected);
    END IF;
    RETURN format(
        'SELECT r.ts, %s AS rank, %s AS numbers, ARRAY[%s]::text[] AS texts FROM sens.readings r'
        ' WHERE r.device_id = %s AND r.metric_set_id = ANY (%L::int[]) AND r.ts >= greatest($1, %L::timestamptz)'
        ' AND r.ts < least($2, %L::timestamptz) AND (%s)',
        rank, coalesce(selected, 'NULL::float8[]'), array_to_string(text_elements, ', '), device, sets,
        greatest(first, first_day::timestamp AT TIME ZONE 'UTC'), least(past, (last_day + 1)::timestamp AT TIME ZONE 'UTC'),
        (SELECT string_agg(format('%s IS NOT NULL', e.element), ' OR ') FROM unnest(number_elements || text_elements) e(element))
    );
END
$$;

-- The first readings of some devices, `most` at most, by time and then in the order of `devices`, as columns. A record is what one stretch of the
-- range has, in the binary forms of arrays (as array_send writes them): times in µs since 1970, indexes in `devices` from 0 (NULL where there is
-- one device), numbers row by row with 'NaN' for those that are missing, bytes of texts row by row with -1 for those that are missing; and the
-- texts of each column one after the other, in UTF-8. A record ends before `most_bytes` of texts are exceeded by more than a reading, and is
-- `cut` then: the page ends with it.
--
-- Each device has a range of its own. Metrics are those of `number_metrics` (booleans too) and `text_metrics`.
CREATE FUNCTION sens.reading_columns(
    devices int[], number_metrics int[], text_metrics int[], firsts timestamptz[], pasts timestamptz[], descending boolean, most int, most_bytes int
) RETURNS TABLE (row_count int, times bytea, device_indexes bytea, numbers bytea, text_bytes bytea, texts bytea[], cut boolean)
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' SET enable_sort = off SET enable_bitmapscan = off SET jit = off
AS $$
#variable_conflict use_column
DECLARE
    one CONSTANT boolean := cardinality(devices) = 1;
    direction CONSTANT text := CASE WHEN descending THEN 'DESC' ELSE 'ASC' END;
    sorted CONSTANT text := format(CASE WHEN one THEN 'v.ts %s' ELSE 'v.ts %s, v.rank' END, direction);
    has_texts CONSTANT boolean := cardinality(text_metrics) > 0;
    fits CONSTANT text := CASE WHEN has_texts THEN format(' FILTER (WHERE v.before < %s)', most_bytes) ELSE '' END;
    branches text[];
    starts timestamptz[];
    stops timestamptz[];
    selected text;
    source text;
    start timestamptz;
    stop timestamptz;
    width interval := interval '768 hours';
    widest interval;
    missing int := most;
BEGIN
    SELECT array_agg(b.statement), array_agg(b.first), array_agg(b.past), min(b.first), max(b.past)
    INTO branches, starts, stops, start, stop
    FROM (
        SELECT sens.readings_statement(d.id, (d.index - 1)::int, number_metrics, text_metrics, d.first, d.past, descending) AS statement,
            greatest(d.first, days.first) AS first, least(d.past, days.past) AS past
        FROM unnest(devices, firsts, pasts) WITH ORDINALITY d(id, first, past, index) CROSS JOIN LATERAL (
            SELECT CASE WHEN sens.has_former_rows(d.id) THEN '-infinity' ELSE min(s.first_day)::timestamp AT TIME ZONE 'UTC' END AS first,
                CASE WHEN sens.has_former_rows(d.id) THEN 'infinity' ELSE (max(s.last_day) + 1)::timestamp AT TIME ZONE 'UTC' END AS past
            FROM sens.device_metric_sets s WHERE s.device_id = d.id
        ) days
        WHERE sens.owns_device(d.id) AND d.first < d.past
    ) b
    WHERE b.statement IS NOT NULL;
    IF branches IS NULL THEN
        RETURN;
    END IF;
    -- A partition of each device is looked at: the more devices, the shorter the stretches.
    widest := interval '768 hours' * greatest(1, 512 / cardinality(branches));
    selected := format(
        'SELECT count(*)%1$s::int, array_send(array_agg(v.ts + interval ''262968 hours'')%1$s), %2$s, %3$s, %4$s, %5$s, %6$s',
        fits,
        CASE WHEN one THEN 'NULL::bytea' ELSE format('array_send(array_agg(v.rank)%s)', fits) END,
        CASE WHEN cardinality(number_metrics) > 0 THEN format('array_send(array_agg(v.numbers)%s)', fits) ELSE 'NULL::bytea' END,
        CASE WHEN has_texts THEN format('array_send(array_agg(v.octets)%s)', fits) ELSE 'NULL::bytea' END,
        CASE
            WHEN has_texts THEN (
                SELECT format('ARRAY[%s]', string_agg(format('convert_to(coalesce(string_agg(v.texts[%s], '''')%s, ''''), ''UTF8'')', i, fits), ', ' ORDER BY i))
                FROM generate_series(1, cardinality(text_metrics)) i
            )
            ELSE 'NULL::bytea[]'
        END,
        CASE WHEN has_texts THEN format('coalesce(bool_or(v.before >= %s), false)', most_bytes) ELSE 'false' END
    );
    WHILE start < stop AND missing > 0 LOOP
        SELECT string_agg(format('(%s ORDER BY 1 %s LIMIT $3)', b.statement, direction), ' UNION ALL ') INTO source
        FROM unnest(branches, starts, stops) b(statement, first, past)
        WHERE CASE WHEN descending THEN b.first < stop AND b.past > stop - width ELSE b.past > start AND b.first < start + width END;
        IF source IS NOT NULL THEN
            source := format('SELECT v.* FROM (%s) v ORDER BY %s LIMIT $3', source, sorted);
            IF has_texts THEN
                source := format(
                    'SELECT v.*, coalesce(sum((SELECT sum(o) FROM unnest(v.octets) o WHERE o > 0))'
                    ' OVER (ORDER BY %s ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) AS before'
                    ' FROM (SELECT v.*, ARRAY[%s] AS octets FROM (%s) v) v',
                    sorted,
                    (
                        SELECT string_agg(format('coalesce(octet_length(v.texts[%s]), -1)', i), ', ' ORDER BY i)
                        FROM generate_series(1, cardinality(text_metrics)) i
                    ),
                    source
                );
            END IF;
            EXECUTE format('%s FROM (%s) v', selected, source)
            INTO row_count, times, device_indexes, numbers, text_bytes, texts, cut
            USING CASE WHEN descending THEN greatest(start, stop - width) ELSE start END,
                CASE WHEN descending THEN stop ELSE least(stop, start + width) END,
                missing;
            IF row_count > 0 THEN
                RETURN NEXT;
            END IF;
            EXIT WHEN cut;
            missing := missing - row_count;
        END IF;
        IF descending THEN
            stop := stop - width;
        ELSE
            start := start + width;
        END IF;
        width := least(width * 2, widest);
    END LOOP;
END
$$;

-- The lowest and the highest value of a series in buckets that have values, each with a time at which it is, and how many values there are;
-- bucket i is from edges[i] on and before edges[i + 1], as far as it is in the range.
CREATE FUNCTION sens.edge_extremes(device int, metric int, starts timestamptz, ends timestamptz, edges timestamptz[])
    RETURNS TABLE (lowest_at timestamptz, lowest float8, highest_at timestamptz, highest float8, count bigint)
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET jit = off
AS $$
DECLARE
    statement CONSTANT text := sens.values_statement(device, metric, 'number');
BEGIN
    IF cardinality(edges) NOT BETWEEN 2 AND 10001 THEN
        RAISE EXCEPTION 'from 1 to 10000 buckets can be looked at at once, not %', cardinality(edges) - 1;
    ELSIF sens.owns_device(device) AND statement IS NOT NULL THEN
        -- Arrays are compared element by element: by value, then by µs.
        RETURN QUERY EXECUTE format(
            'SELECT timestamptz ''epoch'' + e.low[2] * interval ''1 microsecond'', e.low[1],'
            ' timestamptz ''epoch'' - e.high[2] * interval ''1 microsecond'', e.high[1], e.count'
            ' FROM (SELECT min(ARRAY[v.value, v.at]) AS low, max(ARRAY[v.value, -v.at]) AS high, count(*) AS count FROM ('
            ' SELECT v.value, round(date_part(''epoch'', v.ts) * 1e6) AS at, width_bucket(v.ts, $3) AS index FROM (%s) v'
            ') v GROUP BY v.index) e',
            sens.values_between(statement, greatest(starts, edges[1]), least(ends, edges[cardinality(edges)]))
        ) USING starts, ends, edges;
    END IF;
END
$$;

REVOKE EXECUTE ON FUNCTION sens.element_expressions(text, int[], int[]),
    sens.readings_statement(int, int, int[], int[], timestamptz, timestamptz, boolean),
    sens.edge_extremes(int, int, timestamptz, timestamptz, timestamptz[]),
    sens.reading_columns(int[], int[], int[], timestamptz[], timestamptz[], boolean, int, int) FROM public;
GRANT EXECUTE ON FUNCTION sens.edge_extremes(int, int, timestamptz, timestamptz, timestamptz[]),
    sens.reading_columns(int[], int[], int[], timestamptz[], timestamptz[], boolean, int, int) TO sens_api;
