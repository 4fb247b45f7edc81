-- Which partitions can be dropped: those before the earliest reading that a device has or may still have. To find that, all devices are gone
-- through, some thousand at a time. Meanwhile only two things can bring the answer forward, and both are noted: another rule, and a reading
-- that is stored in the past, whose hour is changed then.
CREATE TABLE sens.dropping (
    -- Devices up to this one are done.
    after_device_id int NOT NULL DEFAULT 0,
    -- The earliest reading that is kept of those.
    oldest timestamptz NOT NULL DEFAULT 'infinity',
    finished_at timestamptz,
    -- The earliest hour of which a change has come into the rollups since the beginning.
    oldest_change timestamptz NOT NULL DEFAULT 'infinity',
    -- Since when a partition that could be dropped has been waiting for the rollups.
    waiting_since timestamptz
) WITH (fillfactor = 50);
CREATE UNIQUE INDEX ON sens.dropping ((true));
INSERT INTO sens.dropping DEFAULT VALUES;

CREATE FUNCTION sens.begin_dropping() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    UPDATE sens.dropping SET after_device_id = 0, oldest = 'infinity', finished_at = NULL;
    RETURN NULL;
END
$$;
CREATE TRIGGER begin_dropping AFTER INSERT OR UPDATE OR DELETE ON sens.retention
    FOR EACH STATEMENT EXECUTE FUNCTION sens.begin_dropping();

CREATE FUNCTION sens.note_applied_change() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    earliest constant timestamptz := (SELECT min(c.first) FROM changed c);
BEGIN
    UPDATE sens.dropping d SET oldest_change = earliest WHERE d.oldest_change > earliest;
    RETURN NULL;
END
$$;
CREATE TRIGGER note_deleted AFTER DELETE ON sens.rollup_changes
    REFERENCING OLD TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION sens.note_applied_change();
CREATE TRIGGER note_shortened AFTER UPDATE ON sens.rollup_changes
    REFERENCING OLD TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION sens.note_applied_change();

-- The earliest reading that some devices, by their ids, have or may still have; and the last of them.
CREATE FUNCTION sens.oldest_kept_of(after int, most int, OUT oldest timestamptz, OUT last_id int, OUT number int)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET timezone = 'UTC'
    BEGIN ATOMIC
        WITH chosen AS MATERIALIZED (
            SELECT d.id, d.tenant_id FROM sens.devices d WHERE d.id > after ORDER BY d.id LIMIT most
        ), by_tenant AS (
            -- A tenant without a row for all of its metrics keeps readings for ever, and so does one with a row that says so.
            SELECT r.tenant_id, min(coalesce(date_trunc('day', now(), 'UTC') - r.days * interval '24 hours', '-infinity'::timestamptz)) AS kept_from
            FROM sens.retention r
            WHERE r.kind = 'raw' AND r.device_id IS NULL AND r.tenant_id IN (SELECT s.tenant_id FROM chosen s)
            GROUP BY r.tenant_id HAVING bool_or(r.metric IS NULL)
        ), by_device AS (
            SELECT r.device_id, min(coalesce(date_trunc('day', now(), 'UTC') - r.days * interval '24 hours', '-infinity'::timestamptz)) AS kept_from,
                bool_or(r.metric IS NULL) AS of_all
            FROM sens.retention r WHERE r.kind = 'raw' AND r.device_id IN (SELECT s.id FROM chosen s)
            GROUP BY r.device_id
        ), kept AS (
            SELECT d.id, CASE
                WHEN v.of_all THEN v.kept_from
                ELSE least(coalesce(t.kept_from, '-infinity'::timestamptz), v.kept_from)
            END AS kept_from
            FROM chosen d LEFT JOIN by_tenant t ON t.tenant_id = d.tenant_id LEFT JOIN by_device v ON v.device_id = d.id
        )
        SELECT coalesce(
                (
                    SELECT min(greatest(k.kept_from, s.first_day::timestamptz))
                    FROM kept k JOIN sens.device_metric_sets s ON s.device_id = k.id
                    WHERE (s.last_day + 1)::timestamptz > k.kept_from
                ),
                'infinity'::timestamptz
            ),
            (SELECT max(k.id) FROM kept k), (SELECT count(*)::int FROM kept k);
    END;

-- Looks at so many more devices, or drops the oldest partition or chunk of the readings when nobody keeps anything of it: `partition` is its name,
-- `finished` that nothing is to be done now.
CREATE FUNCTION sens.continue_dropping(devices int, OUT partition text, OUT finished boolean)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '200ms' SET timezone = 'UTC'
AS $$
DECLARE
    on_timescaledb constant boolean := (SELECT kind FROM sens.storage) = 'timescaledb';
    walk sens.dropping;
    step record;
    candidate text;
    ends timestamptz;
BEGIN
    finished := true;
    IF NOT EXISTS (SELECT FROM sens.retention r WHERE r.kind = 'raw' AND r.days IS NOT NULL)
        -- Readings that are being moved to another tenant belong to no device meanwhile.
        OR EXISTS (SELECT FROM sens.deletions d WHERE d.to_device_id IS NOT NULL)
    THEN
        UPDATE sens.dropping SET after_device_id = 0, oldest = 'infinity', finished_at = NULL, waiting_since = NULL
            WHERE after_device_id <> 0 OR finished_at IS NOT NULL OR waiting_since IS NOT NULL;
        RETURN;
    END IF;
    IF (SELECT d.finished_at IS NOT NULL FROM sens.dropping d) THEN
        -- The aggregates come first. A refresher that works has the row; it locks the other one after it too.
        PERFORM FROM sens.rollup_progress FOR UPDATE;
    END IF;
    SELECT * INTO walk FROM sens.dropping FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN; -- somebody else is at it
    END IF;
    IF walk.finished_at IS NULL THEN
        IF walk.after_device_id = 0 THEN
            walk.oldest_change := 'infinity';
        END IF;
        SELECT * INTO step FROM sens.oldest_kept_of(walk.after_device_id, devices);
        UPDATE sens.dropping d SET
            after_device_id = coalesce(step.last_id, d.after_device_id), oldest = least(walk.oldest, step.oldest),
            oldest_change = walk.oldest_change, finished_at = CASE WHEN step.number < devices THEN now() END;
        finished := false;
        RETURN;
    END IF;
    -- The next time it begins again, unless there is more to drop now.
    UPDATE sens.dropping SET after_device_id = 0, oldest = 'infinity', finished_at = NULL;
    walk.oldest := least(walk.oldest, now());
    IF on_timescaledb THEN
        SELECT format('%I.%I', c.chunk_schema, c.chunk_name), c.range_end INTO candidate, ends
            FROM timescaledb_information.chunks c
            WHERE c.hypertable_schema = 'sens' AND c.hypertable_name = 'readings' AND c.range_end <= walk.oldest
            ORDER BY c.range_end LIMIT 1;
    ELSE
        SELECT format('sens.%I', p.name), p.ends INTO candidate, ends
            FROM (
                SELECT c.relname AS name, CASE
                    WHEN c.relname ~ '^readings_\d{4}_\d\d$' THEN to_timestamp(c.relname, '"readings_"YYYY_MM') + interval '1 month'
                    WHEN c.relname ~ '^readings_\d{4}$' THEN to_timestamp(c.relname, '"readings_"YYYY') + interval '1 year'
                END AS ends
                FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = 'sens.readings'::regclass
            ) p
            WHERE p.ends <= walk.oldest ORDER BY p.ends LIMIT 1;
    END IF;
    IF candidate IS NULL THEN
        UPDATE sens.dropping SET waiting_since = NULL WHERE waiting_since IS NOT NULL;
        RETURN;
    END IF;
    PERFORM FROM sens.rollup_progress FOR UPDATE;
    IF (SELECT p.filled_until < ends FROM sens.rollup_progress p) OR EXISTS (SELECT FROM sens.rollup_changes c WHERE c.first < ends) THEN
        UPDATE sens.dropping SET waiting_since = coalesce(waiting_since, now());
        RETURN;
    END IF;
    UPDATE sens.rollup_progress p SET raw_complete_since = ends WHERE p.raw_complete_since IS NULL OR p.raw_complete_since < ends;
    -- Nobody stores into it from here on. On plain PostgreSQL dropping locks the table too.
    IF NOT on_timescaledb THEN
        LOCK TABLE ONLY sens.readings IN ACCESS EXCLUSIVE MODE;
    END IF;
    EXECUTE format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE', candidate);
    -- What was stored in it since all devices were looked at has changed its hours.
    IF (SELECT d.oldest_change < ends FROM sens.dropping d) OR EXISTS (SELECT FROM sens.rollup_changes c WHERE c.first < ends) THEN
        RETURN;
    END IF;
    IF on_timescaledb THEN
        EXECUTE format(
            'SELECT %I.drop_chunks(''sens.readings'', older_than => $1)',
            (SELECT n.nspname FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'timescaledb')
        ) USING ends;
    ELSE
        EXECUTE format('DROP TABLE %s', candidate);
    END IF;
    UPDATE sens.dropping SET
        after_device_id = walk.after_device_id, oldest = walk.oldest, finished_at = walk.finished_at, waiting_since = NULL;
    partition := candidate;
    finished := false;
END
$$;

-- The same until a partition is dropped, or nothing is to be done; the name, NULL without one. For an API of the version before.
CREATE OR REPLACE FUNCTION sens.drop_expired() RETURNS text
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    step record;
BEGIN
    LOOP
        SELECT * INTO step FROM sens.continue_dropping(10000);
        IF step.finished OR step.partition IS NOT NULL THEN
            RETURN step.partition;
        END IF;
    END LOOP;
END
$$;
DROP FUNCTION sens.oldest_kept_reading();

REVOKE EXECUTE ON FUNCTION sens.begin_dropping(), sens.note_applied_change(), sens.oldest_kept_of(int, int), sens.continue_dropping(int) FROM public;
GRANT EXECUTE ON FUNCTION sens.continue_dropping(int) TO sens_api;
