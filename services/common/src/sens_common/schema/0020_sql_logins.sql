-- Logins with which people of a tenant ask in SQL: psql, Grafana, programs for reports. They are members of sens_reader, which may call the
-- functions and read the views of the next file, and nothing else.

-- A login's tenant is what stands here, whatever it sets. The administration makes and removes logins; a row that goes takes its role along.
CREATE TABLE sens.tenant_logins (
    -- Every login of a server sees the names of all: this one says nothing of its tenant. The check keeps other roles from being dropped.
    login name PRIMARY KEY CHECK (login ~ '^sens_sql_[a-z0-9]{10}$'),
    tenant_id int NOT NULL REFERENCES sens.tenants ON DELETE CASCADE,
    -- What it is for.
    name text NOT NULL CHECK (length(name) BETWEEN 1 AND 100),
    connections int NOT NULL CHECK (connections BETWEEN 1 AND 50),
    -- A statement may take so long, a transaction twice as long.
    statement_seconds int NOT NULL CHECK (statement_seconds BETWEEN 1 AND 3600),
    created_at timestamptz NOT NULL DEFAULT now(),
    password_changed_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX ON sens.tenant_logins (tenant_id);
ALTER TABLE sens.tenant_logins ENABLE ROW LEVEL SECURITY;

CREATE FUNCTION sens.tenant_of_login() RETURNS int
    LANGUAGE sql STABLE PARALLEL SAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    BEGIN ATOMIC
        SELECT l.tenant_id FROM sens.tenant_logins l WHERE l.login = session_user;
    END;

-- The tenant whose rows the session may see. Who logs in as the API, or as somebody who may become it, says which by sens.tenant_id; unset
-- means none. Everybody else is the tenant of the login, whatever is set.
CREATE OR REPLACE FUNCTION sens.current_tenant_id() RETURNS int
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN CASE
        WHEN pg_has_role(session_user, 'sens_api', 'MEMBER') THEN nullif(current_setting('sens.tenant_id', true), '')::int
        ELSE sens.tenant_of_login()
    END;
GRANT EXECUTE ON FUNCTION sens.tenant_of_login() TO sens_api;

-- Ends the sessions of a login, as far as the owner may. First which they are, then the end of each: a condition that ends sessions would be
-- tried on others too.
CREATE FUNCTION sens.end_sessions_of_login(login name) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    process int;
BEGIN
    FOREACH process IN ARRAY ARRAY(SELECT a.pid FROM pg_stat_activity a WHERE a.usename = login) LOOP
        PERFORM pg_terminate_backend(process);
    END LOOP;
END
$$;

CREATE FUNCTION sens.drop_login() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles r WHERE r.rolname = old.login) THEN
        PERFORM sens.end_sessions_of_login(old.login);
        EXECUTE format('DROP ROLE %I', old.login);
    END IF;
    RETURN NULL;
EXCEPTION
    -- Without its row it sees nothing, so that a tenant's deletion need not fail.
    WHEN insufficient_privilege OR dependent_objects_still_exist THEN
        RAISE WARNING 'the login % sees nothing any more, but the role stays: %', old.login, SQLERRM
            USING HINT = format('As an administrator, run: DROP ROLE %I', old.login);
        RETURN NULL;
END
$$;
CREATE TRIGGER drop_login AFTER DELETE ON sens.tenant_logins FOR EACH ROW EXECUTE FUNCTION sens.drop_login();

-- A tenant that is deleted is marked first (deleted_at, of a later migration) and goes when all is gone that it had: its logins go at once.
CREATE FUNCTION sens.drop_logins_of_deleted_tenant() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF to_jsonb(new) ->> 'deleted_at' IS NOT NULL THEN
        DELETE FROM sens.tenant_logins WHERE tenant_id = new.id;
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER drop_logins AFTER UPDATE ON sens.tenants FOR EACH ROW EXECUTE FUNCTION sens.drop_logins_of_deleted_tenant();

-- A login can lift every time limit that its role sets. So the API calls this every few seconds: it ends the sessions of logins whose
-- statement or transaction goes on for longer than a transaction may. A long transaction keeps VACUUM from removing what others have
-- replaced, and partitions from being dropped.
CREATE FUNCTION sens.end_long_transactions() RETURNS TABLE (login name, tenant_id int, seconds float8)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    process int;
BEGIN
    FOR login, tenant_id, seconds, process IN
        SELECT l.login, l.tenant_id, extract(epoch FROM clock_timestamp() - b.begun)::float8, a.pid
        FROM sens.tenant_logins l
        JOIN pg_stat_activity a ON a.usename = l.login
        -- A procedure may commit again and again, so that its transactions are short.
        CROSS JOIN LATERAL (SELECT least(a.xact_start, CASE WHEN a.state = 'active' THEN a.query_start END)) AS b (begun)
        WHERE b.begun < clock_timestamp() - 2 * l.statement_seconds * interval '1 second'
    LOOP
        IF pg_terminate_backend(process) THEN
            RETURN NEXT;
        END IF;
    END LOOP;
END
$$;

REVOKE EXECUTE ON FUNCTION sens.tenant_of_login(), sens.end_sessions_of_login(name), sens.drop_login(), sens.drop_logins_of_deleted_tenant(),
    sens.end_long_transactions() FROM public;
GRANT EXECUTE ON FUNCTION sens.end_long_transactions() TO sens_api;
