-- What a tenant may have and send; how many names it has and how fast they come; and how workers learn of changes.

ALTER TABLE sens.tenants
    -- NULL: no limit. The ingestion workers, which have no database, are told by the API (sens_common.tenant_limits).
    ADD COLUMN messages_per_second int CHECK (messages_per_second > 0),
    -- How far back a reading may lie, before the receipt of its message.
    ADD COLUMN late_days int NOT NULL DEFAULT 400 CHECK (late_days BETWEEN 1 AND 36500),
    -- A mistake that makes names up (a counter in a metric's name) uses up the limits of devices and metrics only this fast.
    ADD COLUMN new_devices_per_hour int NOT NULL DEFAULT 100000 CHECK (new_devices_per_hour >= 0),
    ADD COLUMN new_metrics_per_hour int NOT NULL DEFAULT 1000 CHECK (new_metrics_per_hour >= 0);

-- How many names a tenant has, and how many of them came within an hour of the clock. Whoever registers or deletes names locks the row,
-- so that the limits hold for all workers together.
CREATE TABLE sens.registrations (
    tenant_id int PRIMARY KEY REFERENCES sens.tenants ON DELETE CASCADE,
    devices int NOT NULL,
    metrics int NOT NULL,
    hour timestamptz NOT NULL DEFAULT '-infinity',
    new_devices int NOT NULL DEFAULT 0,
    new_metrics int NOT NULL DEFAULT 0,
    -- When the tenant last deleted a name: see sens.begin_deletion.
    deleted_at timestamptz
);
INSERT INTO sens.registrations (tenant_id, devices, metrics)
    SELECT t.id, (SELECT count(*) FROM sens.devices d WHERE d.tenant_id = t.id), (SELECT count(*) FROM sens.metrics m WHERE m.tenant_id = t.id)
    FROM sens.tenants t;
ALTER TABLE sens.registrations ENABLE ROW LEVEL SECURITY;
CREATE POLICY own_tenant ON sens.registrations FOR SELECT TO sens_api USING (tenant_id = (SELECT sens.current_tenant_id()));
CREATE POLICY all_tenants ON sens.registrations TO sens_worker USING (true);
GRANT SELECT ON sens.registrations TO sens_api;
GRANT SELECT, INSERT, UPDATE ON sens.registrations TO sens_worker;

-- Grows with every change of the tenants, so that a worker asks one short question to know that it still knows them all.
CREATE TABLE sens.tenant_generation (generation bigint NOT NULL);
CREATE UNIQUE INDEX ON sens.tenant_generation ((true));
INSERT INTO sens.tenant_generation VALUES (1);
CREATE FUNCTION sens.raise_tenant_generation() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    UPDATE sens.tenant_generation SET generation = generation + 1;
    RETURN NULL;
END
$$;
CREATE TRIGGER raise_generation AFTER INSERT OR UPDATE OR DELETE ON sens.tenants
    FOR EACH STATEMENT EXECUTE FUNCTION sens.raise_tenant_generation();
GRANT SELECT ON sens.tenant_generation TO sens_worker;

-- The gate between storing and deleting. A worker reads the generation in the transaction that stores rows under ids which it
-- remembers, and keeps the lock of a reader until the end of that transaction. Who deletes devices or metrics locks the table (ACCESS
-- EXCLUSIVE) and raises the generation: no row is stored under an id that is gone, and whoever remembers ids of before asks again.
CREATE TABLE sens.name_generation (generation bigint NOT NULL);
CREATE UNIQUE INDEX ON sens.name_generation ((true));
INSERT INTO sens.name_generation VALUES (1);
GRANT SELECT ON sens.name_generation TO sens_worker;

-- What the API tells the ingestion workers; it sees no other tenant's row otherwise.
CREATE FUNCTION sens.ingestion_limits() RETURNS TABLE (tenant text, messages_per_second int)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    BEGIN ATOMIC
        SELECT t.name, t.messages_per_second FROM sens.tenants t WHERE t.messages_per_second IS NOT NULL;
    END;
REVOKE EXECUTE ON FUNCTION sens.ingestion_limits() FROM public;
GRANT EXECUTE ON FUNCTION sens.ingestion_limits() TO sens_api;

-- Deleting devices and metrics. The name goes at once, and with it whatever the API shows; the measurements go in steps, each of which is
-- a short transaction.
CREATE TABLE sens.deletions (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant_id int NOT NULL REFERENCES sens.tenants ON DELETE CASCADE,
    -- One of both: all metrics of a device, or metrics of all devices.
    device_id int,
    metric_ids int[],
    -- Of a deletion of metrics: devices up to this one are done.
    after_device_id int NOT NULL DEFAULT 0,
    deleted bigint NOT NULL DEFAULT 0,
    continued_at timestamptz NOT NULL DEFAULT now(),
    CHECK ((device_id IS NULL) <> (metric_ids IS NULL))
);
ALTER TABLE sens.deletions ENABLE ROW LEVEL SECURITY;
CREATE POLICY own_tenant ON sens.deletions FOR SELECT TO sens_api USING (tenant_id = (SELECT sens.current_tenant_id()));
GRANT SELECT ON sens.deletions TO sens_api;
CREATE INDEX ON sens.devices (tenant_id, id);

-- Refuses what comes too fast, as if a lock could not be had. A batch with a device that is deleted between the look-up of its name and the
-- storing of its rows is looked up again, together with what other tenants have in it; so no tenant may delete all the time.
CREATE FUNCTION sens.pace_deletions(tenant int) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF EXISTS (
        SELECT FROM sens.registrations r WHERE r.tenant_id = tenant AND r.deleted_at > clock_timestamp() - interval '200 milliseconds'
    ) THEN
        RAISE 'a tenant may delete a name every 0.2 s' USING ERRCODE = 'lock_not_available';
    END IF;
END
$$;

-- Whoever deletes names passes the gate first, then the tenant's row of registrations, as a worker does that registers names.
CREATE FUNCTION sens.begin_deletion(tenant int) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM sens.pace_deletions(tenant);
    LOCK TABLE sens.name_generation IN ACCESS EXCLUSIVE MODE;
    PERFORM FROM sens.registrations WHERE tenant_id = tenant FOR UPDATE;
    PERFORM sens.pace_deletions(tenant); -- another one of the tenant's may have come before
    UPDATE sens.registrations SET deleted_at = clock_timestamp() WHERE tenant_id = tenant;
    UPDATE sens.name_generation SET generation = generation + 1;
END
$$;

-- Deletes a device of the current tenant; false when there is none of this name.
CREATE FUNCTION sens.delete_device(device text, actor text, address text, request_id text) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    tenant int := sens.current_tenant_id();
    gone int;
BEGIN
    IF NOT EXISTS (SELECT FROM sens.devices d WHERE d.tenant_id = tenant AND d.name = device) THEN
        RETURN false;
    END IF;
    PERFORM sens.begin_deletion(tenant);
    DELETE FROM sens.devices d WHERE d.tenant_id = tenant AND d.name = device RETURNING d.id INTO gone;
    IF gone IS NULL THEN -- somebody was faster
        RETURN false;
    END IF;
    UPDATE sens.registrations SET devices = greatest(devices - 1, 0) WHERE tenant_id = tenant;
    INSERT INTO sens.deletions (tenant_id, device_id) VALUES (tenant, gone);
    PERFORM sens.record_audit(tenant, actor, 'device.deleted', device, '{}', address, request_id);
    RETURN true;
END
$$;

-- Deletes a metric of the current tenant, all kinds of it or one; returns the kinds that there were.
CREATE FUNCTION sens.delete_metric(metric text, of_kind text, actor text, address text, request_id text) RETURNS text[]
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    tenant int := sens.current_tenant_id();
    gone int[];
    kinds text[];
BEGIN
    IF NOT EXISTS (SELECT FROM sens.metrics m WHERE m.tenant_id = tenant AND m.name = metric AND m.kind = coalesce(of_kind, m.kind)) THEN
        RETURN '{}';
    END IF;
    PERFORM sens.begin_deletion(tenant);
    WITH deleted AS (
        DELETE FROM sens.metrics m WHERE m.tenant_id = tenant AND m.name = metric AND m.kind = coalesce(of_kind, m.kind)
        RETURNING m.id, m.kind
    )
    SELECT array_agg(d.id), array_agg(d.kind ORDER BY d.kind) INTO gone, kinds FROM deleted d;
    IF gone IS NULL THEN
        RETURN '{}';
    END IF;
    UPDATE sens.registrations SET metrics = greatest(metrics - cardinality(gone), 0) WHERE tenant_id = tenant;
    INSERT INTO sens.deletions (tenant_id, metric_ids) VALUES (tenant, gone);
    PERFORM sens.record_audit(tenant, actor, 'metric.deleted', metric, jsonb_build_object('kinds', kinds), address, request_id);
    RETURN kinds;
END
$$;

-- Deletes the oldest measurements of a series; as many as asked for when there are more.
CREATE FUNCTION sens.delete_oldest(target text, device int, metric int, most int) RETURNS int
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    following timestamptz;
    deleted int;
BEGIN
    EXECUTE format('SELECT ts FROM sens.%I WHERE device_id = $1 AND metric_id = $2 ORDER BY ts OFFSET $3 LIMIT 1', target)
        INTO following USING device, metric, most;
    EXECUTE format('DELETE FROM sens.%I WHERE device_id = $1 AND metric_id = $2 AND ts < $3', target)
        USING device, metric, coalesce(following, 'infinity');
    GET DIAGNOSTICS deleted = ROW_COUNT;
    RETURN deleted;
END
$$;

-- Goes on with one deletion, the one that was left alone for longest; no row when there is none, or when others are at all of them.
-- It deletes `most` measurements at most, and looks at so many devices that it takes about as long as deleting these.
CREATE FUNCTION sens.continue_deletion(most int) RETURNS TABLE (deletion bigint, deleted bigint, finished boolean)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    task sens.deletions;
    remaining int := most;
    target text;
    device int;
    metric int;
    number int;
    total int := 0;
BEGIN
    SELECT * INTO task FROM sens.deletions d ORDER BY d.continued_at, d.id LIMIT 1 FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    deletion := task.id;
    finished := true;
    IF task.device_id IS NOT NULL THEN
        <<of_device>>
        FOREACH target IN ARRAY ARRAY['measurements', 'text_measurements'] LOOP
            metric := -2147483648;
            LOOP
                EXECUTE format('SELECT metric_id FROM sens.%I WHERE device_id = $1 AND metric_id > $2 ORDER BY metric_id LIMIT 1', target)
                    INTO metric USING task.device_id, metric;
                EXIT WHEN metric IS NULL;
                number := sens.delete_oldest(target, task.device_id, metric, remaining);
                remaining := remaining - number;
                total := total + number;
                IF remaining <= 0 THEN
                    finished := false;
                    EXIT of_device;
                END IF;
            END LOOP;
        END LOOP of_device;
    ELSE
        <<of_metrics>>
        FOR device IN
            SELECT d.id FROM sens.devices d WHERE d.tenant_id = task.tenant_id AND d.id > task.after_device_id ORDER BY d.id LIMIT most
        LOOP
            FOREACH metric IN ARRAY task.metric_ids LOOP
                FOREACH target IN ARRAY ARRAY['measurements', 'text_measurements'] LOOP
                    number := sens.delete_oldest(target, device, metric, remaining);
                    remaining := remaining - number;
                    total := total + number;
                    IF remaining <= 0 THEN
                        finished := false;
                        EXIT of_metrics;
                    END IF;
                END LOOP;
            END LOOP;
            task.after_device_id := device;
            remaining := remaining - 20;
            IF remaining <= 0 THEN
                finished := false;
                EXIT of_metrics;
            END IF;
        END LOOP of_metrics;
    END IF;
    deleted := total;
    IF finished THEN
        DELETE FROM sens.deletions d WHERE d.id = task.id;
    ELSE
        UPDATE sens.deletions d
        SET continued_at = clock_timestamp(), deleted = d.deleted + continue_deletion.deleted, after_device_id = task.after_device_id
        WHERE d.id = task.id;
    END IF;
    RETURN NEXT;
END
$$;

REVOKE EXECUTE ON FUNCTION sens.pace_deletions(int), sens.begin_deletion(int), sens.delete_device(text, text, text, text),
    sens.delete_metric(text, text, text, text, text), sens.delete_oldest(text, int, int, int), sens.continue_deletion(int) FROM public;
GRANT EXECUTE ON FUNCTION sens.delete_device(text, text, text, text), sens.delete_metric(text, text, text, text, text),
    sens.continue_deletion(int) TO sens_api;
