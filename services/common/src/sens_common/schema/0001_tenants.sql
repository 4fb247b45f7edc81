-- Tenants, API keys, devices, metrics; the API's role and what it may see.

-- Names sort by their bytes, whatever the database's locale: pages of devices then follow the index.
CREATE TABLE sens.tenants (
    id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text COLLATE "C" NOT NULL UNIQUE CHECK (name ~ '^[a-z0-9][a-z0-9._-]{0,62}$'),
    device_limit int NOT NULL DEFAULT 1000000 CHECK (device_limit >= 0),
    metric_limit int NOT NULL DEFAULT 10000 CHECK (metric_limit >= 0),
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE sens.api_keys (
    id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant_id int NOT NULL REFERENCES sens.tenants ON DELETE CASCADE,
    name text NOT NULL CHECK (length(name) BETWEEN 1 AND 100),
    -- The key's first characters, by which its owner recognises it.
    prefix text NOT NULL,
    -- SHA-256 of the whole key. A key has 256 random bits, so neither salt nor stretching would add anything.
    hash bytea NOT NULL UNIQUE CHECK (octet_length(hash) = 32),
    created_at timestamptz NOT NULL DEFAULT now(),
    revoked_at timestamptz
);
CREATE INDEX ON sens.api_keys (tenant_id);

CREATE TABLE sens.devices (
    id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant_id int NOT NULL REFERENCES sens.tenants,
    name text COLLATE "C" NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (tenant_id, name)
);

CREATE TABLE sens.metrics (
    id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant_id int NOT NULL REFERENCES sens.tenants,
    name text COLLATE "C" NOT NULL,
    -- A name that comes with values of several kinds is several metrics, so that every value comes back as it was sent.
    kind text NOT NULL CHECK (kind IN ('number', 'boolean', 'text')),
    created_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (tenant_id, name, kind)
);

-- The tenant whose rows the current transaction may see; set by the API for each request, unset means none.
CREATE FUNCTION sens.current_tenant_id() RETURNS int
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN nullif(current_setting('sens.tenant_id', true), '')::int;

ALTER TABLE sens.tenants ENABLE ROW LEVEL SECURITY;
ALTER TABLE sens.devices ENABLE ROW LEVEL SECURITY;
ALTER TABLE sens.metrics ENABLE ROW LEVEL SECURITY;
ALTER TABLE sens.api_keys ENABLE ROW LEVEL SECURITY;
CREATE POLICY own_tenant ON sens.tenants FOR SELECT TO sens_api USING (id = (SELECT sens.current_tenant_id()));
CREATE POLICY own_tenant ON sens.devices FOR SELECT TO sens_api USING (tenant_id = (SELECT sens.current_tenant_id()));
CREATE POLICY own_tenant ON sens.metrics FOR SELECT TO sens_api USING (tenant_id = (SELECT sens.current_tenant_id()));

-- The one question the API may ask before it knows the tenant: whose key is this?
CREATE FUNCTION sens.authenticate(key_hash bytea)
    RETURNS TABLE (key_id int, tenant_id int, tenant text)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog
    BEGIN ATOMIC
        SELECT k.id, t.id, t.name
        FROM sens.api_keys k JOIN sens.tenants t ON t.id = k.tenant_id
        WHERE k.hash = key_hash AND k.revoked_at IS NULL;
    END;
REVOKE EXECUTE ON FUNCTION sens.authenticate(bytea) FROM public;

GRANT USAGE ON SCHEMA sens TO sens_api;
GRANT SELECT ON sens.tenants, sens.devices, sens.metrics, sens.schema_migrations TO sens_api;
GRANT EXECUTE ON FUNCTION sens.authenticate(bytea), sens.current_tenant_id() TO sens_api;
