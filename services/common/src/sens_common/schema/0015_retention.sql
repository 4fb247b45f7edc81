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
    has_sets boolean;
    number bigint := 0;
    step record;
BEGIN
    SELECT * INTO task FROM sens.deletions d ORDER BY d.continued_at, d.id LIMIT 1 FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    deletion := task.id;
    deleted := 0;
    finished := false;
    IF task.erased_hash IS NOT NULL THEN
        DELETE FROM sens.dead_letters l WHERE l.id IN (
            SELECT o.id FROM sens.dead_letters o
            WHERE o.tenant_id = task.tenant_id AND sha256(convert_to(o.device, 'UTF8')) = task.erased_hash
                AND o.received_at < (SELECT e.erased_at FROM sens.erasures e WHERE e.deletion_id = task.id)
            ORDER BY o.id LIMIT most
        );
        GET DIAGNOSTICS number = ROW_COUNT;
        task.letters := task.letters + number;
        finished := number < most AND task.device_id IS NULL;
    END IF;
    WHILE NOT finished AND number < most LOOP
        device := coalesce(
            task.device_id,
            (SELECT min(d.id) FROM sens.devices d WHERE d.tenant_id = task.tenant_id AND d.id > task.after_device_id)
        );
        finished := device IS NULL;
        EXIT WHEN finished;
        IF sens.has_former_rows(device) THEN
            -- Whoever moves its rows waits; what has been moved so far is in the sets that are looked for next.
            PERFORM FROM sens.devices d WHERE d.id = device FOR NO KEY UPDATE;
        END IF;
        has_sets := EXISTS (
            SELECT FROM sens.device_metric_sets d LEFT JOIN sens.metric_sets s ON s.id = d.metric_set_id
            WHERE d.device_id = device AND (task.metric_ids IS NULL OR s.number_ids && task.metric_ids OR s.text_ids && task.metric_ids)
        );
        IF has_sets THEN
            -- Whoever merges values into rows of the device waits.
            PERFORM FROM sens.devices d WHERE d.id = device FOR NO KEY UPDATE;
        END IF;
        SELECT * INTO step FROM sens.delete_former(device, task.metric_ids, task.first, task.past, (most - deleted)::int);
        deleted := deleted + step.deleted;
        EXIT WHEN NOT step.finished;
        IF has_sets THEN
            SELECT * INTO step FROM sens.delete_readings(
                device, task.metric_ids, greatest(task.reached, task.first), task.past, (most - deleted)::int, noted => true
            );
            deleted := deleted + step.deleted;
            task.readings := task.readings + step.readings;
            task.reached := step.reached;
            EXIT WHEN NOT step.finished;
            EXIT WHEN sens.delete_rollups_of(device, task.metric_ids, task.first, task.past, (most - deleted)::int) > 0;
            PERFORM sens.forget_sets(device, task.metric_ids);
        END IF;
        task.reached := '-infinity';
        finished := task.device_id IS NOT NULL;
        EXIT WHEN finished;
        task.after_device_id := device;
        EXIT WHEN deleted >= most OR clock_timestamp() >= until;
    END LOOP;
    IF finished THEN
        DELETE FROM sens.deletions d WHERE d.id = task.id;
        INSERT INTO sens.finished_deletions
            VALUES (task.id, task.tenant_id, task.subject, task.requested_at, now(), task.readings, task.deleted + deleted, task.letters);
    ELSE
        UPDATE sens.deletions d
        SET continued_at = clock_timestamp(), deleted = d.deleted + continue_deletion.deleted,
            readings = task.readings, letters = task.letters,
            after_device_id = task.after_device_id, reached = task.reached
        WHERE d.id = task.id;
    END IF;
    RETURN NEXT;
END
$$;

DROP FUNCTION sens.delete_oldest(text, int, int, int);
REVOKE EXECUTE ON FUNCTION sens.reading_step(int, int[], timestamptz, timestamptz, int), sens.delete_values(int, int[], timestamptz, timestamptz),
    sens.delete_readings(int, int[], timestamptz, timestamptz, int, boolean), sens.delete_former(int, int[], timestamptz, timestamptz, int),
    sens.delete_rollups_of(int, int[], timestamptz, timestamptz, int), sens.forget_sets(int, int[]) FROM public;

-- How long what is kept: of a tenant, and of a device, a metric, or a metric of a device where that is set. Without a row: for ever.
CREATE TABLE sens.retention (
    tenant_id int NOT NULL REFERENCES sens.tenants ON DELETE CASCADE,
    device_id int REFERENCES sens.devices ON DELETE CASCADE,
    metric text COLLATE "C",
    -- Readings, their aggregates of hours and of days, dead letters.
    kind text NOT NULL CHECK (kind IN ('raw', 'rollup_1h', 'rollup_1d', 'dead_letters')),
    -- NULL: for ever, although the tenant or the device has a row with days.
    days int CHECK (days BETWEEN 1 AND 36500),
    UNIQUE NULLS NOT DISTINCT (tenant_id, device_id, metric, kind),
    CHECK (kind <> 'dead_letters' OR (device_id IS NULL AND metric IS NULL))
);
CREATE INDEX ON sens.retention (device_id);

-- How far the deletion of what is older is, for each tenant that has a row above. It begins again every hour, and after a change.
CREATE TABLE sens.retention_progress (
    tenant_id int PRIMARY KEY REFERENCES sens.tenants ON DELETE CASCADE,
    started_at timestamptz,
    continued_at timestamptz NOT NULL DEFAULT '-infinity',
    finished_at timestamptz,
    changed_at timestamptz NOT NULL DEFAULT now(),
    -- Devices up to this one are done.
    after_device_id int NOT NULL DEFAULT 0,
    -- Since ever.
    "values" bigint NOT NULL DEFAULT 0,
    rollups bigint NOT NULL DEFAULT 0,
    letters bigint NOT NULL DEFAULT 0
);

-- Of devices from which something is deleted because of its age.
CREATE TABLE sens.device_retention (
    device_id int PRIMARY KEY REFERENCES sens.devices ON DELETE CASCADE,
    -- Readings before it may be gone: the hours before are never computed again.
    raw_complete_since timestamptz NOT NULL DEFAULT '-infinity',
    -- When nothing was left that is older than it is kept.
    checked_at timestamptz NOT NULL DEFAULT '-infinity'
) WITH (fillfactor = 80);

ALTER TABLE sens.retention ENABLE ROW LEVEL SECURITY;
ALTER TABLE sens.retention_progress ENABLE ROW LEVEL SECURITY;
CREATE POLICY own_tenant ON sens.retention FOR SELECT TO sens_api USING (tenant_id = (SELECT sens.current_tenant_id()));
CREATE POLICY own_tenant ON sens.retention_progress FOR SELECT TO sens_api USING (tenant_id = (SELECT sens.current_tenant_id()));
GRANT SELECT ON sens.retention, sens.retention_progress TO sens_api;

CREATE OR REPLACE FUNCTION sens.raw_complete_since(device int) RETURNS timestamptz
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
    RETURN greatest(
        (SELECT p.raw_complete_since FROM sens.rollup_progress p),
        (SELECT nullif(r.raw_complete_since, '-infinity') FROM sens.device_retention r WHERE r.device_id = raw_complete_since.device)
    );

-- The first day (UTC) of which something is kept; '-infinity' where it is kept for ever. The narrowest row counts: of a metric of the device,
-- of the device, of the metric, of the tenant.
CREATE FUNCTION sens.kept_from(tenant int, device int, metric text, kind text) RETURNS timestamptz
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
    RETURN coalesce(
        (
            SELECT date_trunc('day', now(), 'UTC') - r.days * interval '24 hours'
            FROM sens.retention r
            WHERE r.tenant_id = tenant AND r.kind = kept_from.kind
                AND (r.device_id IS NULL OR r.device_id = device) AND (r.metric IS NULL OR r.metric = kept_from.metric)
            ORDER BY r.device_id IS NULL, r.metric IS NULL
            LIMIT 1
        ),
        '-infinity'
    );

-- Readings older than a tenant accepts would be stored and deleted at once.
CREATE FUNCTION sens.check_late_days() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    tenant constant int := to_jsonb(new) ->> CASE TG_TABLE_NAME WHEN 'tenants' THEN 'id' ELSE 'tenant_id' END;
    late constant int := (SELECT t.late_days FROM sens.tenants t WHERE t.id = tenant);
    kept constant int := (SELECT min(r.days) FROM sens.retention r WHERE r.tenant_id = tenant AND r.kind = 'raw');
BEGIN
    IF kept < late THEN
        RAISE 'readings may lie % days back (late_days), and would be kept for % days only (raw retention)', late, kept
            USING ERRCODE = 'check_violation', CONSTRAINT = 'late_days_within_retention';
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER check_late_days AFTER INSERT OR UPDATE ON sens.retention FOR EACH ROW EXECUTE FUNCTION sens.check_late_days();
CREATE TRIGGER check_late_days AFTER UPDATE OF late_days ON sens.tenants FOR EACH ROW EXECUTE FUNCTION sens.check_late_days();

-- Says how long something of the current tenant is kept; `forget` removes what was said. It returns what became of it: changed, unchanged,
-- or unknown_device.
CREATE FUNCTION sens.set_retention(
    kind text, device text, metric text, days int, forget boolean, actor text, address text, request_id text
) RETURNS text
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    tenant constant int := sens.current_tenant_id();
    device_id int;
    before int;
    existed boolean;
BEGIN
    PERFORM FROM sens.tenants t WHERE t.id = tenant FOR NO KEY UPDATE; -- late_days stays as it is
    IF device IS NOT NULL THEN
        SELECT d.id INTO device_id FROM sens.devices d WHERE d.tenant_id = tenant AND d.name = device FOR KEY SHARE;
        IF NOT FOUND THEN
            RETURN 'unknown_device';
        END IF;
    END IF;
    SELECT r.days INTO before FROM sens.retention r
        WHERE r.tenant_id = tenant AND r.kind = kind AND r.device_id IS NOT DISTINCT FROM device_id AND r.metric IS NOT DISTINCT FROM metric;
    existed := FOUND;
    IF existed <> forget AND (forget OR before IS NOT DISTINCT FROM days) THEN
        RETURN 'unchanged';
    END IF;
    DELETE FROM sens.retention r
        WHERE r.tenant_id = tenant AND r.kind = kind AND r.device_id IS NOT DISTINCT FROM device_id AND r.metric IS NOT DISTINCT FROM metric;
    IF NOT forget THEN
        INSERT INTO sens.retention (tenant_id, device_id, metric, kind, days) VALUES (tenant, device_id, metric, kind, days);
    END IF;
    INSERT INTO sens.retention_progress AS p (tenant_id) VALUES (tenant)
        ON CONFLICT (tenant_id) DO UPDATE SET after_device_id = 0, finished_at = NULL, started_at = NULL, changed_at = clock_timestamp();
    PERFORM sens.record_audit(
        tenant, actor, 'retention.changed', kind,
        jsonb_strip_nulls(jsonb_build_object('device', device, 'metric', metric))
            || jsonb_build_object(
                'before', CASE WHEN NOT existed THEN 'unset' ELSE coalesce(before::text, 'for ever') END,
                'after', CASE WHEN forget THEN 'unset' ELSE coalesce(days::text, 'for ever') END
            ),
        address, request_id
    );
    RETURN 'changed';
END
$$;

-- The time from which some tenant keeps all of its readings.
CREATE FUNCTION sens.longest_kept() RETURNS timestamptz
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
    RETURN (SELECT min(sens.kept_from(t.id, NULL, NULL, 'raw')) FROM sens.tenants t WHERE EXISTS (SELECT FROM sens.devices d WHERE d.tenant_id = t.id));

-- Where to cut through readings: at the beginning of a chunk of the columnstore, whose segments would be divided else; at the beginning of a
-- month when nobody keeps readings for longer, so that the month is dropped as a whole later; else at the time itself.
CREATE FUNCTION sens.cut_before(at timestamptz, longest timestamptz) RETURNS timestamptz
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    begins timestamptz;
BEGIN
    IF NOT isfinite(at) THEN
        RETURN at;
    ELSIF (SELECT kind FROM sens.storage) = 'timescaledb' THEN
        SELECT c.range_start INTO begins FROM timescaledb_information.chunks c
            WHERE c.hypertable_schema = 'sens' AND c.hypertable_name = 'readings' AND c.is_compressed
                AND c.range_start <= at AND c.range_end > at;
    ELSIF at <= longest THEN
        begins := date_trunc('month', at, 'UTC');
    END IF;
    RETURN coalesce(begins, at);
END
$$;

-- The metrics that a device has or had.
CREATE FUNCTION sens.metrics_of_device(device int) RETURNS int[]
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    RETURN ARRAY(
        SELECT DISTINCT unnest(s.number_ids || s.text_ids)
        FROM sens.device_metric_sets d JOIN sens.metric_sets s ON s.id = d.metric_set_id WHERE d.device_id = device
    );

-- The metrics of a device, by the time from which something of them is kept; `ids` is NULL for all of them together.
CREATE FUNCTION sens.kept_metrics(tenant int, device int, kind text) RETURNS TABLE (kept_from timestamptz, ids int[])
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
BEGIN
    IF NOT EXISTS (
        SELECT FROM sens.retention r
        WHERE r.tenant_id = tenant AND r.kind = kind AND r.metric IS NOT NULL AND (r.device_id IS NULL OR r.device_id = device)
    ) THEN
        RETURN QUERY SELECT sens.kept_from(tenant, device, NULL, kind), NULL::int[];
        RETURN;
    END IF;
    RETURN QUERY
        SELECT sens.kept_from(tenant, device, m.name, kind), array_agg(m.id)
        FROM sens.metrics m WHERE m.id = ANY (sens.metrics_of_device(device))
        GROUP BY 1;
END
$$;

-- The rollups of a device that are older than they are kept.
CREATE FUNCTION sens.expire_rollups(tenant int, device int, until timestamptz, OUT deleted bigint, OUT finished boolean)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    target text;
    part record;
    metric int;
    number bigint;
BEGIN
    deleted := 0;
    finished := true;
    FOREACH target IN ARRAY ARRAY['rollup_1h', 'rollup_1d'] LOOP
        FOR part IN SELECT k.kept_from AS before, k.ids FROM sens.kept_metrics(tenant, device, target) k WHERE isfinite(k.kept_from) LOOP
            FOREACH metric IN ARRAY coalesce(part.ids, sens.metrics_of_device(device)) LOOP
                EXECUTE format('DELETE FROM sens.%I WHERE device_id = $1 AND metric_id = $2 AND ts < $3', target)
                    USING device, metric, part.before;
                GET DIAGNOSTICS number = ROW_COUNT;
                deleted := deleted + number;
                IF number > 0 AND clock_timestamp() >= until THEN
                    finished := false;
                    RETURN;
                END IF;
            END LOOP;
        END LOOP;
    END LOOP;
END
$$;

-- Deletes what of a device is older than it is kept, unless that was done since a time; `finished` when nothing more is to be done now.
CREATE FUNCTION sens.expire_device(
    tenant int, device int, longest timestamptz, since timestamptz, most int, until timestamptz, OUT "values" bigint, OUT rollups bigint, OUT finished boolean
)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    oldest timestamptz;
    part record;
    step record;
    waits boolean := false;
BEGIN
    "values" := 0;
    rollups := 0;
    finished := true;
    IF EXISTS (SELECT FROM sens.device_retention r WHERE r.device_id = device AND r.checked_at >= since) THEN
        RETURN;
    END IF;
    SELECT min(k.kept_from) INTO oldest FROM sens.kept_metrics(tenant, device, 'raw') k;
    FOR part IN
        -- Whole rows first, then what of the others goes earlier.
        SELECT sens.cut_before(oldest, longest) AS before, NULL::int[] AS ids WHERE isfinite(oldest)
        UNION ALL
        (SELECT sens.cut_before(k.kept_from, longest), k.ids FROM sens.kept_metrics(tenant, device, 'raw') k WHERE k.kept_from > oldest ORDER BY 1)
    LOOP
        IF NOT sens.rollups_complete(device, part.before) THEN
            waits := true; -- the aggregates come first
            CONTINUE;
        END IF;
        -- Whoever merges values into rows of the device waits.
        PERFORM FROM sens.devices d WHERE d.id = device FOR NO KEY UPDATE;
        INSERT INTO sens.device_retention AS r (device_id, raw_complete_since) VALUES (device, part.before)
            ON CONFLICT (device_id) DO UPDATE SET raw_complete_since = excluded.raw_complete_since
            WHERE r.raw_complete_since < excluded.raw_complete_since;
        SELECT * INTO step FROM sens.delete_readings(device, part.ids, '-infinity', part.before, (most - "values")::int, noted => false);
        "values" := "values" + step.deleted;
        IF NOT step.finished OR "values" >= most THEN
            finished := false;
            RETURN;
        END IF;
    END LOOP;
    SELECT * INTO step FROM sens.expire_rollups(tenant, device, until);
    rollups := step.deleted;
    finished := step.finished;
    IF finished AND NOT waits THEN
        INSERT INTO sens.device_retention AS r (device_id, checked_at) VALUES (device, clock_timestamp())
            ON CONFLICT (device_id) DO UPDATE SET checked_at = excluded.checked_at;
    END IF;
END
$$;

-- Goes on with what is older than it is kept, of the tenant that was left alone for longest; no row when nothing is to be done now.
CREATE FUNCTION sens.continue_retention(most int) RETURNS TABLE (
    tenant_id int, begins boolean, "values" bigint, rollups bigint, letters bigint, finished boolean
)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '1s'
AS $$
#variable_conflict use_variable
DECLARE
    until constant timestamptz := clock_timestamp() + interval '200 milliseconds';
    longest constant timestamptz := sens.longest_kept();
    task sens.retention_progress;
    device int;
    step record;
BEGIN
    SELECT * INTO task FROM sens.retention_progress p
        WHERE p.finished_at IS NULL OR p.finished_at < now() - interval '1 hour'
        ORDER BY p.continued_at LIMIT 1 FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    tenant_id := task.tenant_id;
    "values" := 0;
    rollups := 0;
    letters := 0;
    finished := false;
    begins := task.finished_at IS NOT NULL OR task.started_at IS NULL;
    IF begins THEN
        -- Partitions are dropped before a row is deleted: see sens.drop_expired.
        UPDATE sens.retention_progress p
            SET started_at = now(), continued_at = clock_timestamp(), finished_at = NULL, after_device_id = 0 WHERE p.tenant_id = task.tenant_id;
        RETURN NEXT;
        RETURN;
    END IF;
    IF task.after_device_id = 0 AND isfinite(sens.kept_from(tenant_id, NULL, NULL, 'dead_letters')) THEN
        DELETE FROM sens.dead_letters l WHERE l.id IN (
            SELECT o.id FROM sens.dead_letters o
            WHERE o.tenant_id = task.tenant_id AND o.dead_lettered_at < sens.kept_from(task.tenant_id, NULL, NULL, 'dead_letters')
            ORDER BY o.id LIMIT most
        );
        GET DIAGNOSTICS letters = ROW_COUNT;
    END IF;
    IF letters < most THEN
        LOOP
            SELECT min(d.id) INTO device FROM sens.devices d WHERE d.tenant_id = task.tenant_id AND d.id > task.after_device_id;
            finished := device IS NULL;
            EXIT WHEN finished;
            SELECT * INTO step FROM sens.expire_device(
                tenant_id, device, longest, greatest(date_trunc('day', now(), 'UTC'), task.changed_at), (most - "values")::int, until
            );
            "values" := "values" + step."values";
            rollups := rollups + step.rollups;
            EXIT WHEN NOT step.finished;
            task.after_device_id := device;
            EXIT WHEN "values" >= most OR clock_timestamp() >= until;
        END LOOP;
    END IF;
    UPDATE sens.retention_progress p
        SET continued_at = clock_timestamp(), finished_at = CASE WHEN finished THEN now() END,
            after_device_id = task.after_device_id, "values" = p."values" + continue_retention."values",
            rollups = p.rollups + continue_retention.rollups, letters = p.letters + continue_retention.letters
        WHERE p.tenant_id = task.tenant_id;
    RETURN NEXT;
END
$$;

-- Before which time no reading is kept: the earliest that a device has or may still have.
CREATE FUNCTION sens.oldest_kept_reading() RETURNS timestamptz
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET timezone = 'UTC'
    BEGIN ATOMIC
        WITH by_tenant AS (
            -- A tenant without a row for all of its metrics keeps readings for ever, and so does one with a row that says so.
            SELECT r.tenant_id, min(coalesce(date_trunc('day', now(), 'UTC') - r.days * interval '24 hours', '-infinity'::timestamptz)) AS kept_from
            FROM sens.retention r WHERE r.kind = 'raw' AND r.device_id IS NULL
            GROUP BY r.tenant_id HAVING bool_or(r.metric IS NULL)
        ), by_device AS (
            SELECT r.device_id, min(coalesce(date_trunc('day', now(), 'UTC') - r.days * interval '24 hours', '-infinity'::timestamptz)) AS kept_from,
                bool_or(r.metric IS NULL) AS of_all
            FROM sens.retention r WHERE r.kind = 'raw' AND r.device_id IS NOT NULL
            GROUP BY r.device_id
        ), kept AS (
            SELECT d.id, CASE
                WHEN v.of_all THEN v.kept_from
                ELSE least(coalesce(t.kept_from, '-infinity'::timestamptz), v.kept_from)
            END AS kept_from
            FROM sens.devices d LEFT JOIN by_tenant t ON t.tenant_id = d.tenant_id LEFT JOIN by_device v ON v.device_id = d.id
        )
        SELECT coalesce(min(greatest(k.kept_from, s.first_day::timestamptz)), 'infinity'::timestamptz)
        FROM kept k JOIN sens.device_metric_sets s ON s.device_id = k.id
        WHERE (s.last_day + 1)::timestamptz > k.kept_from;
    END;

-- Drops the oldest partition or chunk of the readings when nobody keeps anything of it; returns its name, NULL when there is none.
CREATE FUNCTION sens.drop_expired() RETURNS text
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '200ms' SET timezone = 'UTC'
AS $$
DECLARE
    on_timescaledb constant boolean := (SELECT kind FROM sens.storage) = 'timescaledb';
    oldest timestamptz;
    partition text;
    ends timestamptz;
BEGIN
    IF NOT EXISTS (SELECT FROM sens.retention r WHERE r.kind = 'raw' AND r.days IS NOT NULL) THEN
        RETURN NULL;
    END IF;
    oldest := least(sens.oldest_kept_reading(), now());
    IF on_timescaledb THEN
        SELECT format('%I.%I', c.chunk_schema, c.chunk_name), c.range_end INTO partition, ends
            FROM timescaledb_information.chunks c
            WHERE c.hypertable_schema = 'sens' AND c.hypertable_name = 'readings' AND c.range_end <= oldest
            ORDER BY c.range_end LIMIT 1;
    ELSE
        SELECT format('sens.%I', p.name), p.ends INTO partition, ends
            FROM (
                SELECT c.relname AS name, CASE
                    WHEN c.relname ~ '^readings_\d{4}_\d\d$' THEN to_timestamp(c.relname, '"readings_"YYYY_MM') + interval '1 month'
                    WHEN c.relname ~ '^readings_\d{4}$' THEN to_timestamp(c.relname, '"readings_"YYYY') + interval '1 year'
                END AS ends
                FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = 'sens.readings'::regclass
            ) p
            WHERE p.ends <= oldest ORDER BY p.ends LIMIT 1;
    END IF;
    IF partition IS NULL THEN
        RETURN NULL;
    END IF;
    -- The aggregates come first. A refresher that works has the row.
    PERFORM FROM sens.rollup_progress FOR UPDATE;
    IF (SELECT p.filled_until < ends FROM sens.rollup_progress p) OR EXISTS (SELECT FROM sens.rollup_changes c WHERE c.first < ends) THEN
        RETURN NULL;
    END IF;
    UPDATE sens.rollup_progress p SET raw_complete_since = ends WHERE p.raw_complete_since IS NULL OR p.raw_complete_since < ends;
    -- Nobody stores into it from here on; what was stored before is seen by the second look. On plain PostgreSQL dropping locks the table too.
    IF NOT on_timescaledb THEN
        LOCK TABLE ONLY sens.readings IN ACCESS EXCLUSIVE MODE;
    END IF;
    EXECUTE format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE', partition);
    IF sens.oldest_kept_reading() < ends THEN
        RETURN NULL;
    END IF;
    IF on_timescaledb THEN
        EXECUTE format(
            'SELECT %I.drop_chunks(''sens.readings'', older_than => $1)',
            (SELECT n.nspname FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'timescaledb')
        ) USING ends;
    ELSE
        EXECUTE format('DROP TABLE %s', partition);
    END IF;
    RETURN partition;
END
$$;

REVOKE EXECUTE ON FUNCTION sens.raw_complete_since(int), sens.kept_from(int, int, text, text), sens.check_late_days(),
    sens.set_retention(text, text, text, int, boolean, text, text, text), sens.longest_kept(), sens.cut_before(timestamptz, timestamptz),
    sens.kept_metrics(int, int, text),
    sens.metrics_of_device(int), sens.expire_rollups(int, int, timestamptz),
    sens.expire_device(int, int, timestamptz, timestamptz, int, timestamptz), sens.continue_retention(int), sens.oldest_kept_reading(), sens.drop_expired() FROM public;
GRANT EXECUTE ON FUNCTION sens.set_retention(text, text, text, int, boolean, text, text, text), sens.continue_retention(int),
    sens.drop_expired() TO sens_api;
