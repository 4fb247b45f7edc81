-- Deleting rollups of a range exactly, also where their readings are gone; and what is older than it is kept.

-- Deletes rollups of a device, of all or of some metrics; returns how many went, 0 when none is left. Of a range, the hours and days go that
-- lie in it as a whole. A day at its ends is computed again of the hours that are left; an hour, as long as its readings are there.
CREATE OR REPLACE FUNCTION sens.delete_rollups_of(device int, metrics int[], first timestamptz, past timestamptz, most int) RETURNS int
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    of_range constant boolean := isfinite(first) OR isfinite(past);
    first_hour constant timestamptz := CASE
        WHEN isfinite(first) THEN date_bin('1 hour', first + interval '1 hour' - interval '1 microsecond', 'epoch') ELSE first
    END;
    past_hour constant timestamptz := CASE WHEN isfinite(past) THEN date_bin('1 hour', past, 'epoch') ELSE past END;
    first_day constant timestamptz := CASE
        WHEN isfinite(first) THEN date_bin('1 day', first + interval '1 day' - interval '1 microsecond', 'epoch') ELSE first
    END;
    past_day constant timestamptz := CASE WHEN isfinite(past) THEN date_bin('1 day', past, 'epoch') ELSE past END;
    metric int;
    edge timestamptz;
    starts timestamptz;
    ends timestamptz;
    number int;
    deleted int := 0;
BEGIN
    IF NOT of_range THEN
        FOREACH metric IN ARRAY coalesce(metrics, '{NULL}') LOOP
            deleted := sens.delete_rollups(device, metric, first, past, most);
            EXIT WHEN deleted > 0;
        END LOOP;
        RETURN deleted;
    END IF;
    PERFORM set_config('timescaledb.max_tuples_decompressed_per_dml_transaction', '0', true);
    -- Who works on rollups has done it, or sees what is deleted here.
    PERFORM FROM sens.rollup_progress FOR SHARE;
    FOR edge IN
        SELECT DISTINCT date_bin('1 day', e.at, 'epoch') FROM (VALUES (first, first_day), (past, past_day)) AS e (at, day)
        WHERE isfinite(e.at) AND e.at <> e.day
    LOOP
        starts := greatest(edge, first_hour);
        ends := least(edge + interval '1 day', past_hour);
        CONTINUE WHEN starts >= ends;
        DELETE FROM sens.rollup_1h r
            WHERE r.device_id = device AND (r.metric_id = ANY (metrics) OR metrics IS NULL) AND r.ts >= starts AND r.ts < ends;
        GET DIAGNOSTICS number = ROW_COUNT;
        IF number > 0 THEN
            deleted := deleted + number;
            PERFORM sens.note_changed(device, edge, edge + interval '1 day');
        END IF;
    END LOOP;
    IF first_day >= past_day THEN
        RETURN deleted;
    END IF;
    FOREACH metric IN ARRAY coalesce(metrics, ARRAY(SELECT n.metric_id FROM sens.numbers_of_device(device) n)) LOOP
        LOOP
            EXIT WHEN deleted >= most;
            starts := least(
                (SELECT r.ts FROM sens.rollup_1h r
                    WHERE r.device_id = device AND r.metric_id = metric AND r.ts >= first_day AND r.ts < past_day ORDER BY r.ts LIMIT 1),
                (SELECT r.ts FROM sens.rollup_1d r
                    WHERE r.device_id = device AND r.metric_id = metric AND r.ts >= first_day AND r.ts < past_day ORDER BY r.ts LIMIT 1)
            );
            EXIT WHEN starts IS NULL;
            starts := date_bin('1 day', starts, 'epoch');
            ends := least(past_day, starts + interval '32 days');
            DELETE FROM sens.rollup_1h r WHERE r.device_id = device AND r.metric_id = metric AND r.ts >= starts AND r.ts < ends;
            GET DIAGNOSTICS number = ROW_COUNT;
            deleted := deleted + number;
            DELETE FROM sens.rollup_1d r WHERE r.device_id = device AND r.metric_id = metric AND r.ts >= starts AND r.ts < ends;
            GET DIAGNOSTICS number = ROW_COUNT;
            deleted := deleted + number;
            -- Readings that were stored meanwhile are in the rollups of these days again.
            PERFORM sens.note_changed(device, starts, ends);
        END LOOP;
    END LOOP;
    RETURN deleted;
END
$$;

-- The hours and days at the ends of a range that lie partly in it and can't be computed again, because what they are made of is gone.
CREATE FUNCTION sens.uncut_rollups(device text, metric text, first timestamptz, past timestamptz) RETURNS TABLE (kind text, starts timestamptz)
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    tenant constant int := sens.current_tenant_id();
    device_id constant int := (SELECT d.id FROM sens.devices d WHERE d.tenant_id = tenant AND d.name = device);
BEGIN
    RETURN QUERY
        WITH series AS MATERIALIZED (
            SELECT n.metric_id, sens.complete_since(device_id, n.metric_id, 'raw') AS raw, sens.complete_since(device_id, n.metric_id, 'rollup_1h') AS hours
            FROM sens.numbers_of_device(device_id) n JOIN sens.metrics m ON m.id = n.metric_id WHERE m.name = metric OR metric IS NULL
        ), edge AS (
            SELECT date_bin('1 hour', e.at, 'epoch') AS hour, date_bin('1 day', e.at, 'epoch') AS day, e.at FROM unnest(ARRAY[first, past]) AS e (at)
        )
        SELECT DISTINCT 'rollup_1h', e.hour
        FROM edge e CROSS JOIN series s JOIN sens.rollup_1h r ON r.device_id = device_id AND r.metric_id = s.metric_id AND r.ts = e.hour
        WHERE e.at > e.hour AND e.hour < s.raw
        UNION ALL
        SELECT DISTINCT 'rollup_1d', e.day
        FROM edge e CROSS JOIN series s JOIN sens.rollup_1d r ON r.device_id = device_id AND r.metric_id = s.metric_id AND r.ts = e.day
        WHERE e.at > e.day AND e.day < least(s.raw, s.hours)
        ORDER BY 2, 1;
END
$$;

-- Deletes what of a device is older than it is kept, unless that was done since a time; `finished` when nothing more is to be done now,
-- `waits` when something has to wait for the rollups.
DROP FUNCTION sens.expire_device(int, int, timestamptz, timestamptz, int, timestamptz);
CREATE FUNCTION sens.expire_device(
    tenant int, device int, longest timestamptz, since timestamptz, most int, until timestamptz,
    OUT "values" bigint, OUT rollups bigint, OUT finished boolean, OUT waits boolean
)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    oldest timestamptz;
    part record;
    step record;
BEGIN
    "values" := 0;
    rollups := 0;
    finished := true;
    waits := false;
    IF EXISTS (SELECT FROM sens.device_retention r WHERE r.device_id = device AND r.checked_at >= since)
        -- What is still to come to it would come too late.
        OR EXISTS (SELECT FROM sens.deletions d WHERE d.to_device_id = device)
    THEN
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
        PERFORM sens.note_expired(device, part.ids, 'raw', part.before);
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

-- Since when something that is older than it is kept has been waiting for the rollups.
ALTER TABLE sens.retention_progress ADD COLUMN waiting_since timestamptz, ADD COLUMN waits boolean NOT NULL DEFAULT false;

-- Goes on with what is older than it is kept, of the tenant that was left alone for longest; no row when nothing is to be done now.
CREATE OR REPLACE FUNCTION sens.continue_retention(most int) RETURNS TABLE (
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
        -- Partitions are dropped before a row is deleted: see sens.continue_dropping.
        UPDATE sens.retention_progress p
            SET started_at = now(), continued_at = clock_timestamp(), finished_at = NULL, after_device_id = 0, waits = false
            WHERE p.tenant_id = task.tenant_id;
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
            task.waits := task.waits OR step.waits;
            EXIT WHEN NOT step.finished;
            task.after_device_id := device;
            EXIT WHEN "values" >= most OR clock_timestamp() >= until;
        END LOOP;
    END IF;
    UPDATE sens.retention_progress p
        SET continued_at = clock_timestamp(), finished_at = CASE WHEN finished THEN now() END,
            after_device_id = task.after_device_id, "values" = p."values" + continue_retention."values",
            rollups = p.rollups + continue_retention.rollups, letters = p.letters + continue_retention.letters,
            waits = task.waits,
            waiting_since = CASE WHEN task.waits THEN coalesce(p.waiting_since, now()) WHEN NOT finished THEN p.waiting_since END
        WHERE p.tenant_id = task.tenant_id;
    RETURN NEXT;
END
$$;

REVOKE EXECUTE ON FUNCTION sens.uncut_rollups(text, text, timestamptz, timestamptz),
    sens.expire_device(int, int, timestamptz, timestamptz, int, timestamptz) FROM public;
GRANT EXECUTE ON FUNCTION sens.uncut_rollups(text, text, timestamptz, timestamptz) TO sens_api;
