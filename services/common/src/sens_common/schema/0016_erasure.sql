-- Deleting a range of readings and a tenant, and erasing what is stored of a device on request.

-- Devices whose messages from before a time are not stored again, whoever sends or replays them. A row is written once, together with the
-- deletion, and outlives the device. It names the device by a hash only.
CREATE TABLE sens.erasures (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant_id int NOT NULL,
    -- SHA-256 of the device's name.
    device_hash bytea NOT NULL CHECK (octet_length(device_hash) = 32),
    -- Messages that were received before it are meant.
    erased_at timestamptz NOT NULL,
    -- Of sens.deletions, later of sens.finished_deletions.
    deletion_id bigint NOT NULL,
    UNIQUE (tenant_id, device_hash, erased_at)
);
ALTER TABLE sens.erasures ENABLE ROW LEVEL SECURITY;
CREATE POLICY own_tenant ON sens.erasures FOR SELECT TO sens_api USING (tenant_id = (SELECT sens.current_tenant_id()));
CREATE POLICY all_tenants ON sens.erasures FOR SELECT TO sens_worker USING (true);
GRANT SELECT ON sens.erasures TO sens_api, sens_worker;

-- How far the stream CONTROL, which holds the erasures too, was applied: after a restore of the database it is not.
CREATE TABLE sens.control_progress (
    -- When the stream was made, microseconds since the epoch.
    stream bigint NOT NULL,
    sequence bigint NOT NULL
);
CREATE UNIQUE INDEX ON sens.control_progress ((true));
INSERT INTO sens.control_progress VALUES (0, 0);
GRANT SELECT ON sens.control_progress TO sens_api;

CREATE OR REPLACE FUNCTION sens.delete_device(device text, actor text, address text, request_id text) RETURNS boolean
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
    INSERT INTO sens.deletions (tenant_id, device_id, subject) VALUES (tenant, gone, 'device ' || device);
    PERFORM sens.record_audit(tenant, actor, 'device.deleted', device, '{}', address, request_id);
    RETURN true;
END
$$;

CREATE OR REPLACE FUNCTION sens.delete_metric(metric text, of_kind text, actor text, address text, request_id text) RETURNS text[]
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
    INSERT INTO sens.deletions (tenant_id, metric_ids, subject) VALUES (tenant, gone, 'metric ' || metric);
    PERFORM sens.record_audit(tenant, actor, 'metric.deleted', metric, jsonb_build_object('kinds', kinds), address, request_id);
    RETURN kinds;
END
$$;

-- Deletes readings of a device of the current tenant in a range, or one metric of them; returns the deletion's id, NULL when there is no such
-- device or metric. What is stored meanwhile may stay.
CREATE FUNCTION sens.delete_range(
    device text, metric text, first timestamptz, past timestamptz, actor text, address text, request_id text
) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET timezone = 'UTC'
AS $$
DECLARE
    tenant constant int := sens.current_tenant_id();
    device_id constant int := (SELECT d.id FROM sens.devices d WHERE d.tenant_id = tenant AND d.name = device);
    metric_ids constant int[] := (SELECT array_agg(m.id) FROM sens.metrics m WHERE m.tenant_id = tenant AND m.name = metric);
    deletion bigint;
BEGIN
    IF device_id IS NULL OR (metric IS NOT NULL AND metric_ids IS NULL) THEN
        RETURN NULL;
    END IF;
    INSERT INTO sens.deletions (tenant_id, device_id, metric_ids, first, past, subject)
        VALUES (tenant, device_id, metric_ids, first, past, 'readings of device ' || device) RETURNING id INTO deletion;
    PERFORM sens.record_audit(
        tenant, actor, 'readings.deleted', device,
        jsonb_strip_nulls(jsonb_build_object('metric', metric, 'from', first, 'to', past, 'deletion', deletion)), address, request_id
    );
    RETURN deletion;
END
$$;

-- Deletes a tenant at once, and all that it has in steps. Returns how many devices it had, NULL when there is no such tenant. For the owner.
CREATE FUNCTION sens.delete_tenant(tenant text, actor text) RETURNS int
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    gone constant int := (SELECT t.id FROM sens.tenants t WHERE t.name = tenant);
    device_count int;
BEGIN
    IF gone IS NULL THEN
        RETURN NULL;
    END IF;
    LOCK TABLE sens.name_generation IN ACCESS EXCLUSIVE MODE;
    PERFORM FROM sens.registrations WHERE tenant_id = gone FOR UPDATE;
    UPDATE sens.name_generation SET generation = generation + 1;
    PERFORM sens.record_audit(gone, actor, 'tenant.deleted', 'tenant ' || tenant);
    WITH devices AS (DELETE FROM sens.devices d WHERE d.tenant_id = gone RETURNING d.id), deletions AS (
        INSERT INTO sens.deletions (tenant_id, device_id, subject) SELECT gone, d.id, 'a device of tenant ' || tenant FROM devices d ORDER BY d.id
        RETURNING 1
    )
    SELECT count(*) INTO device_count FROM deletions;
    -- Deletions of metrics have no devices to look for any more; those of the devices delete all that they have.
    DELETE FROM sens.deletions d WHERE d.tenant_id = gone AND d.device_id IS NULL;
    DELETE FROM sens.metrics m WHERE m.tenant_id = gone;
    DELETE FROM sens.tenants t WHERE t.id = gone; -- with keys, counts, dead letters
    RETURN device_count;
END
$$;

-- Erases a device of a tenant: what is stored of it goes in steps, dead letters too, and none of its messages from before `at` is stored again.
-- The device need not exist any more. Twice has no effect. Returns the erasure's id.
CREATE FUNCTION sens.apply_erasure(tenant int, hash bytea, at timestamptz) RETURNS bigint
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
            AND coalesce((SELECT max(f.until) FROM sens.former_names f WHERE f.device_id = d.id), d.created_at) < at
        RETURNING d.id INTO gone;
    IF gone IS NOT NULL THEN
        UPDATE sens.registrations SET devices = greatest(devices - 1, 0) WHERE tenant_id = tenant;
    END IF;
    INSERT INTO sens.deletions (tenant_id, device_id, erased_hash, subject) VALUES (tenant, gone, hash, 'an erased device')
        RETURNING id INTO deletion;
    -- Applied late, after a restore, what has come again since then is a device already.
    INSERT INTO sens.deletions (tenant_id, device_id, past, subject)
        SELECT tenant, d.id, at, 'readings of an erased device' FROM sens.devices d
        WHERE d.tenant_id = tenant AND sha256(convert_to(d.name, 'UTF8')) = hash AND d.created_at >= at;
    INSERT INTO sens.erasures (tenant_id, device_hash, erased_at, deletion_id) VALUES (tenant, hash, at, deletion) RETURNING id INTO erasure;
    RETURN erasure;
END
$$;

-- The same for the current tenant, with a row of the audit that names the hash only.
CREATE FUNCTION sens.erase_device(hash bytea, at timestamptz, actor text, address text, request_id text) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    tenant constant int := sens.current_tenant_id();
    erasure constant bigint := sens.apply_erasure(tenant, hash, at);
BEGIN
    PERFORM sens.record_audit(
        tenant, actor, 'device.erased', 'device with the hash ' || encode(hash, 'hex'), jsonb_build_object('erasure', erasure), address, request_id
    );
    RETURN erasure;
END
$$;

-- Applies what the stream CONTROL holds after the sequence that was applied last; of tenants that are gone nothing is left to erase.
CREATE FUNCTION sens.apply_control(stream bigint, sequence bigint, tenant int, hash bytea, at timestamptz) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF EXISTS (SELECT FROM sens.tenants t WHERE t.id = tenant) THEN
        PERFORM sens.apply_erasure(tenant, hash, at);
    END IF;
    UPDATE sens.control_progress p SET stream = apply_control.stream, sequence = apply_control.sequence;
END
$$;

REVOKE EXECUTE ON FUNCTION sens.delete_range(text, text, timestamptz, timestamptz, text, text, text), sens.delete_tenant(text, text),
    sens.apply_erasure(int, bytea, timestamptz), sens.erase_device(bytea, timestamptz, text, text, text),
    sens.apply_control(bigint, bigint, int, bytea, timestamptz) FROM public;
GRANT EXECUTE ON FUNCTION sens.delete_range(text, text, timestamptz, timestamptz, text, text, text),
    sens.erase_device(bytea, timestamptz, text, text, text), sens.apply_control(bigint, bigint, int, bytea, timestamptz) TO sens_api;

-- The generation of names since which a device or a tenant has its name: what was looked up before led to another one, or leads to one now.
ALTER TABLE sens.devices ADD COLUMN named_generation bigint NOT NULL DEFAULT 0;
ALTER TABLE sens.tenants ADD COLUMN named_generation bigint NOT NULL DEFAULT 0;

-- The names that devices had before: messages that were sent under them may come again, and an erasure means them too.
CREATE TABLE sens.former_names (
    device_id int NOT NULL REFERENCES sens.devices ON DELETE CASCADE,
    -- SHA-256 of the name.
    device_hash bytea NOT NULL CHECK (octet_length(device_hash) = 32),
    until timestamptz NOT NULL,
    PRIMARY KEY (device_id, device_hash)
);

-- Gives a device of the current tenant another name: renamed, unknown_device, or taken. Workers forget what they know of names.
CREATE FUNCTION sens.rename_device(device text, new_name text, actor text, address text, request_id text) RETURNS text
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    tenant constant int := sens.current_tenant_id();
    renamed int;
BEGIN
    IF NOT EXISTS (SELECT FROM sens.devices d WHERE d.tenant_id = tenant AND d.name = device) THEN
        RETURN 'unknown_device';
    ELSIF EXISTS (SELECT FROM sens.devices d WHERE d.tenant_id = tenant AND d.name = new_name) THEN
        RETURN 'taken';
    END IF;
    PERFORM sens.begin_deletion(tenant);
    UPDATE sens.devices d SET name = new_name, named_generation = (SELECT g.generation FROM sens.name_generation g)
        WHERE d.tenant_id = tenant AND d.name = device
            AND NOT EXISTS (SELECT FROM sens.devices e WHERE e.tenant_id = tenant AND e.name = new_name)
        RETURNING d.id INTO renamed;
    IF renamed IS NULL THEN
        RETURN 'unknown_device'; -- somebody was faster
    END IF;
    INSERT INTO sens.former_names VALUES (renamed, sha256(convert_to(device, 'UTF8')), clock_timestamp())
        ON CONFLICT (device_id, device_hash) DO UPDATE SET until = excluded.until;
    PERFORM sens.record_audit(tenant, actor, 'device.renamed', device, jsonb_build_object('name', new_name), address, request_id);
    RETURN 'renamed';
END
$$;

-- What an erasure of a device means: the hashes of its name and of those that it had before, each with the time before which messages under it
-- are the device's; NULL: now.
CREATE FUNCTION sens.erased_names(hash bytea) RETURNS TABLE (device_hash bytea, until timestamptz)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    BEGIN ATOMIC
        SELECT hash, NULL::timestamptz
        UNION ALL
        SELECT f.device_hash, f.until
        FROM sens.devices d JOIN sens.former_names f ON f.device_id = d.id
        WHERE d.tenant_id = sens.current_tenant_id() AND sha256(convert_to(d.name, 'UTF8')) = hash AND f.device_hash <> hash;
    END;

-- Gives a tenant another name; topics have to name it from then on. NULL when there is none, false when the new name is taken. For the owner.
CREATE FUNCTION sens.rename_tenant(tenant text, new_name text, actor text) RETURNS boolean
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    renamed constant int := (SELECT t.id FROM sens.tenants t WHERE t.name = tenant);
BEGIN
    IF renamed IS NULL THEN
        RETURN NULL;
    ELSIF EXISTS (SELECT FROM sens.tenants t WHERE t.name = new_name) THEN
        RETURN false;
    END IF;
    LOCK TABLE sens.name_generation IN ACCESS EXCLUSIVE MODE;
    UPDATE sens.name_generation SET generation = generation + 1;
    PERFORM sens.record_audit(renamed, actor, 'tenant.renamed', 'tenant ' || tenant, jsonb_build_object('name', new_name));
    UPDATE sens.tenants t SET name = new_name, named_generation = (SELECT g.generation FROM sens.name_generation g) WHERE t.id = renamed;
    RETURN true;
END
$$;

REVOKE EXECUTE ON FUNCTION sens.rename_device(text, text, text, text, text), sens.erased_names(bytea), sens.rename_tenant(text, text, text) FROM public;
GRANT EXECUTE ON FUNCTION sens.rename_device(text, text, text, text, text), sens.erased_names(bytea) TO sens_api;
