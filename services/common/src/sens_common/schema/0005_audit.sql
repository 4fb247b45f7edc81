-- Who changed what: a row for each change of tenants, keys, limits and data, written in the transaction of the change. Rows are only
-- added. They name tenants by number and by name, so that they outlive them.

CREATE TABLE sens.audit_events (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT now(),
    tenant_id int,
    tenant text,
    -- Who did it: "administrator" for a command that logs in to the database, "key 12 (its name)" for a request.
    actor text NOT NULL CHECK (length(actor) BETWEEN 1 AND 200),
    -- What was done, for example "key.created".
    action text NOT NULL CHECK (action ~ '^[a-z_]+\.[a-z_]+$'),
    -- What it was done to, for example a device's name.
    subject text NOT NULL CHECK (length(subject) <= 1000),
    details jsonb NOT NULL DEFAULT '{}',
    address text,
    request_id text
);
CREATE INDEX ON sens.audit_events (tenant_id, at);

CREATE FUNCTION sens.refuse_change_of_audit_events() RETURNS trigger
    LANGUAGE plpgsql
AS $$
BEGIN
    RAISE 'rows of sens.audit_events are neither changed nor deleted';
END
$$;
CREATE TRIGGER only_added BEFORE UPDATE OR DELETE OR TRUNCATE ON sens.audit_events
    FOR EACH STATEMENT EXECUTE FUNCTION sens.refuse_change_of_audit_events();

-- The only way in for roles other than the owner.
CREATE FUNCTION sens.record_audit(
    tenant_id int, actor text, action text, subject text, details jsonb DEFAULT '{}', address text DEFAULT NULL, request_id text DEFAULT NULL
) RETURNS void
    LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog
    BEGIN ATOMIC
        INSERT INTO sens.audit_events (tenant_id, tenant, actor, action, subject, details, address, request_id)
        SELECT record_audit.tenant_id, (SELECT t.name FROM sens.tenants t WHERE t.id = record_audit.tenant_id),
            record_audit.actor, record_audit.action, record_audit.subject, record_audit.details,
            record_audit.address, record_audit.request_id;
    END;
REVOKE EXECUTE ON FUNCTION sens.record_audit(int, text, text, text, jsonb, text, text) FROM public;

ALTER TABLE sens.audit_events ENABLE ROW LEVEL SECURITY;
CREATE POLICY own_tenant ON sens.audit_events FOR SELECT TO sens_api
    USING (tenant_id = (SELECT sens.current_tenant_id()));
GRANT SELECT ON sens.audit_events TO sens_api;
GRANT EXECUTE ON FUNCTION sens.record_audit(int, text, text, text, jsonb, text, text) TO sens_api, sens_worker;
-- The worker needs the schema; its rights on the tables come with the next migrations.
GRANT USAGE ON SCHEMA sens TO sens_worker;
