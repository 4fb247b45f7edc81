-- Deletions of tenants, and moves of devices to another tenant, are rows of sens.deletions too: both go on in short steps.
ALTER TABLE sens.deletions
    -- All that a tenant has.
    ADD COLUMN whole_tenant boolean NOT NULL DEFAULT false,
    -- What goes from the device comes to this one, of this tenant. A metric of the one is the metric of the other at the same index.
    ADD COLUMN to_device_id int,
    ADD COLUMN to_tenant_id int,
    ADD COLUMN from_metric_ids int[],
    ADD COLUMN to_metric_ids int[],
    -- It belongs to this deletion, which ends after it.
    ADD COLUMN part_of bigint;
ALTER TABLE sens.finished_deletions ADD COLUMN to_tenant_id int;
DO $$
DECLARE
    old name;
BEGIN
    SELECT conname INTO old FROM pg_constraint
        WHERE conrelid = 'sens.deletions'::regclass AND pg_get_constraintdef(oid) LIKE '%erased_hash IS NOT NULL%';
    EXECUTE format('ALTER TABLE sens.deletions DROP CONSTRAINT %I', old);
END
$$;
ALTER TABLE sens.deletions
    ADD CONSTRAINT deletions_of_something CHECK (device_id IS NOT NULL OR metric_ids IS NOT NULL OR erased_hash IS NOT NULL OR whole_tenant);
CREATE INDEX ON sens.deletions (to_device_id) WHERE to_device_id IS NOT NULL;
-- Both tenants see how far a move is.
DROP POLICY own_tenant ON sens.deletions;
DROP POLICY own_tenant ON sens.finished_deletions;
CREATE POLICY own_tenant ON sens.deletions FOR SELECT TO sens_api
    USING (tenant_id = (SELECT sens.current_tenant_id()) OR to_tenant_id = (SELECT sens.current_tenant_id()));
CREATE POLICY own_tenant ON sens.finished_deletions FOR SELECT TO sens_api
    USING (tenant_id = (SELECT sens.current_tenant_id()) OR to_tenant_id = (SELECT sens.current_tenant_id()));
CREATE INDEX ON sens.finished_deletions (to_tenant_id, id) WHERE to_tenant_id IS NOT NULL;

-- Deletes what a device has, or its values of some metrics, in a range, from a time on that was reached before; `finished` when nothing is left.
CREATE FUNCTION sens.delete_of_device(
    device int, metrics int[], first timestamptz, past timestamptz, since timestamptz, most int,
    OUT deleted bigint, OUT readings bigint, OUT reached timestamptz, OUT finished boolean
)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    has_sets boolean;
    step record;
BEGIN
    readings := 0;
    reached := since;
    IF sens.has_former_rows(device) THEN
        -- Whoever moves its rows waits; what has been moved so far is in the sets that are looked for next.
        PERFORM FROM sens.devices d WHERE d.id = device FOR NO KEY UPDATE;
    END IF;
    has_sets := EXISTS (
        SELECT FROM sens.device_metric_sets d LEFT JOIN sens.metric_sets s ON s.id = d.metric_set_id
        WHERE d.device_id = device AND (metrics IS NULL OR s.number_ids && metrics OR s.text_ids && metrics)
    );
    IF has_sets THEN
        -- Whoever merges values into rows of the device waits.
        PERFORM FROM sens.devices d WHERE d.id = device FOR NO KEY UPDATE;
    END IF;
    SELECT f.deleted, f.finished INTO deleted, finished FROM sens.delete_former(device, metrics, first, past, most) f;
    IF NOT finished OR NOT has_sets THEN
        RETURN;
    END IF;
    SELECT * INTO step FROM sens.delete_readings(device, metrics, greatest(since, first), past, (most - deleted)::int, noted => true);
    deleted := deleted + step.deleted;
    readings := step.readings;
    reached := step.reached;
    finished := step.finished;
    IF finished AND sens.delete_rollups_of(device, metrics, first, past, (most - deleted)::int) > 0 THEN
        finished := false;
    END IF;
    IF finished THEN
        PERFORM sens.forget_sets(device, metrics);
    END IF;
END
$$;

-- Deletes what a tenant has besides devices, then the tenant; returns how many rows of the former went, 0 when the latter is gone.
CREATE FUNCTION sens.delete_rest_of_tenant(tenant int, most int) RETURNS int
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    target text;
    number int;
BEGIN
    FOREACH target IN ARRAY ARRAY['dead_letters', 'metrics', 'metric_sets', 'retention', 'tenant_sizes'] LOOP
        EXECUTE format('DELETE FROM sens.%1$I WHERE ctid = ANY (ARRAY(SELECT ctid FROM sens.%1$I WHERE tenant_id = $1 LIMIT $2))', target)
            USING tenant, most;
        GET DIAGNOSTICS number = ROW_COUNT;
        IF number > 0 THEN
            RETURN number;
        END IF;
    END LOOP;
    -- Of a day all rows or none: each day is accounted for.
    DELETE FROM sens.message_counts c WHERE c.tenant_id = tenant AND c.day IN (
        SELECT o.day FROM sens.message_counts o WHERE o.tenant_id = tenant GROUP BY o.day ORDER BY o.day LIMIT 30
    );
    GET DIAGNOSTICS number = ROW_COUNT;
    IF number = 0 THEN
        DELETE FROM sens.tenants t WHERE t.id = tenant;
    END IF;
    RETURN number;
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
    number bigint := 0;
    step record;
BEGIN
    IF EXISTS (SELECT FROM sens.deletions d WHERE d.to_device_id IS NOT NULL) THEN
        -- Names stay while readings are moved; whoever changes them locks the gate first, then rows of sens.deletions.
        LOCK TABLE sens.name_generation IN ACCESS SHARE MODE;
    END IF;
    SELECT * INTO task FROM sens.deletions d ORDER BY d.continued_at, d.id LIMIT 1 FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    IF task.to_device_id IS NOT NULL THEN
        LOCK TABLE sens.name_generation IN ACCESS SHARE MODE;
        IF NOT EXISTS (SELECT FROM sens.devices d WHERE d.id = task.to_device_id) THEN
            -- The device was deleted where it came to.
            task.to_device_id := NULL;
            task.reached := '-infinity';
        END IF;
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
        IF device IS NULL THEN
            finished := NOT task.whole_tenant OR sens.delete_rest_of_tenant(task.tenant_id, most) = 0;
            EXIT;
        ELSIF task.to_device_id IS NOT NULL THEN
            SELECT * INTO step FROM sens.move_values(device, task.to_device_id, task.from_metric_ids, task.to_metric_ids, task.reached, most);
        ELSE
            SELECT * INTO step
            FROM sens.delete_of_device(device, task.metric_ids, task.first, task.past, task.reached, (most - deleted)::int);
        END IF;
        deleted := deleted + step.deleted;
        task.readings := task.readings + step.readings;
        task.reached := step.reached;
        EXIT WHEN NOT step.finished;
        IF task.whole_tenant THEN
            DELETE FROM sens.devices d WHERE d.id = device;
            PERFORM sens.forget_sets(device, NULL);
        END IF;
        task.reached := '-infinity';
        finished := task.device_id IS NOT NULL;
        EXIT WHEN finished;
        task.after_device_id := device;
        EXIT WHEN deleted >= most OR clock_timestamp() >= until;
    END LOOP;
    finished := finished AND NOT EXISTS (SELECT FROM sens.deletions p WHERE p.part_of = task.id);
    IF NOT finished THEN
        UPDATE sens.deletions d
        SET continued_at = clock_timestamp(), deleted = d.deleted + continue_deletion.deleted,
            readings = task.readings, letters = task.letters,
            after_device_id = task.after_device_id, reached = task.reached, to_device_id = task.to_device_id
        WHERE d.id = task.id;
        RETURN NEXT;
        RETURN;
    END IF;
    DELETE FROM sens.deletions d WHERE d.id = task.id;
    IF task.part_of IS NOT NULL THEN
        UPDATE sens.deletions d
            SET deleted = d.deleted + task.deleted + continue_deletion.deleted, readings = d.readings + task.readings WHERE d.id = task.part_of;
    ELSE
        INSERT INTO sens.finished_deletions (id, tenant_id, subject, requested_at, finished_at, readings, "values", letters, to_tenant_id)
            VALUES (
                task.id, task.tenant_id, task.subject, task.requested_at, now(), task.readings, task.deleted + deleted, task.letters,
                CASE WHEN task.to_device_id IS NOT NULL THEN task.to_tenant_id END
            );
    END IF;
    RETURN NEXT;
END
$$;

-- When a tenant was deleted. It has no name any more that a topic could have, and goes once all is gone that it had.
ALTER TABLE sens.tenants ADD COLUMN deleted_at timestamptz;

-- Deletes a tenant: nobody finds it any more, and all that it has goes in steps. Returns how many devices it had, NULL when there is no such
-- tenant. For the owner.
CREATE OR REPLACE FUNCTION sens.delete_tenant(tenant text, actor text) RETURNS int
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    gone constant int := (SELECT t.id FROM sens.tenants t WHERE t.name = tenant AND t.deleted_at IS NULL);
    device_count int;
BEGIN
    IF gone IS NULL THEN
        RETURN NULL;
    END IF;
    LOCK TABLE sens.name_generation IN ACCESS EXCLUSIVE MODE;
    SELECT r.devices INTO device_count FROM sens.registrations r WHERE r.tenant_id = gone FOR UPDATE;
    UPDATE sens.name_generation SET generation = generation + 1;
    PERFORM sens.record_audit(gone, actor, 'tenant.deleted', 'tenant ' || tenant);
    DELETE FROM sens.api_keys k WHERE k.tenant_id = gone;
    DELETE FROM sens.retention_progress p WHERE p.tenant_id = gone;
    DELETE FROM sens.sources s WHERE s.tenant_id = gone;
    UPDATE sens.tenants t
        SET name = 'deleted-' || t.id || '-' || replace(gen_random_uuid()::text, '-', ''), deleted_at = now(),
            named_generation = (SELECT g.generation FROM sens.name_generation g), messages_per_second = NULL
        WHERE t.id = gone;
    INSERT INTO sens.deletions (tenant_id, whole_tenant, subject) VALUES (gone, true, 'tenant ' || tenant);
    RETURN coalesce(device_count, 0);
END
$$;

-- Erases a device of a tenant: what is stored of it goes in steps, dead letters too, and none of its messages from before `at` is stored again.
-- The device need not exist any more. Twice has no effect. Returns the erasure's id.
CREATE OR REPLACE FUNCTION sens.apply_erasure(tenant int, hash bytea, at timestamptz) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    known constant bigint := (SELECT e.id FROM sens.erasures e WHERE e.tenant_id = tenant AND e.device_hash = hash AND e.erased_at = at);
    gone int;
    deletion bigint;
    erasure bigint;
BEGIN
    IF known IS NOT NULL THEN
        RETURN known;
    END IF;
    PERFORM sens.begin_deletion(tenant);
    DELETE FROM sens.devices d
        WHERE d.tenant_id = tenant AND sha256(convert_to(d.name, 'UTF8')) = hash
            -- It has had the name since before.
            AND coalesce((SELECT max(f.until) FROM sens.former_names f WHERE f.device_id = d.id AND f.tenant_id = tenant), d.created_at) < at
        RETURNING d.id INTO gone;
    IF gone IS NOT NULL THEN
        UPDATE sens.registrations SET devices = greatest(devices - 1, 0) WHERE tenant_id = tenant;
    END IF;
    INSERT INTO sens.deletions (tenant_id, device_id, erased_hash, subject) VALUES (tenant, gone, hash, 'an erased device')
        RETURNING id INTO deletion;
    -- What was still to come to it from another tenant.
    UPDATE sens.deletions d SET to_device_id = NULL, reached = '-infinity', part_of = deletion, readings = 0, deleted = 0 WHERE d.to_device_id = gone;
    -- Applied late, after a restore, what has come again since then is a device already.
    INSERT INTO sens.deletions (tenant_id, device_id, past, subject)
        SELECT tenant, d.id, at, 'readings of an erased device' FROM sens.devices d
        WHERE d.tenant_id = tenant AND sha256(convert_to(d.name, 'UTF8')) = hash AND d.created_at >= at;
    INSERT INTO sens.erasures (tenant_id, device_hash, erased_at, deletion_id) VALUES (tenant, hash, at, deletion) RETURNING id INTO erasure;
    RETURN erasure;
END
$$;

REVOKE EXECUTE ON FUNCTION sens.delete_of_device(int, int[], timestamptz, timestamptz, timestamptz, int), sens.delete_rest_of_tenant(int, int)
    FROM public;
