-- Deleting devices and metrics, in both forms of storage: rows of one value (sens.measurements) and rows of a metric set (sens.readings).

ALTER TABLE sens.deletions
    -- Of the device that is being worked on: readings before this time are done.
    ADD COLUMN reached timestamptz NOT NULL DEFAULT '-infinity';

-- Where a step through the readings of a device begins and ends: at the first reading in the range, and where `most` are behind it;
-- `starts` is NULL when there is none. It looks where the device has readings with one of the metrics, or any where `metrics` is NULL.
-- A step lies within a year, so that only that year's partitions or chunks are planned.
CREATE FUNCTION sens.reading_step(
    device int, metrics int[], first timestamptz, past timestamptz, most int, OUT starts timestamptz, OUT ends timestamptz
)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET timezone = 'UTC'
AS $$
DECLARE
    lower_bound timestamptz;
    upper_bound timestamptz;
    year_ends timestamptz;
    chunk_ends timestamptz;
    rows_of_chunk bigint;
BEGIN
    SELECT greatest(first, min(d.first_day)::timestamptz), least(past, (max(d.last_day) + 1)::timestamptz) INTO lower_bound, upper_bound
        FROM sens.device_metric_sets d JOIN sens.metric_sets s ON s.id = d.metric_set_id
        WHERE d.device_id = device AND (metrics IS NULL OR s.number_ids && metrics OR s.text_ids && metrics)
        HAVING count(*) > 0;
    WHILE lower_bound < upper_bound LOOP
        year_ends := least(date_trunc('year', lower_bound) + interval '1 year', upper_bound);
        EXECUTE 'SELECT ts FROM sens.readings WHERE device_id = $1 AND ts >= $2 AND ts < $3 ORDER BY ts LIMIT 1'
            INTO starts USING device, lower_bound, year_ends;
        EXIT WHEN starts IS NOT NULL;
        lower_bound := year_ends;
    END LOOP;
    IF starts IS NULL THEN
        RETURN;
    END IF;
    IF metrics IS NULL AND (SELECT kind FROM sens.storage) = 'timescaledb' THEN
        -- What lies in the columnstore is deleted fastest by whole segments, which a cut within a chunk would divide.
        SELECT c.range_end INTO chunk_ends FROM timescaledb_information.chunks c
            WHERE c.hypertable_schema = 'sens' AND c.hypertable_name = 'readings' AND c.is_compressed
                AND c.range_start <= starts AND c.range_end > starts AND c.range_end <= upper_bound;
        IF FOUND THEN
            EXECUTE 'SELECT count(*) FROM sens.readings WHERE device_id = $1 AND ts >= $2 AND ts < $3'
                INTO rows_of_chunk USING device, starts, chunk_ends;
            IF rows_of_chunk <= 10 * most THEN
                ends := chunk_ends;
                RETURN;
            END IF;
        END IF;
    END IF;
    EXECUTE 'SELECT ts FROM sens.readings WHERE device_id = $1 AND ts >= $2 AND ts < $3 ORDER BY ts OFFSET $4 LIMIT 1'
        INTO ends USING device, starts, year_ends, most;
    ends := coalesce(ends, year_ends);
END
$$;

-- Deletes what a device has in a range: all, or the values of some metrics, whose elements become NULL; a row without a value is deleted.
-- Returns how many values are gone.
CREATE FUNCTION sens.delete_values(device int, metrics int[], first timestamptz, past timestamptz) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET timezone = 'UTC'
AS $$
DECLARE
    within constant text := 'device_id = $1 AND ts >= $2 AND ts < $3';
    of_set text;
    series record;
    elements text[];
    number bigint;
    total bigint := 0;
BEGIN
    IF metrics IS NULL THEN
        EXECUTE 'SELECT coalesce(sum(coalesce(cardinality(array_remove(numbers, NULL)), 0)'
            ' + coalesce(cardinality(array_remove(texts, NULL)), 0)), 0) FROM sens.readings WHERE ' || within
            INTO total USING device, first, past;
        EXECUTE 'DELETE FROM sens.readings WHERE ' || within USING device, first, past;
        RETURN total;
    END IF;
    FOR series IN
        SELECT s.id, s.number_ids, s.text_ids FROM sens.device_metric_sets d JOIN sens.metric_sets s ON s.id = d.metric_set_id
        WHERE d.device_id = device AND d.first_day <= past::date AND d.last_day >= first::date
            AND (s.number_ids && metrics OR s.text_ids && metrics)
        ORDER BY s.id
    LOOP
        SELECT array_agg(e.element) INTO elements FROM (
            SELECT format('numbers[%s]', position) FROM unnest(series.number_ids) WITH ORDINALITY AS i (id, position) WHERE id = ANY (metrics)
            UNION ALL
            SELECT format('texts[%s]', position) FROM unnest(series.text_ids) WITH ORDINALITY AS i (id, position) WHERE id = ANY (metrics)
        ) e (element);
        of_set := format('FROM sens.readings WHERE %s AND metric_set_id = %s', within, series.id);
        EXECUTE format('SELECT coalesce(sum(num_nonnulls(%s)), 0) %s', array_to_string(elements, ', '), of_set)
            INTO number USING device, first, past;
        -- A chunk in the columnstore is written again even if nothing of it changes.
        CONTINUE WHEN number = 0;
        total := total + number;
        IF cardinality(elements) < cardinality(series.number_ids) + cardinality(series.text_ids) THEN
            EXECUTE format(
                'UPDATE sens.readings SET %s WHERE %s AND metric_set_id = %s AND num_nonnulls(%s) > 0',
                (SELECT string_agg(e || ' = NULL', ', ') FROM unnest(elements) e), within, series.id, array_to_string(elements, ', ')
            ) USING device, first, past;
            of_set := of_set || ' AND coalesce(cardinality(array_remove(numbers, NULL)), 0) = 0'
                ' AND coalesce(cardinality(array_remove(texts, NULL)), 0) = 0';
        END IF;
        EXECUTE 'DELETE ' || of_set USING device, first, past;
    END LOOP;
    RETURN total;
END
$$;

-- Notes for the rollups that a range of a device has changed.
CREATE FUNCTION sens.note_deleted(device int, first timestamptz, past timestamptz) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF to_regprocedure('sens.note_changed(int, timestamptz, timestamptz)') IS NOT NULL THEN
        PERFORM sens.note_changed(device, first, past);
    END IF;
END
$$;

-- Deletes readings of a device in a range from the oldest on: all, or the values of some metrics. It stops after `most` values or a short
-- time, and says up to which time all are gone.
CREATE FUNCTION sens.delete_readings(
    device int, metrics int[], first timestamptz, past timestamptz, most int, OUT deleted bigint, OUT reached timestamptz, OUT finished boolean
)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    until constant timestamptz := clock_timestamp() + interval '200 milliseconds';
    -- Of rows with many values a step takes fewer.
    width constant int := (
        SELECT max(cardinality(s.number_ids) + cardinality(s.text_ids))
        FROM sens.device_metric_sets d JOIN sens.metric_sets s ON s.id = d.metric_set_id WHERE d.device_id = device
    );
    step record;
BEGIN
    deleted := 0;
    reached := first;
    finished := false;
    LOOP
        SELECT * INTO step FROM sens.reading_step(device, metrics, reached, past, greatest(1, (most - deleted) / width)::int);
        IF step.starts IS NULL THEN
            finished := true;
            RETURN;
        END IF;
        deleted := deleted + sens.delete_values(device, metrics, step.starts, step.ends);
        PERFORM sens.note_deleted(device, step.starts, step.ends);
        reached := step.ends;
        EXIT WHEN most - deleted < width OR clock_timestamp() >= until;
    END LOOP;
END
$$;

-- The same in the former tables, as long as they are there; they have no order by time over all metrics, so nothing is said of it.
CREATE FUNCTION sens.delete_former(device int, metrics int[], first timestamptz, past timestamptz, most int, OUT deleted bigint, OUT finished boolean)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    target text;
    metric int;
    starts timestamptz;
    following timestamptz;
    number bigint;
BEGIN
    deleted := 0;
    finished := true;
    FOREACH target IN ARRAY ARRAY['measurements', 'text_measurements'] LOOP
        CONTINUE WHEN to_regclass('sens.' || target) IS NULL;
        metric := -2147483648;
        LOOP
            IF metrics IS NULL THEN
                EXECUTE format('SELECT metric_id FROM sens.%I WHERE device_id = $1 AND metric_id > $2 ORDER BY metric_id LIMIT 1', target)
                    INTO metric USING device, metric;
            ELSE
                SELECT min(m) INTO metric FROM unnest(metrics) m WHERE m > metric;
            END IF;
            EXIT WHEN metric IS NULL;
            EXECUTE format(
                'SELECT ts FROM sens.%I WHERE device_id = $1 AND metric_id = $2 AND ts >= $3 AND ts < $4 ORDER BY ts LIMIT 1', target
            ) INTO starts USING device, metric, first, past;
            CONTINUE WHEN starts IS NULL;
            EXECUTE format(
                'SELECT ts FROM sens.%I WHERE device_id = $1 AND metric_id = $2 AND ts >= $3 AND ts < $4 ORDER BY ts OFFSET $5 LIMIT 1',
                target
            ) INTO following USING device, metric, first, past, most - deleted;
            PERFORM sens.note_deleted(device, starts, coalesce(following, past));
            EXECUTE format('DELETE FROM sens.%I WHERE device_id = $1 AND metric_id = $2 AND ts >= $3 AND ts < $4', target)
                USING device, metric, first, coalesce(following, past);
            GET DIAGNOSTICS number = ROW_COUNT;
            deleted := deleted + number;
            IF deleted >= most THEN
                finished := false;
                RETURN;
            END IF;
        END LOOP;
    END LOOP;
END
$$;

-- Forgets that a device has sets of which no metric exists any more, once it has no reading of them; all of its sets when it is gone itself.
CREATE FUNCTION sens.forget_sets(device int, metrics int[]) RETURNS void
    LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    BEGIN ATOMIC
        DELETE FROM sens.device_metric_sets d USING sens.metric_sets s
        WHERE d.device_id = device AND s.id = d.metric_set_id AND (
            NOT EXISTS (SELECT FROM sens.devices e WHERE e.id = device)
            OR (s.number_ids && metrics OR s.text_ids && metrics)
                AND NOT EXISTS (SELECT FROM sens.metrics m WHERE m.id = ANY (s.number_ids || s.text_ids))
        );
    END;

-- Goes on with one deletion, the one that was left alone for longest; no row when there is none, or when others are at all of them.
-- It deletes about `most` values at most, and works for a fraction of a second.
CREATE OR REPLACE FUNCTION sens.continue_deletion(most int) RETURNS TABLE (deletion bigint, deleted bigint, finished boolean)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '1s'
AS $$
#variable_conflict use_variable
DECLARE
    until constant timestamptz := clock_timestamp() + interval '200 milliseconds';
    task sens.deletions;
    device int;
    step record;
BEGIN
    SELECT * INTO task FROM sens.deletions d ORDER BY d.continued_at, d.id LIMIT 1 FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    deletion := task.id;
    deleted := 0;
    LOOP
        device := coalesce(
            task.device_id,
            (SELECT min(d.id) FROM sens.devices d WHERE d.tenant_id = task.tenant_id AND d.id > task.after_device_id)
        );
        finished := device IS NULL;
        EXIT WHEN finished;
        IF to_regclass('sens.measurements') IS NOT NULL OR EXISTS (
            SELECT FROM sens.device_metric_sets d JOIN sens.metric_sets s ON s.id = d.metric_set_id
            WHERE d.device_id = device AND (s.number_ids && task.metric_ids OR s.text_ids && task.metric_ids)
        ) THEN
            -- Whoever merges values into rows of the device waits, and so does whoever moves its rows.
            PERFORM FROM sens.devices d WHERE d.id = device FOR NO KEY UPDATE;
        END IF;
        SELECT * INTO step FROM sens.delete_former(device, task.metric_ids, '-infinity', 'infinity', (most - deleted)::int);
        deleted := deleted + step.deleted;
        EXIT WHEN NOT step.finished;
        SELECT * INTO step FROM sens.delete_readings(device, task.metric_ids, task.reached, 'infinity', (most - deleted)::int);
        deleted := deleted + step.deleted;
        task.reached := step.reached;
        EXIT WHEN NOT step.finished;
        PERFORM sens.forget_sets(device, task.metric_ids);
        task.reached := '-infinity';
        finished := task.device_id IS NOT NULL;
        EXIT WHEN finished;
        task.after_device_id := device;
        EXIT WHEN deleted >= most OR clock_timestamp() >= until;
    END LOOP;
    IF finished THEN
        DELETE FROM sens.deletions d WHERE d.id = task.id;
    ELSE
        UPDATE sens.deletions d
        SET continued_at = clock_timestamp(), deleted = d.deleted + continue_deletion.deleted,
            after_device_id = task.after_device_id, reached = task.reached
        WHERE d.id = task.id;
    END IF;
    RETURN NEXT;
END
$$;

DROP FUNCTION sens.delete_oldest(text, int, int, int);
REVOKE EXECUTE ON FUNCTION sens.reading_step(int, int[], timestamptz, timestamptz, int), sens.delete_values(int, int[], timestamptz, timestamptz),
    sens.delete_readings(int, int[], timestamptz, timestamptz, int), sens.delete_former(int, int[], timestamptz, timestamptz, int),
    sens.note_deleted(int, timestamptz, timestamptz), sens.forget_sets(int, int[]) FROM public;
