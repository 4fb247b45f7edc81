-- Deleting devices and metrics, in both forms of storage: rows of one value (sens.measurements) and rows of a metric set (sens.readings).

ALTER TABLE sens.deletions
    -- Of the device that is being worked on: readings before this time are done.
    ADD COLUMN reached timestamptz NOT NULL DEFAULT '-infinity',
    -- The range of which readings are deleted: all of a device or metric that is gone.
    ADD COLUMN first timestamptz NOT NULL DEFAULT '-infinity',
    ADD COLUMN past timestamptz NOT NULL DEFAULT 'infinity' CHECK (past > first),
    -- SHA-256 of the name of a device whose dead letters are deleted too, of a device that may be gone for long.
    ADD COLUMN erased_hash bytea,
    ADD COLUMN readings bigint NOT NULL DEFAULT 0,
    ADD COLUMN letters bigint NOT NULL DEFAULT 0,
    -- What is deleted, for people.
    ADD COLUMN subject text NOT NULL DEFAULT '',
    ADD COLUMN requested_at timestamptz NOT NULL DEFAULT now(),
    -- It outlives its tenant.
    DROP CONSTRAINT deletions_tenant_id_fkey,
    DROP CONSTRAINT deletions_check,
    ADD CHECK (device_id IS NOT NULL OR metric_ids IS NOT NULL OR erased_hash IS NOT NULL);

-- What deletions have removed, once they are finished.
CREATE TABLE sens.finished_deletions (
    id bigint PRIMARY KEY,
    tenant_id int NOT NULL,
    subject text NOT NULL,
    requested_at timestamptz NOT NULL,
    finished_at timestamptz NOT NULL,
    readings bigint NOT NULL,
    "values" bigint NOT NULL,
    letters bigint NOT NULL
);
CREATE INDEX ON sens.finished_deletions (tenant_id, id);
ALTER TABLE sens.finished_deletions ENABLE ROW LEVEL SECURITY;
CREATE POLICY own_tenant ON sens.finished_deletions FOR SELECT TO sens_api USING (tenant_id = (SELECT sens.current_tenant_id()));
GRANT SELECT ON sens.finished_deletions TO sens_api;

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
        FROM sens.device_metric_sets d LEFT JOIN sens.metric_sets s ON s.id = d.metric_set_id
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
-- Returns how many values, and how many readings as a whole, are gone.
CREATE FUNCTION sens.delete_values(
    device int, metrics int[], first timestamptz, past timestamptz, OUT deleted bigint, OUT readings bigint
)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET timezone = 'UTC'
AS $$
DECLARE
    within constant text := 'device_id = $1 AND ts >= $2 AND ts < $3';
    of_set text;
    series record;
    elements text[];
    number bigint;
BEGIN
    deleted := 0;
    readings := 0;
    IF metrics IS NULL THEN
        EXECUTE 'SELECT coalesce(sum(coalesce(cardinality(array_remove(numbers, NULL)), 0)'
            ' + coalesce(cardinality(array_remove(texts, NULL)), 0)), 0) FROM sens.readings WHERE ' || within
            INTO deleted USING device, first, past;
        EXECUTE 'DELETE FROM sens.readings WHERE ' || within USING device, first, past;
        GET DIAGNOSTICS readings = ROW_COUNT;
        RETURN;
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
        deleted := deleted + number;
        IF cardinality(elements) < cardinality(series.number_ids) + cardinality(series.text_ids) THEN
            EXECUTE format(
                'UPDATE sens.readings SET %s WHERE %s AND metric_set_id = %s AND num_nonnulls(%s) > 0',
                (SELECT string_agg(e || ' = NULL', ', ') FROM unnest(elements) e), within, series.id, array_to_string(elements, ', ')
            ) USING device, first, past;
            of_set := of_set || ' AND coalesce(cardinality(array_remove(numbers, NULL)), 0) = 0'
                ' AND coalesce(cardinality(array_remove(texts, NULL)), 0) = 0';
        END IF;
        EXECUTE 'DELETE ' || of_set USING device, first, past;
        GET DIAGNOSTICS number = ROW_COUNT;
        readings := readings + number;
    END LOOP;
END
$$;

-- Deletes readings of a device in a range from the oldest on: all, or the values of some metrics. It stops after `most` values or a short
-- time, and says up to which time all are gone. The rollups learn of it where it is `noted`; readings that are deleted because of their age
-- stay in them.
CREATE FUNCTION sens.delete_readings(
    device int, metrics int[], first timestamptz, past timestamptz, most int, noted boolean,
    OUT deleted bigint, OUT readings bigint, OUT reached timestamptz, OUT finished boolean
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
    gone record;
BEGIN
    deleted := 0;
    readings := 0;
    reached := first;
    finished := false;
    LOOP
        SELECT * INTO step FROM sens.reading_step(device, metrics, reached, past, greatest(1, (most - deleted) / width)::int);
        IF step.starts IS NULL THEN
            finished := true;
            RETURN;
        END IF;
        SELECT * INTO gone FROM sens.delete_values(device, metrics, step.starts, step.ends);
        deleted := deleted + gone.deleted;
        readings := readings + gone.readings;
        IF noted THEN
            PERFORM sens.note_changed(device, step.starts, step.ends);
        END IF;
        reached := step.ends;
        EXIT WHEN most - deleted < width OR clock_timestamp() >= until;
    END LOOP;
END
$$;

-- The same in the former tables, as long as they are there; they have no order by time over all metrics, so nothing is said of it. The
-- rollups do not know of them.
CREATE FUNCTION sens.delete_former(device int, metrics int[], first timestamptz, past timestamptz, most int, OUT deleted bigint, OUT finished boolean)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    target text;
    metric int;
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
                'SELECT ts FROM sens.%I WHERE device_id = $1 AND metric_id = $2 AND ts >= $3 AND ts < $4 ORDER BY ts OFFSET $5 LIMIT 1',
                target
            ) INTO following USING device, metric, first, past, most - deleted;
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
        DELETE FROM sens.device_metric_sets d
        WHERE d.device_id = device AND NOT EXISTS (SELECT FROM sens.devices e WHERE e.id = device);
        DELETE FROM sens.device_metric_sets d USING sens.metric_sets s
        WHERE d.device_id = device AND s.id = d.metric_set_id AND (s.number_ids && metrics OR s.text_ids && metrics)
            AND NOT EXISTS (SELECT FROM sens.metrics m WHERE m.id = ANY (s.number_ids || s.text_ids));
    END;

-- Deletes rollups of a device, of all or of some metrics; returns how many went, 0 when none is left. Of a range, those of its whole days
-- go: the hours at its ends are computed again, as long as their readings are there.
CREATE FUNCTION sens.delete_rollups_of(device int, metrics int[], first timestamptz, past timestamptz, most int) RETURNS int
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    first_day constant timestamptz := CASE
        WHEN isfinite(first) THEN date_trunc('day', first + interval '1 day' - interval '1 microsecond', 'UTC') ELSE first
    END;
    past_day constant timestamptz := CASE WHEN isfinite(past) THEN date_trunc('day', past, 'UTC') ELSE past END;
    metric int;
    deleted int := 0;
BEGIN
    IF first_day >= past_day THEN
        RETURN 0;
    END IF;
    FOREACH metric IN ARRAY coalesce(metrics, '{NULL}') LOOP
        deleted := sens.delete_rollups(device, metric, first_day, past_day, most);
        EXIT WHEN deleted > 0;
    END LOOP;
    RETURN deleted;
END
$$;
