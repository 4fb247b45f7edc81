-- How the current tenant's sources, profiles and codecs are changed. Each returns what became of it, and writes the audit in the same transaction.
-- The tenant's row is locked first, so that of two changes one sees the other.

-- Tells whether there is a topic that two filters match, none of them shared; the same as sens_common.topic_filters.overlap.
CREATE FUNCTION sens.filters_overlap(first text, second text) RETURNS boolean
    LANGUAGE plpgsql IMMUTABLE STRICT SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    levels constant text[] := string_to_array(first, '/');
    others constant text[] := string_to_array(second, '/');
    level text;
    other text;
BEGIN
    IF (levels[1] IN ('+', '#') AND starts_with(others[1], '$')) OR (others[1] IN ('+', '#') AND starts_with(levels[1], '$')) THEN
        RETURN false;
    END IF;
    FOR place IN 1 .. greatest(cardinality(levels), cardinality(others)) LOOP
        level := levels[place];
        other := others[place];
        IF level = '#' OR other = '#' THEN
            RETURN true;
        ELSIF level IS NULL OR other IS NULL OR (level <> other AND level <> '+' AND other <> '+') THEN
            RETURN false;
        END IF;
    END LOOP;
    RETURN true;
END
$$;

-- Adds a version to a codec of the current tenant, which is made if there is none. A source that is a version already is that one.
-- outcome: created, exists, or too_many.
CREATE FUNCTION sens.add_codec_version(
    codec text, source text, examples jsonb, actor text, address text, request_id text, OUT outcome text, OUT number int
)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    tenant constant int := sens.current_tenant_id();
    hash constant bytea := sha256(convert_to(add_codec_version.source, 'UTF8'));
    found sens.codecs;
BEGIN
    PERFORM FROM sens.tenants t WHERE t.id = tenant FOR NO KEY UPDATE;
    SELECT c.* INTO found FROM sens.codecs c WHERE c.tenant_id = tenant AND c.name = add_codec_version.codec;
    SELECT v.number INTO add_codec_version.number FROM sens.codec_versions v WHERE v.codec_id = found.id AND v.sha256 = hash
        ORDER BY v.number DESC LIMIT 1;
    IF add_codec_version.number IS NOT NULL THEN
        add_codec_version.outcome := 'exists';
        RETURN;
    END IF;
    add_codec_version.outcome := 'too_many';
    IF found.id IS NULL THEN
        IF (SELECT count(*) FROM sens.codecs c WHERE c.tenant_id = tenant) >= 1000 THEN
            RETURN;
        END IF;
        INSERT INTO sens.codecs AS c (tenant_id, name) VALUES (tenant, add_codec_version.codec) RETURNING c.* INTO found;
    ELSIF (SELECT count(*) FROM sens.codec_versions v WHERE v.codec_id = found.id) >= 1000 THEN
        RETURN;
    END IF;
    add_codec_version.outcome := 'created';
    UPDATE sens.codecs c SET last_number = c.last_number + 1 WHERE c.id = found.id RETURNING c.last_number INTO add_codec_version.number;
    INSERT INTO sens.codec_versions (codec_id, number, source, sha256, examples, created_by)
        VALUES (found.id, add_codec_version.number, add_codec_version.source, hash, add_codec_version.examples, actor);
    PERFORM sens.record_audit(
        tenant, actor, 'codec_version.created', format('codec %s@%s', found.name, add_codec_version.number),
        jsonb_build_object('sha256', encode(hash, 'hex')), address, request_id
    );
END
$$;

-- Deletes a version of a codec of the current tenant, or the codec with all of them where no number is given: deleted, unknown, or used.
CREATE FUNCTION sens.delete_codec(codec text, number int, actor text, address text, request_id text) RETURNS text
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    tenant constant int := sens.current_tenant_id();
    found int;
BEGIN
    PERFORM FROM sens.tenants t WHERE t.id = tenant FOR NO KEY UPDATE;
    SELECT c.id INTO found FROM sens.codecs c WHERE c.tenant_id = tenant AND c.name = delete_codec.codec
        AND (delete_codec.number IS NULL
            OR EXISTS (SELECT FROM sens.codec_versions v WHERE v.codec_id = c.id AND v.number = delete_codec.number));
    IF found IS NULL THEN
        RETURN 'unknown';
    ELSIF EXISTS (
        SELECT FROM sens.profiles p
        WHERE p.codec_id = found AND (delete_codec.number IS NULL OR p.codec_version = delete_codec.number)
    ) THEN
        RETURN 'used';
    END IF;
    IF delete_codec.number IS NULL THEN
        DELETE FROM sens.codecs c WHERE c.id = found;
        PERFORM sens.record_audit(tenant, actor, 'codec.deleted', 'codec ' || delete_codec.codec, '{}', address, request_id);
    ELSE
        DELETE FROM sens.codec_versions v WHERE v.codec_id = found AND v.number = delete_codec.number;
        PERFORM sens.record_audit(
            tenant, actor, 'codec_version.deleted', format('codec %s@%s', delete_codec.codec, delete_codec.number), '{}', address, request_id
        );
    END IF;
    RETURN 'deleted';
END
$$;

-- Makes or replaces a profile of the current tenant: {"builtin_codec", "codec", "codec_version", "metrics"}.
-- It returns created, changed, unchanged, unknown_codec, or too_many.
CREATE FUNCTION sens.put_profile(profile text, document jsonb, actor text, address text, request_id text) RETURNS text
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    tenant constant int := sens.current_tenant_id();
    builtin constant text := document ->> 'builtin_codec';
    version constant int := document ->> 'codec_version';
    stored sens.profiles;
    codec int;
    existed boolean;
BEGIN
    PERFORM FROM sens.tenants t WHERE t.id = tenant FOR NO KEY UPDATE;
    IF version IS NOT NULL THEN
        SELECT c.id INTO codec FROM sens.codecs c JOIN sens.codec_versions v ON v.codec_id = c.id
            WHERE c.tenant_id = tenant AND c.name = document ->> 'codec' AND v.number = version;
        IF codec IS NULL THEN
            RETURN 'unknown_codec';
        END IF;
    END IF;
    SELECT p.* INTO stored FROM sens.profiles p WHERE p.tenant_id = tenant AND p.name = put_profile.profile;
    existed := FOUND;
    IF existed AND (stored.builtin_codec, stored.codec_id, stored.codec_version, stored.metrics)
        IS NOT DISTINCT FROM (builtin, codec, version, document -> 'metrics')
    THEN
        RETURN 'unchanged';
    END IF;
    IF existed THEN
        UPDATE sens.profiles p SET builtin_codec = builtin, codec_id = codec, codec_version = version, metrics = document -> 'metrics',
            changed_at = now() WHERE p.id = stored.id;
    ELSIF (SELECT count(*) FROM sens.profiles p WHERE p.tenant_id = tenant) >= 1000 THEN
        RETURN 'too_many';
    ELSE
        INSERT INTO sens.profiles (tenant_id, name, builtin_codec, codec_id, codec_version, metrics)
            VALUES (tenant, put_profile.profile, builtin, codec, version, document -> 'metrics');
    END IF;
    PERFORM sens.record_audit(
        tenant, actor, CASE WHEN existed THEN 'profile.changed' ELSE 'profile.created' END, 'profile ' || put_profile.profile,
        jsonb_build_object('codec', coalesce(builtin, document ->> 'codec' || '@' || version)), address, request_id
    );
    RETURN CASE WHEN existed THEN 'changed' ELSE 'created' END;
END
$$;

-- Deletes a profile of the current tenant: deleted, unknown, or used.
CREATE FUNCTION sens.delete_profile(profile text, actor text, address text, request_id text) RETURNS text
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    tenant constant int := sens.current_tenant_id();
    found int;
BEGIN
    PERFORM FROM sens.tenants t WHERE t.id = tenant FOR NO KEY UPDATE;
    SELECT p.id INTO found FROM sens.profiles p WHERE p.tenant_id = tenant AND p.name = delete_profile.profile;
    IF found IS NULL THEN
        RETURN 'unknown';
    ELSIF EXISTS (SELECT FROM sens.device_profiles a WHERE a.profile_id = found) OR EXISTS (
        SELECT FROM sens.sources s
        WHERE s.tenant_id = tenant
            AND (s.default_profile = found OR s.profile_rules @> jsonb_build_array(jsonb_build_object('profile', found)))
    ) THEN
        RETURN 'used';
    END IF;
    DELETE FROM sens.profiles p WHERE p.id = found;
    PERFORM sens.record_audit(tenant, actor, 'profile.deleted', 'profile ' || delete_profile.profile, '{}', address, request_id);
    RETURN 'deleted';
END
$$;

-- Gives a device of the current tenant a profile by hand, or none: changed, unchanged, unknown_device, or unknown_profile.
CREATE FUNCTION sens.set_device_profile(device text, profile text, actor text, address text, request_id text) RETURNS text
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    tenant constant int := sens.current_tenant_id();
    chosen_device int;
    chosen int;
    before int;
BEGIN
    PERFORM FROM sens.tenants t WHERE t.id = tenant FOR NO KEY UPDATE;
    SELECT d.id INTO chosen_device FROM sens.devices d WHERE d.tenant_id = tenant AND d.name = set_device_profile.device FOR KEY SHARE;
    IF chosen_device IS NULL THEN
        RETURN 'unknown_device';
    END IF;
    SELECT p.id INTO chosen FROM sens.profiles p WHERE p.tenant_id = tenant AND p.name = set_device_profile.profile;
    IF chosen IS NULL AND profile IS NOT NULL THEN
        RETURN 'unknown_profile';
    END IF;
    SELECT a.profile_id INTO before FROM sens.device_profiles a WHERE a.device_id = chosen_device;
    IF before IS NOT DISTINCT FROM chosen THEN
        RETURN 'unchanged';
    END IF;
    DELETE FROM sens.device_profiles a WHERE a.device_id = chosen_device;
    IF chosen IS NOT NULL THEN
        INSERT INTO sens.device_profiles VALUES (chosen_device, chosen);
    END IF;
    PERFORM sens.record_audit(
        tenant, actor, 'device.profile_changed', device, jsonb_build_object('profile', profile), address, request_id
    );
    RETURN 'changed';
END
$$;

-- Makes or replaces a source of the current tenant; the document's members are the columns, and profiles have their names in it.
-- outcome: created, changed, unchanged, too_many; unknown_profile, with its name; overlap, with the name of the other source where it is the
-- tenant's own.
CREATE FUNCTION sens.put_source(
    source text, document jsonb, actor text, address text, request_id text, OUT outcome text, OUT detail text
)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    tenant constant int := sens.current_tenant_id();
    filter constant text := document ->> 'topic_filter';
    before sens.sources;
    after sens.sources;
    rules jsonb := '[]';
    rule jsonb;
    profile int;
    other record;
BEGIN
    PERFORM FROM sens.tenants t WHERE t.id = tenant FOR NO KEY UPDATE;
    -- Of all tenants: two filters that are new at the same time see each other.
    LOCK TABLE sens.sources IN SHARE ROW EXCLUSIVE MODE;
    SELECT s.* INTO before FROM sens.sources s WHERE s.tenant_id = tenant AND s.name = put_source.source;
    FOR rule IN SELECT jsonb_array_elements(jsonb_build_array(jsonb_build_object('profile', document -> 'default_profile')) || (document -> 'profile_rules')) LOOP
        IF jsonb_typeof(rule -> 'profile') = 'null' THEN
            CONTINUE;
        END IF;
        SELECT p.id INTO profile FROM sens.profiles p WHERE p.tenant_id = tenant AND p.name = rule ->> 'profile';
        IF profile IS NULL THEN
            put_source.outcome := 'unknown_profile';
            put_source.detail := rule ->> 'profile';
            RETURN;
        ELSIF rule ? 'device' THEN
            rules := rules || jsonb_build_array(jsonb_build_object('device', rule -> 'device', 'profile', profile));
        ELSE
            after.default_profile := profile;
        END IF;
    END LOOP;
    SELECT s.name, s.tenant_id INTO other FROM sens.sources s
        WHERE s.broker IS NOT DISTINCT FROM before.broker AND s.id IS DISTINCT FROM before.id AND sens.filters_overlap(s.topic_filter, filter)
        ORDER BY s.tenant_id <> tenant, s.name LIMIT 1;
    IF FOUND AND filter IS NOT NULL THEN
        put_source.outcome := 'overlap';
        put_source.detail := CASE WHEN other.tenant_id = tenant THEN other.name END;
        RETURN;
    END IF;
    after.id := before.id;
    after.tenant_id := tenant;
    after.name := put_source.source;
    after.transport := document ->> 'transport';
    after.topic_filter := filter;
    after.broker := before.broker;
    after.format := document ->> 'format';
    after.settings := document -> 'settings';
    after.registers_devices := document -> 'registers_devices';
    after.radio := document -> 'radio';
    after.profile_rules := rules;
    after.enabled := document -> 'enabled';
    after.created_at := before.created_at;
    after.changed_at := before.changed_at;
    IF after IS NOT DISTINCT FROM before THEN
        put_source.outcome := 'unchanged';
        RETURN;
    ELSIF before.id IS NULL AND (SELECT count(*) FROM sens.sources s WHERE s.tenant_id = tenant) >= 200 THEN
        put_source.outcome := 'too_many';
        RETURN;
    ELSIF before.id IS NULL THEN
        put_source.outcome := 'created';
        INSERT INTO sens.sources (
            tenant_id, name, transport, topic_filter, format, settings, registers_devices, radio, default_profile, profile_rules, enabled
        ) VALUES (
            tenant, after.name, after.transport, filter, after.format, after.settings, after.registers_devices, after.radio,
            after.default_profile, after.profile_rules, after.enabled
        );
    ELSE
        put_source.outcome := 'changed';
        UPDATE sens.sources s SET transport = after.transport, topic_filter = filter, format = after.format, settings = after.settings,
            registers_devices = after.registers_devices, radio = after.radio, default_profile = after.default_profile,
            profile_rules = after.profile_rules, enabled = after.enabled, changed_at = now()
            WHERE s.id = before.id;
    END IF;
    PERFORM sens.record_audit(
        tenant, actor, 'source.' || put_source.outcome, 'source ' || put_source.source,
        jsonb_strip_nulls(jsonb_build_object('format', after.format, 'topic_filter', filter, 'enabled', after.enabled)), address, request_id
    );
END
$$;

-- Deletes a source of the current tenant: deleted, unknown, or used, which is while it is enabled.
CREATE FUNCTION sens.delete_source(source text, actor text, address text, request_id text) RETURNS text
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    tenant constant int := sens.current_tenant_id();
    is_enabled boolean;
BEGIN
    PERFORM FROM sens.tenants t WHERE t.id = tenant FOR NO KEY UPDATE;
    SELECT s.enabled INTO is_enabled FROM sens.sources s WHERE s.tenant_id = tenant AND s.name = delete_source.source;
    IF is_enabled IS NULL THEN
        RETURN 'unknown';
    ELSIF is_enabled THEN
        RETURN 'used';
    END IF;
    DELETE FROM sens.sources s WHERE s.tenant_id = tenant AND s.name = delete_source.source;
    PERFORM sens.record_audit(tenant, actor, 'source.deleted', 'source ' || delete_source.source, '{}', address, request_id);
    RETURN 'deleted';
END
$$;

REVOKE EXECUTE ON FUNCTION sens.refuse_change_of_codec_versions(), sens.raise_source_generation(), sens.filters_overlap(text, text),
    sens.add_codec_version(text, text, jsonb, text, text, text), sens.delete_codec(text, int, text, text, text),
    sens.put_profile(text, jsonb, text, text, text), sens.delete_profile(text, text, text, text),
    sens.set_device_profile(text, text, text, text, text), sens.put_source(text, jsonb, text, text, text),
    sens.delete_source(text, text, text, text) FROM public;
GRANT EXECUTE ON FUNCTION sens.add_codec_version(text, text, jsonb, text, text, text), sens.delete_codec(text, int, text, text, text),
    sens.put_profile(text, jsonb, text, text, text), sens.delete_profile(text, text, text, text),
    sens.set_device_profile(text, text, text, text, text), sens.put_source(text, jsonb, text, text, text),
    sens.delete_source(text, text, text, text) TO sens_api;
