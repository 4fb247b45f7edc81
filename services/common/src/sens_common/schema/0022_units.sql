-- Units of what devices measure: those of their profile. Which profile a device has is decided as the telemetry worker does it: the one by hand,
-- else the first rule of its source that fits, else its source's default.

-- The source that named the device last, as far as a worker has noted it; devices without one send on their own topic.
CREATE TABLE sens.device_sources (
    device_id int PRIMARY KEY REFERENCES sens.devices ON DELETE CASCADE,
    source_id int NOT NULL REFERENCES sens.sources ON DELETE CASCADE
);
CREATE INDEX ON sens.device_sources (source_id);
ALTER TABLE sens.device_sources ENABLE ROW LEVEL SECURITY;

-- Notes that sources, by name, named devices of their tenant.
CREATE FUNCTION sens.note_device_sources(devices int[], sources text[]) RETURNS void
    LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    BEGIN ATOMIC
        INSERT INTO sens.device_sources AS o (device_id, source_id)
        SELECT DISTINCT ON (d.id) d.id, s.id
        FROM unnest(devices, sources) n (device_id, source)
            JOIN sens.devices d ON d.id = n.device_id
            JOIN sens.sources s ON s.tenant_id = d.tenant_id AND s.name = n.source
        ORDER BY d.id, s.id
        ON CONFLICT (device_id) DO UPDATE SET source_id = excluded.source_id WHERE o.source_id <> excluded.source_id;
    END;

-- The profiles of those devices of the current tenant that have one.
CREATE FUNCTION sens.profiles_of_devices(devices int[]) RETURNS TABLE (device_id int, profile_id int)
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
    BEGIN ATOMIC
        SELECT p.device_id, p.profile_id
        FROM (
            SELECT d.id AS device_id, coalesce(
                h.profile_id,
                (
                    SELECT (r.rule ->> 'profile')::int FROM jsonb_array_elements(s.profile_rules) WITH ORDINALITY r (rule, index)
                    -- A pattern has no % and no backslash; _ stands for itself, * for any characters.
                    WHERE d.name LIKE replace(replace(r.rule ->> 'device', '_', '\_'), '*', '%') ORDER BY r.index LIMIT 1
                ),
                s.default_profile
            ) AS profile_id
            FROM sens.devices d
                LEFT JOIN sens.device_profiles h ON h.device_id = d.id
                LEFT JOIN (sens.device_sources o JOIN sens.sources s ON s.id = o.source_id) ON o.device_id = d.id
            WHERE d.id = ANY (devices) AND d.tenant_id = sens.current_tenant_id()
                AND (h.device_id IS NOT NULL OR o.device_id IS NOT NULL)
        ) p
        WHERE p.profile_id IS NOT NULL;
    END;

-- The units (UCUM codes) of metrics of some devices of the current tenant, by the metrics' names; those without a unit are left out.
CREATE FUNCTION sens.units_of_devices(devices int[]) RETURNS TABLE (device_id int, metric text, unit text)
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN QUERY
        WITH had AS MATERIALIZED (
            SELECT p.device_id, p.profile_id FROM sens.profiles_of_devices(devices) p
        ), units AS MATERIALIZED (
            -- Two fields may have one name, where a message has only one of them at a time.
            SELECT DISTINCT ON (f.id, 2) f.id, coalesce(e.rule ->> 'name', e.field) AS metric, e.rule ->> 'unit' AS unit
            FROM sens.profiles f CROSS JOIN LATERAL jsonb_each(f.metrics) e (field, rule)
            WHERE f.id IN (SELECT h.profile_id FROM had h) AND e.rule ->> 'unit' IS NOT NULL
                AND NOT coalesce((e.rule ->> 'ignore')::boolean, false)
            ORDER BY f.id, 2, e.field
        )
        SELECT h.device_id, u.metric, u.unit FROM had h JOIN units u ON u.id = h.profile_id;
END
$$;

-- For people who ask in SQL.
CREATE FUNCTION sens.own_units() RETURNS TABLE (device text, metric text, unit text)
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    tenant constant int := sens.own_tenant();
BEGIN
    RETURN QUERY
        SELECT d.name, u.metric, u.unit
        FROM sens.units_of_devices(ARRAY(SELECT o.id FROM sens.devices o WHERE o.tenant_id = tenant)) u
            JOIN sens.devices d ON d.id = u.device_id;
END
$$;
CREATE VIEW sens.units_by_name AS SELECT u.device, u.metric, u.unit FROM sens.own_units() u;

REVOKE EXECUTE ON FUNCTION sens.note_device_sources(int[], text[]), sens.profiles_of_devices(int[]), sens.units_of_devices(int[]),
    sens.own_units() FROM public;
GRANT EXECUTE ON FUNCTION sens.note_device_sources(int[], text[]) TO sens_worker;
GRANT EXECUTE ON FUNCTION sens.units_of_devices(int[]) TO sens_api;
GRANT EXECUTE ON FUNCTION sens.own_units() TO sens_reader;
GRANT SELECT ON sens.units_by_name TO sens_reader;
