-- Reading calibrated values: the functions by which values of series, pages of readings and latest values are read, as before, with what
-- 0022_calibration.sql says. A device without calibrations costs one look into an index more.

-- The statements that select the values of a series as (ts, value), one for each form of rows in which the device may have some; their
-- parameters $1 and $2 are the range. `kind` is number (booleans too) or text. None when there is no such series.
CREATE OR REPLACE FUNCTION sens.series_statements(device int, metric int, kind text) RETURNS text[]
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
    edges timestamptz[];
    scales float8[];
    addends float8[];
    -- Of a calibrated series the value as it is stored and its scale come too.
    calibrated boolean := false;
    statements text[] := '{}';
BEGIN
    IF NOT EXISTS (SELECT FROM sens.metrics m WHERE m.id = metric) THEN
        RETURN statements;
    END IF;
    IF kind = 'number' AND EXISTS (SELECT FROM sens.calibrations c WHERE c.device_id = device AND c.metric_id = metric) THEN
        SELECT c.edges, c.scales, c.addends INTO edges, scales, addends FROM sens.calibrations_of(ARRAY[device]) c WHERE c.metric_id = metric;
        calibrated := edges IS NOT NULL;
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
            'SELECT r.ts, %6$s FROM sens.readings r WHERE r.device_id = %2$s AND r.metric_set_id = ANY (%3$L::int[])'
            ' AND r.ts >= greatest($1, %4$L) AND r.ts < least($2, %5$L) AND %1$s IS NOT NULL',
            element, device, sets, first::timestamp AT TIME ZONE 'UTC', (last + 1)::timestamp AT TIME ZONE 'UTC',
            CASE
                WHEN calibrated THEN format(
                    '%s AS value, %s AS raw, %s AS scale',
                    sens.calibrated_expression(element, 'r.ts', edges, scales, addends), element,
                    sens.scale_expression('r.ts', edges, scales)
                )
                ELSE element || ' AS value'
            END
        );
    END IF;
    IF sens.has_former_rows(device) THEN
        statements := statements || format(
            'SELECT m.ts, %s FROM sens.%I m WHERE m.device_id = %s AND m.metric_id = %s AND m.ts >= greatest($1, %L) AND m.ts < $2',
            CASE
                WHEN calibrated THEN format(
                    '%s AS value, m.value AS raw, %s AS scale',
                    sens.calibrated_expression('m.value', 'm.ts', edges, scales, addends),
                    sens.scale_expression('m.ts', edges, scales)
                )
                ELSE 'm.value'
            END,
            former, device, metric, sens.former_rows_from(device)
        );
    END IF;
    RETURN statements;
END
$$;

-- The newest value of each series of some devices that has one; `number` holds those of booleans too, `string` those of texts.
CREATE OR REPLACE FUNCTION sens.latest_of_devices(devices int[])
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
        SELECT DISTINCT ON (f.device_id, f.metric_id) f.device_id, f.metric_id, m.name, m.kind, f.ts,
            sens.calibrated_at(f.number, f.ts, c.edges, c.scales, c.addends), f.string
        FROM found f JOIN sens.metrics m ON m.id = f.metric_id
            LEFT JOIN sens.calibrations_of(own) c ON c.device_id = f.device_id AND c.metric_id = f.metric_id
        ORDER BY f.device_id, f.metric_id, f.ts DESC;
END
$$;

-- The statement that selects the readings of a device as (ts, rank, numbers, texts): the device's index among those that are asked for, and
-- an element for each metric in the order of `number_metrics` and `text_metrics`; 'NaN' is a number that is missing. Readings without any of them
-- are left out. Its parameters are the range ($1, $2) and the number of rows ($3); the device's own range is in it. NULL when there is nothing
-- to select.
CREATE OR REPLACE FUNCTION sens.readings_statement(
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
    -- The elements of numbers as they are read.
    calibrated text[];
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
    IF EXISTS (SELECT FROM sens.calibrations c WHERE c.device_id = device) THEN
        SELECT array_agg(sens.calibrated_expression(n.element, 'r.ts', c.edges, c.scales, c.addends) ORDER BY n.index) INTO calibrated
        FROM unnest(number_elements, number_metrics) WITH ORDINALITY n(element, id, index)
            LEFT JOIN sens.calibrations_of(ARRAY[device]) c ON c.metric_id = n.id;
    ELSE
        calibrated := number_elements;
    END IF;
    selected := (SELECT format('ARRAY[%s]::float8[]', string_agg(format('coalesce(%s, ''NaN'')', n.element), ', ' ORDER BY n.index))
        FROM unnest(calibrated) WITH ORDINALITY n(element, index));
    IF calibrated = number_elements AND cardinality(sets) = 1 AND EXISTS (SELECT FROM sens.metric_sets x WHERE x.id = sets[1] AND x.number_ids = number_metrics) THEN
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
