-- Keys may expire, may be for reading only, and tell when they were last used.

ALTER TABLE sens.api_keys
    ADD COLUMN access text NOT NULL DEFAULT 'read_write' CHECK (access IN ('read_only', 'read_write')),
    ADD COLUMN expires_at timestamptz,
    -- At most a minute old.
    ADD COLUMN last_used_at timestamptz;

-- It answers more now, which CREATE OR REPLACE can't do. An API of the version before asks for the first three columns by name.
DROP FUNCTION sens.authenticate(bytea);
CREATE FUNCTION sens.authenticate(key_hash bytea)
    RETURNS TABLE (key_id int, tenant_id int, tenant text, key_name text, access text)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog
    BEGIN ATOMIC
        SELECT k.id, t.id, t.name, k.name, k.access
        FROM sens.api_keys k JOIN sens.tenants t ON t.id = k.tenant_id
        WHERE k.hash = key_hash AND k.revoked_at IS NULL AND (k.expires_at IS NULL OR k.expires_at > now());
    END;
REVOKE EXECUTE ON FUNCTION sens.authenticate(bytea) FROM public;
GRANT EXECUTE ON FUNCTION sens.authenticate(bytea) TO sens_api;

-- The API may say that a key is used, and nothing else of a key; one write a minute, however many ask.
CREATE FUNCTION sens.note_key_use(key_id int) RETURNS void
    LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog
    BEGIN ATOMIC
        UPDATE sens.api_keys SET last_used_at = now()
        WHERE id = note_key_use.key_id AND (last_used_at IS NULL OR last_used_at < now() - interval '1 minute');
    END;
REVOKE EXECUTE ON FUNCTION sens.note_key_use(int) FROM public;
GRANT EXECUTE ON FUNCTION sens.note_key_use(int) TO sens_api;

-- How the API reads a series: a page at a time, in the order of the primary key. The tenant is checked once, inside; through the views
-- it is checked for each row, and the planner reads and sorts all that the range holds for a page of it.
CREATE FUNCTION sens.owns_device(device int) RETURNS boolean
    LANGUAGE sql STABLE SET search_path = pg_catalog
    RETURN EXISTS (SELECT FROM sens.devices d WHERE d.id = device AND d.tenant_id = sens.current_tenant_id());

CREATE FUNCTION sens.number_page(device int, metric int, first timestamptz, past timestamptz, descending boolean, most int)
    RETURNS TABLE (ts timestamptz, value float8)
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path = pg_catalog SET enable_sort = off SET enable_bitmapscan = off
AS $$
BEGIN
    IF NOT sens.owns_device(device) THEN
        RETURN;
    ELSIF descending THEN
        RETURN QUERY SELECT m.ts, m.value FROM sens.measurements m
            WHERE m.device_id = device AND m.metric_id = metric AND m.ts >= first AND m.ts < past
            ORDER BY m.ts DESC LIMIT most;
    ELSE
        RETURN QUERY SELECT m.ts, m.value FROM sens.measurements m
            WHERE m.device_id = device AND m.metric_id = metric AND m.ts >= first AND m.ts < past
            ORDER BY m.ts LIMIT most;
    END IF;
END
$$;

CREATE FUNCTION sens.text_page(device int, metric int, first timestamptz, past timestamptz, descending boolean, most int)
    RETURNS TABLE (ts timestamptz, value text)
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path = pg_catalog SET enable_sort = off SET enable_bitmapscan = off
AS $$
BEGIN
    IF NOT sens.owns_device(device) THEN
        RETURN;
    ELSIF descending THEN
        RETURN QUERY SELECT m.ts, m.value FROM sens.text_measurements m
            WHERE m.device_id = device AND m.metric_id = metric AND m.ts >= first AND m.ts < past
            ORDER BY m.ts DESC LIMIT most;
    ELSE
        RETURN QUERY SELECT m.ts, m.value FROM sens.text_measurements m
            WHERE m.device_id = device AND m.metric_id = metric AND m.ts >= first AND m.ts < past
            ORDER BY m.ts LIMIT most;
    END IF;
END
$$;

-- Buckets that have values, with how many; `exact` averages values whose sum a float8 can't hold, some five times slower. Not avg(value),
-- whose sum of squares overflows from 1e154 on.
CREATE FUNCTION sens.number_buckets(
    device int, metric int, first timestamptz, past timestamptz, width interval, origin timestamptz, exact boolean
) RETURNS TABLE (bucket timestamptz, count bigint, avg float8, min float8, max float8)
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog
AS $$
BEGIN
    IF NOT sens.owns_device(device) THEN
        RETURN;
    ELSIF exact THEN
        RETURN QUERY SELECT date_bin(width, m.ts, origin), count(*), avg(m.value::numeric)::float8, min(m.value), max(m.value)
            FROM sens.measurements m
            WHERE m.device_id = device AND m.metric_id = metric AND m.ts >= first AND m.ts < past
            GROUP BY 1;
    ELSE
        RETURN QUERY SELECT date_bin(width, m.ts, origin), count(*), sum(m.value) / count(*), min(m.value), max(m.value)
            FROM sens.measurements m
            WHERE m.device_id = device AND m.metric_id = metric AND m.ts >= first AND m.ts < past
            GROUP BY 1;
    END IF;
END
$$;

CREATE FUNCTION sens.text_buckets(
    device int, metric int, first timestamptz, past timestamptz, width interval, origin timestamptz
) RETURNS TABLE (bucket timestamptz, count bigint)
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog
AS $$
BEGIN
    IF NOT sens.owns_device(device) THEN
        RETURN;
    END IF;
    RETURN QUERY SELECT date_bin(width, m.ts, origin), count(*)
        FROM sens.text_measurements m
        WHERE m.device_id = device AND m.metric_id = metric AND m.ts >= first AND m.ts < past
        GROUP BY 1;
END
$$;

REVOKE EXECUTE ON FUNCTION sens.owns_device(int),
    sens.number_page(int, int, timestamptz, timestamptz, boolean, int),
    sens.text_page(int, int, timestamptz, timestamptz, boolean, int),
    sens.number_buckets(int, int, timestamptz, timestamptz, interval, timestamptz, boolean),
    sens.text_buckets(int, int, timestamptz, timestamptz, interval, timestamptz) FROM public;
GRANT EXECUTE ON FUNCTION sens.number_page(int, int, timestamptz, timestamptz, boolean, int),
    sens.text_page(int, int, timestamptz, timestamptz, boolean, int),
    sens.number_buckets(int, int, timestamptz, timestamptz, interval, timestamptz, boolean),
    sens.text_buckets(int, int, timestamptz, timestamptz, interval, timestamptz) TO sens_api;
