-- Moving a device to another tenant. There it is a device of its own from the first moment on, so that what it sends meanwhile is stored as
-- ever; its history follows in short steps: each reading is written again with the metrics of the new tenant, and deleted where it was.

-- A name that a device had before may have been one in another tenant.
ALTER TABLE sens.former_names ADD COLUMN tenant_id int;
UPDATE sens.former_names f SET tenant_id = d.tenant_id FROM sens.devices d WHERE d.id = f.device_id;
ALTER TABLE sens.former_names ALTER COLUMN tenant_id SET NOT NULL, DROP CONSTRAINT former_names_pkey,
    ADD PRIMARY KEY (device_id, tenant_id, device_hash);

CREATE OR REPLACE FUNCTION sens.rename_device(device text, new_name text, actor text, address text, request_id text) RETURNS text
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
    INSERT INTO sens.former_names (device_id, tenant_id, device_hash, until)
        VALUES (renamed, tenant, sha256(convert_to(device, 'UTF8')), clock_timestamp())
        ON CONFLICT (device_id, tenant_id, device_hash) DO UPDATE SET until = excluded.until;
    PERFORM sens.record_audit(tenant, actor, 'device.renamed', device, jsonb_build_object('name', new_name), address, request_id);
    RETURN 'renamed';
END
$$;

-- What an erasure of a device means: the hashes of its name and of those that it had before, each with its tenant and the time before which
-- messages under it are the device's; NULL: now.
DROP FUNCTION sens.erased_names(bytea);
CREATE FUNCTION sens.erased_names(hash bytea) RETURNS TABLE (tenant_id int, device_hash bytea, until timestamptz)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    BEGIN ATOMIC
        SELECT sens.current_tenant_id(), hash, NULL::timestamptz
        UNION ALL
        SELECT f.tenant_id, f.device_hash, f.until
        FROM sens.devices d JOIN sens.former_names f ON f.device_id = d.id
        WHERE d.tenant_id = sens.current_tenant_id() AND sha256(convert_to(d.name, 'UTF8')) = hash
            AND (f.tenant_id, f.device_hash) <> (d.tenant_id, hash);
    END;

-- Erases what a device of the current tenant left under a name that it had in another tenant, before the device itself is erased.
CREATE FUNCTION sens.erase_former_name(
    hash bytea, former_tenant int, former_hash bytea, at timestamptz, actor text, address text, request_id text
) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    erasure bigint;
BEGIN
    IF NOT EXISTS (
        SELECT FROM sens.erased_names(hash) n WHERE n.tenant_id = former_tenant AND n.device_hash = former_hash AND n.until = at
    ) THEN
        RAISE 'the device has had no such name' USING ERRCODE = 'insufficient_privilege';
    ELSIF NOT EXISTS (SELECT FROM sens.tenants t WHERE t.id = former_tenant) THEN
        RETURN NULL;
    END IF;
    erasure := sens.apply_erasure(former_tenant, former_hash, at);
    PERFORM sens.record_audit(
        former_tenant, actor, 'device.erased', 'device with the hash ' || encode(former_hash, 'hex'), jsonb_build_object('erasure', erasure),
        address, request_id
    );
    RETURN erasure;
END
$$;

-- Moves a device of the current tenant to the tenant whose key it is, under a name. Returns moved, with the deletion that tells how far it is;
-- or unknown_device, unknown_key, read_only_key, same_tenant, taken, still_moving, too_many_devices, too_many_metrics.
CREATE FUNCTION sens.move_device(
    device text, new_name text, key_hash bytea, actor text, address text, request_id text,
    OUT outcome text, OUT deletion bigint, OUT to_tenant text
)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    tenant constant int := sens.current_tenant_id();
    tenant_name constant text := (SELECT t.name FROM sens.tenants t WHERE t.id = tenant);
    target sens.tenants;
    key record;
    old sens.devices;
    new_id int;
    counted record;
    from_ids int[];
    to_ids int[];
    missing int;
    details jsonb;
BEGIN
    SELECT * INTO key FROM sens.authenticate(key_hash);
    IF key.key_id IS NULL THEN
        outcome := 'unknown_key';
        RETURN;
    ELSIF key.access <> 'read_write' THEN
        outcome := 'read_only_key';
        RETURN;
    ELSIF key.tenant_id = tenant THEN
        outcome := 'same_tenant';
        RETURN;
    END IF;
    PERFORM sens.pace_deletions(tenant);
    -- The gate, then the tenants' rows in the order of their ids, as workers lock them.
    LOCK TABLE sens.name_generation IN ACCESS EXCLUSIVE MODE;
    INSERT INTO sens.registrations (tenant_id, devices, metrics)
        SELECT t.id, (SELECT count(*) FROM sens.devices d WHERE d.tenant_id = t.id), (SELECT count(*) FROM sens.metrics m WHERE m.tenant_id = t.id)
        FROM sens.tenants t WHERE t.id = key.tenant_id AND NOT EXISTS (SELECT FROM sens.registrations r WHERE r.tenant_id = t.id)
        ON CONFLICT DO NOTHING;
    PERFORM FROM sens.registrations r WHERE r.tenant_id IN (tenant, key.tenant_id) ORDER BY r.tenant_id FOR UPDATE;
    SELECT * INTO target FROM sens.tenants t WHERE t.id = key.tenant_id;
    to_tenant := target.name;
    SELECT * INTO old FROM sens.devices d WHERE d.tenant_id = tenant AND d.name = device FOR UPDATE;
    IF old.id IS NULL THEN
        outcome := 'unknown_device';
        RETURN;
    ELSIF EXISTS (SELECT FROM sens.devices d WHERE d.tenant_id = target.id AND d.name = new_name) THEN
        outcome := 'taken';
        RETURN;
    ELSIF sens.has_former_rows(old.id) OR EXISTS (SELECT FROM sens.deletions d WHERE d.to_device_id = old.id) THEN
        outcome := 'still_moving';
        RETURN;
    END IF;
    SELECT r.devices, r.metrics INTO counted FROM sens.registrations r WHERE r.tenant_id = target.id;
    IF counted.devices >= target.device_limit THEN
        outcome := 'too_many_devices';
        RETURN;
    END IF;
    SELECT count(*) INTO missing
        FROM sens.metrics m
        WHERE m.id = ANY (sens.metrics_of_device(old.id))
            AND NOT EXISTS (SELECT FROM sens.metrics t WHERE t.tenant_id = target.id AND t.name = m.name AND t.kind = m.kind);
    IF counted.metrics + missing > target.metric_limit THEN
        outcome := 'too_many_metrics';
        RETURN;
    END IF;
    PERFORM sens.begin_deletion(tenant);
    INSERT INTO sens.metrics (tenant_id, name, kind)
        SELECT target.id, m.name, m.kind FROM sens.metrics m WHERE m.id = ANY (sens.metrics_of_device(old.id)) ORDER BY m.id
        ON CONFLICT DO NOTHING;
    SELECT array_agg(m.id ORDER BY m.id), array_agg(t.id ORDER BY m.id) INTO from_ids, to_ids
        FROM sens.metrics m JOIN sens.metrics t ON t.tenant_id = target.id AND t.name = m.name AND t.kind = m.kind
        WHERE m.id = ANY (sens.metrics_of_device(old.id));
    INSERT INTO sens.devices (tenant_id, name, last_seen, named_generation)
        VALUES (target.id, new_name, old.last_seen, (SELECT g.generation FROM sens.name_generation g)) RETURNING id INTO new_id;
    INSERT INTO sens.former_names (device_id, tenant_id, device_hash, until)
        SELECT new_id, f.tenant_id, f.device_hash, f.until FROM sens.former_names f WHERE f.device_id = old.id
        UNION ALL
        SELECT new_id, tenant, sha256(convert_to(device, 'UTF8')), clock_timestamp()
        ON CONFLICT (device_id, tenant_id, device_hash) DO NOTHING;
    -- What is gone because of its age is gone of the new one too.
    INSERT INTO sens.expired (device_id, metric_id, kind, before)
        SELECT new_id, coalesce(t.id, 0), e.kind, e.before
        FROM sens.expired e LEFT JOIN unnest(from_ids, to_ids) AS t (former, id) ON t.former = e.metric_id
        WHERE e.device_id = old.id AND (e.metric_id = 0 OR t.id IS NOT NULL);
    -- What has changed is computed again where it comes to.
    UPDATE sens.rollup_changes c SET device_id = new_id WHERE c.device_id = old.id;
    DELETE FROM sens.devices d WHERE d.id = old.id; -- with its rules of retention
    UPDATE sens.registrations r SET devices = greatest(r.devices - 1, 0) WHERE r.tenant_id = tenant;
    UPDATE sens.registrations r SET devices = r.devices + 1, metrics = r.metrics + missing WHERE r.tenant_id = target.id;
    INSERT INTO sens.deletions (tenant_id, device_id, subject, to_device_id, to_tenant_id, from_metric_ids, to_metric_ids)
        VALUES (
            tenant, old.id, format('device %s, moved to tenant %s', device, target.name), new_id, target.id,
            coalesce(from_ids, '{}'), coalesce(to_ids, '{}')
        )
        RETURNING id INTO deletion;
    details := jsonb_build_object('from', tenant_name, 'to', target.name, 'name', new_name, 'deletion', deletion);
    PERFORM sens.record_audit(tenant, actor, 'device.moved', device, details, address, request_id);
    PERFORM sens.record_audit(
        target.id, format('key %s (%s)', key.key_id, key.key_name), 'device.moved', new_name, details, address, request_id
    );
    outcome := 'moved';
END
$$;

-- What a metric set is for the other device: its metrics there, and where their values are in the rows of this set.
CREATE FUNCTION sens.set_elsewhere(
    metric_set int, from_ids int[], to_ids int[], OUT number_ids int[], OUT text_ids int[], OUT numbers text, OUT texts text
)
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
    BEGIN ATOMIC
        SELECT coalesce(array_agg(p.id ORDER BY p.id) FILTER (WHERE NOT p.is_text), '{}'),
            coalesce(array_agg(p.id ORDER BY p.id) FILTER (WHERE p.is_text), '{}'),
            string_agg(format('r.numbers[%s]', p.position), ', ' ORDER BY p.id) FILTER (WHERE NOT p.is_text),
            string_agg(format('r.texts[%s]', p.position), ', ' ORDER BY p.id) FILTER (WHERE p.is_text)
        FROM (
            SELECT t.id, e.position, e.is_text
            FROM sens.metric_sets s
                CROSS JOIN LATERAL (
                    SELECT n.id, n.position, false AS is_text FROM unnest(s.number_ids) WITH ORDINALITY n (id, position)
                    UNION ALL
                    SELECT x.id, x.position, true FROM unnest(s.text_ids) WITH ORDINALITY x (id, position)
                ) e
                JOIN unnest(from_ids, to_ids) AS t (former, id) ON t.former = e.id
            -- Others were deleted, with their values.
            WHERE s.id = metric_set AND EXISTS (SELECT FROM sens.metrics m WHERE m.id = t.id)
        ) p;
    END;

-- Deletes readings of a device of the current tenant in a range, or one metric of them; returns the deletion's id, NULL when there is no such
-- device or metric. What is stored meanwhile may stay. It is refused while
-- readings of the device are still to come from another tenant.
CREATE OR REPLACE FUNCTION sens.delete_range(
    device text, metric text, first timestamptz, past timestamptz, actor text, address text, request_id text
) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET timezone = 'UTC'
AS $$
#variable_conflict use_variable
DECLARE
    tenant constant int := sens.current_tenant_id();
    device_id constant int := (SELECT d.id FROM sens.devices d WHERE d.tenant_id = tenant AND d.name = device);
    metric_ids constant int[] := (SELECT array_agg(m.id) FROM sens.metrics m WHERE m.tenant_id = tenant AND m.name = metric);
    deletion bigint;
BEGIN
    IF device_id IS NULL OR (metric IS NOT NULL AND metric_ids IS NULL) THEN
        RETURN NULL;
    ELSIF EXISTS (SELECT FROM sens.deletions d WHERE d.to_device_id = device_id) THEN
        RAISE 'the device is being moved from another tenant' USING ERRCODE = 'object_in_use';
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

REVOKE EXECUTE ON FUNCTION sens.erased_names(bytea), sens.erase_former_name(bytea, int, bytea, timestamptz, text, text, text),
    sens.move_device(text, text, bytea, text, text, text), sens.set_elsewhere(int, int[], int[]) FROM public;
GRANT EXECUTE ON FUNCTION sens.erased_names(bytea), sens.erase_former_name(bytea, int, bytea, timestamptz, text, text, text),
    sens.move_device(text, text, bytea, text, text, text) TO sens_api;
