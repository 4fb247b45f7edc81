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
