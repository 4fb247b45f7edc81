-- Keys with which messages are posted. They can do nothing else, and no other key can do this.

CREATE TABLE sens.ingest_keys (
    -- Numbers of one sequence: a number says which key is meant, whatever kind it is of.
    id int PRIMARY KEY DEFAULT nextval(pg_get_serial_sequence('sens.api_keys', 'id')),
    tenant_id int NOT NULL REFERENCES sens.tenants ON DELETE CASCADE,
    -- NULL for the native topics.
    source_id int REFERENCES sens.sources ON DELETE CASCADE,
    -- The one device that it is for, by its canonical name; NULL for any.
    device text CHECK (device ~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$'),
    name text NOT NULL CHECK (length(name) BETWEEN 1 AND 100),
    -- The key's first characters, by which its owner recognises it.
    prefix text NOT NULL,
    -- SHA-256 of the whole key. A key has 256 random bits, so neither salt nor stretching would add anything.
    hash bytea NOT NULL UNIQUE CHECK (octet_length(hash) = 32),
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz,
    revoked_at timestamptz
);
CREATE INDEX ON sens.ingest_keys (tenant_id, id);
CREATE INDEX ON sens.ingest_keys (source_id);
ALTER TABLE sens.ingest_keys ENABLE ROW LEVEL SECURITY;
CREATE POLICY own_tenant ON sens.ingest_keys FOR SELECT TO sens_api USING (tenant_id = (SELECT sens.current_tenant_id()));
GRANT SELECT (id, tenant_id, source_id, device, name, prefix, created_at, expires_at, revoked_at) ON sens.ingest_keys TO sens_api;

-- Makes a key of the current tenant: created, unknown_source, wrong_source (one of MQTT), too_many.
CREATE FUNCTION sens.create_ingest_key(
    source text, device text, name text, prefix text, hash bytea, expires_at timestamptz, actor text, address text, request_id text,
    OUT outcome text, OUT id int
)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    tenant constant int := sens.current_tenant_id();
    chosen sens.sources;
BEGIN
    PERFORM FROM sens.tenants t WHERE t.id = tenant FOR NO KEY UPDATE;
    IF source IS NOT NULL THEN
        SELECT s.* INTO chosen FROM sens.sources s WHERE s.tenant_id = tenant AND s.name = create_ingest_key.source;
        IF chosen.id IS NULL OR chosen.transport <> 'http' THEN
            create_ingest_key.outcome := CASE WHEN chosen.id IS NULL THEN 'unknown_source' ELSE 'wrong_source' END;
            RETURN;
        END IF;
    END IF;
    IF (
        SELECT count(*) FROM sens.ingest_keys k
        WHERE k.tenant_id = tenant AND k.revoked_at IS NULL AND (k.expires_at IS NULL OR k.expires_at > now())
    ) >= 1000 THEN
        create_ingest_key.outcome := 'too_many';
        RETURN;
    END IF;
    create_ingest_key.outcome := 'created';
    INSERT INTO sens.ingest_keys AS k (tenant_id, source_id, device, name, prefix, hash, expires_at)
        VALUES (
            tenant, chosen.id, create_ingest_key.device, create_ingest_key.name, create_ingest_key.prefix, create_ingest_key.hash,
            create_ingest_key.expires_at
        ) RETURNING k.id INTO create_ingest_key.id;
    PERFORM sens.record_audit(
        tenant, actor, 'ingest_key.created', format('ingest key %s (%s)', create_ingest_key.id, create_ingest_key.name),
        jsonb_strip_nulls(jsonb_build_object(
            'source', create_ingest_key.source, 'device', create_ingest_key.device, 'expires_at', create_ingest_key.expires_at
        )),
        address, request_id
    );
END
$$;

-- Revokes a key of the current tenant: revoked, unchanged, or unknown.
CREATE FUNCTION sens.revoke_ingest_key(key_id int, actor text, address text, request_id text) RETURNS text
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    tenant constant int := sens.current_tenant_id();
    found sens.ingest_keys;
BEGIN
    SELECT k.* INTO found FROM sens.ingest_keys k WHERE k.tenant_id = tenant AND k.id = key_id FOR UPDATE;
    IF found.id IS NULL THEN
        RETURN 'unknown';
    ELSIF found.revoked_at IS NOT NULL THEN
        RETURN 'unchanged';
    END IF;
    UPDATE sens.ingest_keys k SET revoked_at = now() WHERE k.id = key_id;
    PERFORM sens.record_audit(
        tenant, actor, 'ingest_key.revoked', format('ingest key %s (%s)', found.id, found.name), '{}', address, request_id
    );
    RETURN 'revoked';
END
$$;

-- What the API tells the ingestion workers: the keys that hold, those of sources that take messages by HTTP.
CREATE FUNCTION sens.ingestion_keys() RETURNS TABLE (tenant text, hash text, source text, device text, expires_at bigint)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    BEGIN ATOMIC
        SELECT t.name, encode(k.hash, 'hex'), s.name, k.device, floor(extract(epoch FROM k.expires_at))::bigint
        FROM sens.ingest_keys k JOIN sens.tenants t ON t.id = k.tenant_id LEFT JOIN sens.sources s ON s.id = k.source_id
        WHERE k.revoked_at IS NULL AND (k.expires_at IS NULL OR k.expires_at > now()) AND t.deleted_at IS NULL
            AND (k.source_id IS NULL OR (s.enabled AND s.transport = 'http'))
        ORDER BY t.name, k.id;
    END;

REVOKE EXECUTE ON FUNCTION sens.create_ingest_key(text, text, text, text, bytea, timestamptz, text, text, text),
    sens.revoke_ingest_key(int, text, text, text), sens.ingestion_keys() FROM public;
GRANT EXECUTE ON FUNCTION sens.create_ingest_key(text, text, text, text, bytea, timestamptz, text, text, text),
    sens.revoke_ingest_key(int, text, text, text), sens.ingestion_keys() TO sens_api;
