-- Sources, profiles and codecs of tenants: how other people's messages come in and what they mean.

-- A codec turns bytes of devices into values. Its versions never change.
CREATE TABLE sens.codecs (
    id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant_id int NOT NULL REFERENCES sens.tenants ON DELETE CASCADE,
    name text NOT NULL CHECK (name ~ '^[a-z0-9][a-z0-9._-]{0,62}$'),
    -- The number of the newest version that there ever was: a number is not given twice.
    last_number int NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (tenant_id, name),
    UNIQUE (tenant_id, id)
);
CREATE TABLE sens.codec_versions (
    codec_id int NOT NULL REFERENCES sens.codecs ON DELETE CASCADE,
    number int NOT NULL CHECK (number >= 1),
    source text NOT NULL CHECK (octet_length(source) BETWEEN 1 AND 262144),
    -- SHA-256 of the source.
    sha256 bytea NOT NULL CHECK (octet_length(sha256) = 32),
    -- [{"bytes": hexadecimal, "f_port": number, "fields": object} or with "error": true, ...]
    examples jsonb NOT NULL CHECK (jsonb_typeof(examples) = 'array' AND octet_length(examples::text) <= 524288),
    created_at timestamptz NOT NULL DEFAULT now(),
    created_by text NOT NULL,
    PRIMARY KEY (codec_id, number)
);
CREATE FUNCTION sens.refuse_change_of_codec_versions() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RAISE 'a version of a codec is never changed; make another version';
END
$$;
CREATE TRIGGER never_changed BEFORE UPDATE ON sens.codec_versions
    FOR EACH STATEMENT EXECUTE FUNCTION sens.refuse_change_of_codec_versions();

-- A kind of device: how its bytes are decoded, and what its values are called. `codec` is "cayenne_lpp", or NULL with a version of a codec, or
-- NULL without one: then the network's own fields are taken.
CREATE TABLE sens.profiles (
    id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant_id int NOT NULL REFERENCES sens.tenants ON DELETE CASCADE,
    name text NOT NULL CHECK (name ~ '^[a-z0-9][a-z0-9._-]{0,62}$'),
    builtin_codec text CHECK (builtin_codec IN ('cayenne_lpp')),
    codec_id int,
    codec_version int,
    -- Rules by the names of fields: see sens_payloads.profiles.
    metrics jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(metrics) = 'object' AND octet_length(metrics::text) <= 524288),
    changed_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (tenant_id, name),
    UNIQUE (tenant_id, id),
    FOREIGN KEY (codec_id, codec_version) REFERENCES sens.codec_versions,
    FOREIGN KEY (tenant_id, codec_id) REFERENCES sens.codecs (tenant_id, id),
    CHECK (num_nulls(codec_id, codec_version) IN (0, 2)),
    CHECK (builtin_codec IS NULL OR codec_id IS NULL)
);

-- How a stream of messages comes in. Secrets are not here: `broker` names them.
CREATE TABLE sens.sources (
    id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant_id int NOT NULL REFERENCES sens.tenants ON DELETE CASCADE,
    name text NOT NULL CHECK (name ~ '^[a-z0-9][a-z0-9._-]{0,62}$'),
    transport text NOT NULL CHECK (transport IN ('mqtt', 'http')),
    topic_filter text CHECK (octet_length(topic_filter) BETWEEN 1 AND 1024),
    -- {"url", "secret", ...} of the source's own broker, NULL for the platform's: see sens_common.sources.
    broker jsonb CHECK (jsonb_typeof(broker) = 'object'),
    format text NOT NULL CHECK (format ~ '^[a-z0-9_]{1,40}$'),
    settings jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(settings) = 'object' AND octet_length(settings::text) <= 65536),
    registers_devices boolean NOT NULL DEFAULT true,
    -- Whether values of the radio are stored, as lorawan.*.
    radio boolean NOT NULL DEFAULT false,
    default_profile int,
    -- [{"device": pattern with *, "profile": id}, ...]: the first one that fits.
    profile_rules jsonb NOT NULL DEFAULT '[]' CHECK (jsonb_typeof(profile_rules) = 'array' AND octet_length(profile_rules::text) <= 65536),
    enabled boolean NOT NULL DEFAULT true,
    created_at timestamptz NOT NULL DEFAULT now(),
    changed_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (tenant_id, name),
    FOREIGN KEY (tenant_id, default_profile) REFERENCES sens.profiles (tenant_id, id),
    CHECK ((transport = 'mqtt') = (topic_filter IS NOT NULL)),
    CHECK (transport = 'mqtt' OR broker IS NULL)
);

-- The profile of a device that somebody has chosen by hand, whatever rules say.
CREATE TABLE sens.device_profiles (
    device_id int PRIMARY KEY REFERENCES sens.devices ON DELETE CASCADE,
    profile_id int NOT NULL REFERENCES sens.profiles ON DELETE CASCADE
);
CREATE INDEX ON sens.device_profiles (profile_id);

-- Grows with every change of the above, so that a worker asks one short question to know that it still knows them all.
CREATE TABLE sens.source_generation (generation bigint NOT NULL);
CREATE UNIQUE INDEX ON sens.source_generation ((true));
INSERT INTO sens.source_generation VALUES (1);
CREATE FUNCTION sens.raise_source_generation() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    UPDATE sens.source_generation SET generation = generation + 1;
    RETURN NULL;
END
$$;

DO $$
DECLARE
    each text;
BEGIN
    FOREACH each IN ARRAY ARRAY['codecs', 'codec_versions', 'profiles', 'sources', 'device_profiles'] LOOP
        EXECUTE format('CREATE TRIGGER raise_generation AFTER INSERT OR UPDATE OR DELETE ON sens.%I'
            ' FOR EACH STATEMENT EXECUTE FUNCTION sens.raise_source_generation()', each);
        EXECUTE format('ALTER TABLE sens.%I ENABLE ROW LEVEL SECURITY', each);
        EXECUTE format('CREATE POLICY all_tenants ON sens.%I FOR SELECT TO sens_worker USING (true)', each);
        EXECUTE format('GRANT SELECT ON sens.%I TO sens_api, sens_worker', each);
    END LOOP;
    FOREACH each IN ARRAY ARRAY['codecs', 'profiles', 'sources'] LOOP
        EXECUTE format('CREATE POLICY own_tenant ON sens.%I FOR SELECT TO sens_api'
            ' USING (tenant_id = (SELECT sens.current_tenant_id()))', each);
    END LOOP;
END
$$;
CREATE POLICY own_tenant ON sens.codec_versions FOR SELECT TO sens_api
    USING (codec_id IN (SELECT c.id FROM sens.codecs c WHERE c.tenant_id = (SELECT sens.current_tenant_id())));
CREATE POLICY own_tenant ON sens.device_profiles FOR SELECT TO sens_api
    USING (profile_id IN (SELECT p.id FROM sens.profiles p WHERE p.tenant_id = (SELECT sens.current_tenant_id())));
GRANT SELECT ON sens.source_generation TO sens_worker, sens_api;

-- A new tenant gets the dead letters of its sources too.
CREATE OR REPLACE FUNCTION sens.pass_on_dead_letters() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        UPDATE sens.dead_letters SET tenant_id = new.id
        WHERE tenant_id IS NULL
            AND (starts_with(topic, 'sens/v1/' || new.name || '/') OR starts_with(topic, 'ingest/v1/' || new.name || '/'));
    ELSE
        DELETE FROM sens.dead_letters WHERE tenant_id = old.id;
    END IF;
    RETURN NULL;
END
$$;

-- Messages that carry no measurements by their nature: joins, acknowledgements, simulated uplinks.
ALTER TABLE sens.message_counts ADD COLUMN without_measurements bigint NOT NULL DEFAULT 0;
DROP FUNCTION sens.conservation(date);
-- What is received and not accounted for must be 0, and what is accounted for and not received too, whenever no envelope is settled in part.
CREATE FUNCTION sens.conservation(since date DEFAULT '-infinity')
    RETURNS TABLE (
        tenant_id int, day date, received bigint, stored bigint, duplicate bigint, dead_lettered bigint, discarded bigint,
        without_measurements bigint, unaccounted bigint
    )
    LANGUAGE sql STABLE
    BEGIN ATOMIC
        SELECT c.tenant_id, c.day, sum(c.received)::bigint, sum(c.stored)::bigint, sum(c.duplicate)::bigint,
            sum(c.dead_lettered)::bigint, sum(c.discarded)::bigint, sum(c.without_measurements)::bigint,
            sum(c.received - c.stored - c.duplicate - c.dead_lettered - c.discarded - c.without_measurements)::bigint
        FROM sens.message_counts c
        WHERE c.day >= since
        GROUP BY c.tenant_id, c.day;
    END;
