-- Brokers of tenants' own: {"url", "credential", "client_id", "version", "clean_session"} of sens_common.brokers, and "address" and "session", by which
-- brokers and sessions are told apart. Secrets are not here: the credential is a name.

-- Makes or replaces a source of the current tenant, with a broker of its own or without; the document's members are the columns, and profiles have
-- their names in it.
-- Two sources never get the same topics of the platform's broker, whichever tenants they are of. On brokers of its own, a tenant's sources never
-- get the same topics of one address; another tenant may have them too, for each has a session of its own there. A session, which address and
-- client identifier name, is used by sources with the same settings only.
-- outcome: created, changed, unchanged, too_many; unknown_profile, with its name; session, with the name of the source that has the session;
-- overlap, with the name of the other source where it is the tenant's own.
CREATE OR REPLACE FUNCTION sens.put_source(
    source text, document jsonb, actor text, address text, request_id text, OUT outcome text, OUT detail text
)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    tenant constant int := sens.current_tenant_id();
    filter constant text := document ->> 'topic_filter';
    own_broker constant jsonb := nullif(document -> 'broker', 'null');
    -- Where the broker is, and the name of the session there.
    place constant text := own_broker ->> 'address';
    session constant text := own_broker ->> 'session';
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
        WHERE s.id IS DISTINCT FROM before.id
            AND CASE WHEN place IS NULL THEN s.broker IS NULL ELSE s.tenant_id = tenant AND s.broker ->> 'address' = place END
            AND sens.filters_overlap(s.topic_filter, filter)
        ORDER BY s.tenant_id <> tenant, s.name LIMIT 1;
    IF FOUND AND filter IS NOT NULL THEN
        put_source.outcome := 'overlap';
        put_source.detail := CASE WHEN other.tenant_id = tenant THEN other.name END;
        RETURN;
    END IF;
    SELECT s.name INTO put_source.detail FROM sens.sources s
        WHERE s.id IS DISTINCT FROM before.id AND s.tenant_id = tenant AND s.broker ->> 'address' = place
            AND s.broker ->> 'session' = session AND s.broker <> own_broker AND s.enabled AND (document ->> 'enabled')::boolean
        ORDER BY s.name LIMIT 1;
    IF FOUND THEN
        put_source.outcome := 'session';
        RETURN;
    END IF;
    after.id := before.id;
    after.tenant_id := tenant;
    after.name := put_source.source;
    after.transport := document ->> 'transport';
    after.topic_filter := filter;
    after.broker := own_broker;
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
            tenant_id, name, transport, topic_filter, broker, format, settings, registers_devices, radio, default_profile, profile_rules, enabled
        ) VALUES (
            tenant, after.name, after.transport, filter, own_broker, after.format, after.settings, after.registers_devices, after.radio,
            after.default_profile, after.profile_rules, after.enabled
        );
    ELSE
        put_source.outcome := 'changed';
        UPDATE sens.sources s SET transport = after.transport, topic_filter = filter, broker = after.broker, format = after.format, settings = after.settings,
            registers_devices = after.registers_devices, radio = after.radio, default_profile = after.default_profile,
            profile_rules = after.profile_rules, enabled = after.enabled, changed_at = now()
            WHERE s.id = before.id;
    END IF;
    PERFORM sens.record_audit(
        tenant, actor, 'source.' || put_source.outcome, 'source ' || put_source.source,
        jsonb_strip_nulls(jsonb_build_object('format', after.format, 'topic_filter', filter, 'broker', own_broker ->> 'url', 'enabled', after.enabled)), address, request_id
    );
END
$$;
