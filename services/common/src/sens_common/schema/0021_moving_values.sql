-- The steps of a device's move: see sens.move_device.

-- The id of the metric set of a tenant that has these metrics; it is made where there is none.
CREATE FUNCTION sens.ensure_metric_set(tenant int, number_ids int[], text_ids int[]) RETURNS int
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    digest constant bytea := sens.metric_set_digest(number_ids, text_ids);
    found int;
BEGIN
    SELECT s.id INTO found FROM sens.metric_sets s WHERE s.tenant_id = tenant AND s.digest = digest;
    IF found IS NULL THEN
        INSERT INTO sens.metric_sets (tenant_id, number_ids, text_ids) VALUES (tenant, number_ids, text_ids) ON CONFLICT DO NOTHING;
        SELECT s.id INTO found FROM sens.metric_sets s WHERE s.tenant_id = tenant AND s.digest = digest;
    END IF;
    RETURN found;
END
$$;

-- Says that a device has readings of a metric set on some days.
CREATE FUNCTION sens.widen_days(device int, metric_set int, first date, last date) RETURNS void
    LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    BEGIN ATOMIC
        INSERT INTO sens.device_metric_sets AS k (device_id, metric_set_id, first_day, last_day) VALUES (device, metric_set, first, last)
        ON CONFLICT (device_id, metric_set_id) DO UPDATE
        SET first_day = least(k.first_day, excluded.first_day), last_day = greatest(k.last_day, excluded.last_day)
        WHERE excluded.first_day < k.first_day OR excluded.last_day > k.last_day;
    END;

-- Adds the values of a reading to the one that another device has at the same time; what is there already stays. The caller deletes the former.
CREATE FUNCTION sens.unite_reading(device int, other int, from_ids int[], to_ids int[], at timestamptz) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET timezone = 'UTC'
AS $$
DECLARE
    united record;
    set_id int;
BEGIN
    WITH own AS (
        SELECT s.number_ids, s.text_ids, r.numbers, r.texts, r.device_id = other AS stays
        FROM sens.readings r JOIN sens.metric_sets s ON s.id = r.metric_set_id
        WHERE r.device_id IN (device, other) AND r.ts = at
    ), element AS (
        SELECT n.id, n.number, NULL::text AS string, false AS is_text, o.stays
        FROM own o CROSS JOIN LATERAL unnest(o.number_ids, o.numbers) AS n (id, number)
        UNION ALL
        SELECT x.id, NULL, x.string, true, o.stays FROM own o CROSS JOIN LATERAL unnest(o.text_ids, o.texts) AS x (id, string)
    ), renamed AS (
        SELECT CASE WHEN e.stays THEN e.id ELSE t.id END AS id, e.number, e.string, e.is_text, e.stays
        FROM element e LEFT JOIN unnest(from_ids, to_ids) AS t (former, id) ON t.former = e.id
    ), chosen AS (
        SELECT DISTINCT ON (r.id) r.* FROM renamed r WHERE EXISTS (SELECT FROM sens.metrics m WHERE m.id = r.id)
        ORDER BY r.id, num_nonnulls(r.number, r.string) = 0, NOT r.stays
    )
    SELECT coalesce(array_agg(c.id ORDER BY c.id) FILTER (WHERE NOT c.is_text), '{}') AS number_ids,
        coalesce(array_agg(c.id ORDER BY c.id) FILTER (WHERE c.is_text), '{}') AS text_ids,
        array_agg(c.number ORDER BY c.id) FILTER (WHERE NOT c.is_text) AS numbers,
        array_agg(c.string ORDER BY c.id) FILTER (WHERE c.is_text) AS texts
    INTO united FROM chosen c;
    IF united.numbers IS NULL AND united.texts IS NULL THEN
        RETURN; -- all metrics of both are deleted
    END IF;
    set_id := sens.ensure_metric_set((SELECT d.tenant_id FROM sens.devices d WHERE d.id = other), united.number_ids, united.text_ids);
    PERFORM sens.widen_days(other, set_id, at::date, at::date);
    UPDATE sens.readings r SET metric_set_id = set_id, numbers = united.numbers, texts = united.texts WHERE r.device_id = other AND r.ts = at;
END
$$;

-- Moves values of a device to another one, from the oldest on, then the rollups that are not computed again there. It stops after `most` values
-- or a short time, and says up to which time all are moved. The caller holds the gate of names.
CREATE FUNCTION sens.move_values(
    device int, other int, from_ids int[], to_ids int[], since timestamptz, most int,
    OUT deleted bigint, OUT readings bigint, OUT reached timestamptz, OUT finished boolean
)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET timezone = 'UTC'
AS $$
DECLARE
    most_at_same_times constant int := 200;
    until constant timestamptz := clock_timestamp() + interval '200 milliseconds';
    tenant constant int := (SELECT d.tenant_id FROM sens.devices d WHERE d.id = other);
    metrics constant int[] := sens.metrics_of_device(device);
    -- Of rows with many values a step takes fewer.
    width constant int := greatest(1, (
        SELECT max(cardinality(s.number_ids) + cardinality(s.text_ids))
        FROM sens.device_metric_sets d JOIN sens.metric_sets s ON s.id = d.metric_set_id WHERE d.device_id = device
    ));
    step record;
    series record;
    times timestamptz[];
    at timestamptz;
    set_id int;
    moved record;
    number bigint;
BEGIN
    deleted := 0;
    readings := 0;
    reached := since;
    finished := false;
    PERFORM set_config('timescaledb.max_tuples_decompressed_per_dml_transaction', '0', true);
    -- Whoever merges values into rows of the device waits.
    PERFORM FROM sens.devices d WHERE d.id = other FOR NO KEY UPDATE;
    LOOP
        SELECT * INTO step FROM sens.reading_step(device, metrics, reached, 'infinity', greatest(1, (most - deleted) / width)::int);
        EXIT WHEN step.starts IS NULL;
        EXECUTE 'SELECT array_agg(o.ts ORDER BY o.ts) FROM (SELECT o.ts FROM sens.readings o WHERE o.device_id = $1 AND o.ts >= $3 AND o.ts < $4'
            ' AND EXISTS (SELECT FROM sens.readings n WHERE n.device_id = $2 AND n.ts = o.ts AND n.ts >= $3 AND n.ts < $4) ORDER BY o.ts LIMIT $5) o'
            INTO times USING device, other, step.starts, step.ends, most_at_same_times + 1;
        IF cardinality(times) > most_at_same_times THEN
            step.ends := times[most_at_same_times + 1];
            times := times[:most_at_same_times];
        END IF;
        PERFORM sens.note_changed(other, step.starts, step.ends);
        FOREACH at IN ARRAY coalesce(times, '{}') LOOP
            PERFORM sens.unite_reading(device, other, from_ids, to_ids, at);
        END LOOP;
        EXECUTE 'SELECT coalesce(sum(coalesce(cardinality(array_remove(numbers, NULL)), 0) + coalesce(cardinality(array_remove(texts, NULL)), 0)), 0)'
            ' FROM sens.readings WHERE device_id = $1 AND ts >= $2 AND ts < $3'
            INTO number USING device, step.starts, step.ends;
        FOR series IN
            SELECT d.metric_set_id AS id, e.*, greatest(d.first_day, step.starts::date) AS first, least(d.last_day, step.ends::date) AS last
            FROM sens.device_metric_sets d CROSS JOIN LATERAL sens.set_elsewhere(d.metric_set_id, from_ids, to_ids) e
            WHERE d.device_id = device AND d.first_day <= step.ends::date AND d.last_day >= step.starts::date
                AND num_nonnulls(e.numbers, e.texts) > 0
            ORDER BY d.metric_set_id
        LOOP
            set_id := sens.ensure_metric_set(tenant, series.number_ids, series.text_ids);
            EXECUTE format(
                'WITH source AS MATERIALIZED ('
                ' SELECT r.ts, %s AS numbers, %s AS texts FROM sens.readings r'
                ' WHERE r.device_id = $1 AND r.metric_set_id = $2 AND r.ts >= $3 AND r.ts < $4 AND r.ts <> ALL ($5) AND num_nonnulls(%s) > 0'
                '), added AS ('
                ' INSERT INTO sens.readings (device_id, metric_set_id, ts, numbers, texts)'
                ' SELECT $6, $7, s.ts, s.numbers, s.texts FROM source s ORDER BY s.ts ON CONFLICT (device_id, ts) DO NOTHING RETURNING 1'
                ') SELECT (SELECT count(*) FROM source) AS wanted, (SELECT count(*) FROM added) AS added',
                coalesce('ARRAY[' || series.numbers || ']', 'NULL::float8[]'), coalesce('ARRAY[' || series.texts || ']', 'NULL::text[]'),
                concat_ws(', ', series.numbers, series.texts)
            ) INTO moved USING device, series.id, step.starts, step.ends, coalesce(times, '{}'), other, set_id;
            IF moved.added < moved.wanted THEN
                RAISE 'readings of the device are stored at the same times just now' USING ERRCODE = 'lock_not_available';
            ELSIF moved.wanted > 0 THEN
                PERFORM sens.widen_days(other, set_id, series.first, series.last);
            END IF;
        END LOOP;
        deleted := deleted + number;
        EXECUTE 'DELETE FROM sens.readings WHERE device_id = $1 AND ts >= $2 AND ts < $3' USING device, step.starts, step.ends;
        GET DIAGNOSTICS number = ROW_COUNT;
        readings := readings + number;
        reached := step.ends;
        IF most - deleted < width OR clock_timestamp() >= until THEN
            RETURN;
        END IF;
    END LOOP;
    IF sens.move_rollups(device, other, from_ids, to_ids, most, until) OR sens.delete_rollups(device, NULL, '-infinity', 'infinity', most) > 0 THEN
        RETURN;
    END IF;
    PERFORM sens.forget_sets(device, NULL);
    finished := true;
END
$$;

-- Moves rollups of hours whose readings are gone because of their age, and of days whose hours are gone too; the others are computed from what
-- was moved. Returns whether there was something.
CREATE FUNCTION sens.move_rollups(device int, other int, from_ids int[], to_ids int[], most int, until timestamptz) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    metric record;
    part record;
    following timestamptz;
    first timestamptz;
    number int;
    total int := 0;
BEGIN
    FOR metric IN
        SELECT t.former, t.id, sens.complete_since(other, t.id, 'raw') AS raw, sens.complete_since(other, t.id, 'rollup_1h') AS hours
        FROM unnest(from_ids, to_ids) AS t (former, id) WHERE EXISTS (SELECT FROM sens.metrics m WHERE m.id = t.id)
    LOOP
        FOR part IN VALUES ('rollup_1h', metric.raw), ('rollup_1d', least(metric.raw, metric.hours)) LOOP
            LOOP
                EXECUTE format('SELECT ts FROM sens.%I WHERE device_id = $1 AND metric_id = $2 AND ts < $3 ORDER BY ts LIMIT 1', part.column1)
                    INTO first USING device, metric.former, part.column2;
                EXIT WHEN first IS NULL;
                EXECUTE format(
                    'SELECT ts FROM sens.%I WHERE device_id = $1 AND metric_id = $2 AND ts < $3 ORDER BY ts OFFSET $4 LIMIT 1', part.column1
                ) INTO following USING device, metric.former, part.column2, most;
                following := coalesce(following, part.column2);
                EXECUTE format(
                    'INSERT INTO sens.%1$I SELECT $1, $2, r.ts, r.count, r.sum, r.min, r.max, r.first, r.last'
                    ' FROM sens.%1$I r WHERE r.device_id = $3 AND r.metric_id = $4 AND r.ts < $5 ORDER BY r.ts ON CONFLICT DO NOTHING',
                    part.column1
                ) USING other, metric.id, device, metric.former, following;
                EXECUTE format('DELETE FROM sens.%I WHERE device_id = $1 AND metric_id = $2 AND ts < $3', part.column1)
                    USING device, metric.former, following;
                GET DIAGNOSTICS number = ROW_COUNT;
                IF part.column1 = 'rollup_1h' THEN
                    -- Their days are made of them.
                    PERFORM sens.note_changed(other, first, following);
                END IF;
                total := total + number;
                IF total >= most OR clock_timestamp() >= until THEN
                    RETURN true;
                END IF;
            END LOOP;
        END LOOP;
    END LOOP;
    RETURN total > 0;
END
$$;

REVOKE EXECUTE ON FUNCTION sens.ensure_metric_set(int, int[], int[]), sens.widen_days(int, int, date, date),
    sens.unite_reading(int, int, int[], int[], timestamptz), sens.move_values(int, int, int[], int[], timestamptz, int),
    sens.move_rollups(int, int, int[], int[], int, timestamptz) FROM public;
