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
