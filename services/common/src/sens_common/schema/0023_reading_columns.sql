-- Pages of readings in columns, quicker where rows are whole: to look into the array of each row whether a value is missing takes longer than
-- to read it. So the arrays are taken as they are; what PostgreSQL writes of all of them says whether one has a NULL, and arrays of different
-- lengths are an error. Only then are they read element by element.

-- The statement that selects the readings of a device as `readings_statement` does (`numbers` alone), for rows that have all of the metrics:
-- their arrays as they are stored. NULL where the device has other metrics as well, a calibration, or rows of the former tables.
CREATE FUNCTION sens.whole_readings_statement(device int, rank int, number_metrics int[], first timestamptz, past timestamptz) RETURNS text
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT format(
        'SELECT r.ts, %s AS rank, r.numbers, NULL::text[] AS texts FROM sens.readings r'
        ' WHERE r.device_id = %s AND r.metric_set_id = %s AND r.ts >= greatest($1, %L::timestamptz) AND r.ts < least($2, %L::timestamptz)',
        rank, device, min(x.id),
        greatest(first, min(s.first_day)::timestamp AT TIME ZONE 'UTC'), least(past, (max(s.last_day) + 1)::timestamp AT TIME ZONE 'UTC')
    )
    FROM sens.device_metric_sets s JOIN sens.metric_sets x ON x.id = s.metric_set_id
    WHERE s.device_id = device AND x.number_ids && number_metrics
    HAVING count(*) = 1 AND bool_and(x.number_ids = number_metrics)
        AND NOT EXISTS (SELECT FROM sens.calibrations c WHERE c.device_id = device)
        AND NOT sens.has_former_rows(device)
        AND (SELECT count(*) FROM sens.metrics m WHERE m.id = ANY (number_metrics)) = cardinality(number_metrics)
$$;

-- As before (0019_columns.sql), and it tries the rows as they are first.
CREATE OR REPLACE FUNCTION sens.reading_columns(
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
    whole text;
    first timestamptz;
    past timestamptz;
    start timestamptz;
    stop timestamptz;
    width interval := interval '768 hours';
    widest interval;
    missing int := most;
    -- Statements of rows as they are stored, if each device has one; NULL otherwise, and once rows turned out not to be whole.
    whole_branches text[];
BEGIN
    SELECT array_agg(b.statement), array_agg(b.first), array_agg(b.past), min(b.first), max(b.past),
        CASE WHEN NOT has_texts AND bool_and(b.whole IS NOT NULL) THEN array_agg(b.whole) END
    INTO branches, starts, stops, start, stop, whole_branches
    FROM (
        SELECT sens.readings_statement(d.id, (d.index - 1)::int, number_metrics, text_metrics, d.first, d.past, descending) AS statement,
            sens.whole_readings_statement(d.id, (d.index - 1)::int, number_metrics, d.first, d.past) AS whole,
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
        SELECT string_agg(format('(%s ORDER BY 1 %s LIMIT $3)', b.statement, direction), ' UNION ALL '),
            string_agg(format('(%s ORDER BY 1 %s LIMIT $3)', b.whole, direction), ' UNION ALL ')
        INTO source, whole
        FROM unnest(branches, whole_branches, starts, stops) b(statement, whole, first, past)
        WHERE CASE WHEN descending THEN b.first < stop AND b.past > stop - width ELSE b.past > start AND b.first < start + width END;
        IF source IS NOT NULL THEN
            source := format('SELECT v.* FROM (%s) v ORDER BY %s LIMIT $3', source, sorted);
            whole := format('SELECT v.* FROM (%s) v ORDER BY %s LIMIT $3', whole, sorted);
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
            first := CASE WHEN descending THEN greatest(start, stop - width) ELSE start END;
            past := CASE WHEN descending THEN stop ELSE least(stop, start + width) END;
            IF whole_branches IS NOT NULL THEN
                BEGIN
                    EXECUTE format('%s FROM (%s) v', selected, whole)
                    INTO row_count, times, device_indexes, numbers, text_bytes, texts, cut USING first, past, missing;
                    -- Of what array_send writes, the second word says whether an element is NULL, and the sixth how many a row has.
                    IF get_byte(numbers, 7) <> 0 OR substr(numbers, 21, 4) <> int4send(cardinality(number_metrics)) THEN
                        whole_branches := NULL;
                    END IF;
                EXCEPTION WHEN array_subscript_error OR null_value_not_allowed THEN
                    whole_branches := NULL;
                END;
            END IF;
            IF whole_branches IS NULL THEN
                EXECUTE format('%s FROM (%s) v', selected, source)
                INTO row_count, times, device_indexes, numbers, text_bytes, texts, cut USING first, past, missing;
            END IF;
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

REVOKE EXECUTE ON FUNCTION sens.whole_readings_statement(int, int, int[], timestamptz, timestamptz) FROM public;
