# Sourced by the image when it makes a new database: the platform's role, which is no superuser, and its database. Existing volumes keep
# what they were made with.
psql --set ON_ERROR_STOP=1 --no-psqlrc --username "$POSTGRES_USER" --dbname postgres <<'END'
\getenv password POSTGRES_PASSWORD
CREATE ROLE sens_platform LOGIN CREATEROLE PASSWORD :'password';
CREATE DATABASE sens_platform OWNER sens_platform;
\connect sens_platform
DO $$
DECLARE
    locks regprocedure;
    owner name := (
        SELECT pg_get_userbyid(coalesce((SELECT nspowner FROM pg_namespace WHERE nspname = 'sens'), datdba))
        FROM pg_database WHERE datname = current_database()
    );
BEGIN
    FOR locks IN
        SELECT oid::regprocedure FROM pg_proc
        WHERE pronamespace = 'pg_catalog'::regnamespace AND proname ~ '^pg_(try_)?advisory_'
    LOOP
        EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM public', locks);
        EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO %I', locks, owner);
    END LOOP;
END $$;
DO $$
DECLARE
    target text;
    owner name := (
        SELECT pg_get_userbyid(coalesce((SELECT nspowner FROM pg_namespace WHERE nspname = 'sens'), datdba))
        FROM pg_database WHERE datname = current_database()
    );
BEGIN
    FOR target IN
        SELECT oid::regprocedure FROM pg_proc
        WHERE pronamespace = 'pg_catalog'::regnamespace AND proname ~ '^lo(_|read$|write$)'
            AND EXISTS (SELECT FROM aclexplode(coalesce(proacl, acldefault('f', proowner))) WHERE grantee = 0)
    LOOP
        EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM public', target);
        EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO %I', target, owner);
    END LOOP;
    FOR target IN
        SELECT datname FROM pg_database
        WHERE datname IN ('postgres', 'template1') AND datname <> current_database()
            AND EXISTS (SELECT FROM aclexplode(coalesce(datacl, acldefault('d', datdba))) WHERE grantee = 0)
    LOOP
        EXECUTE format('REVOKE ALL ON DATABASE %I FROM public', target);
    END LOOP;
    IF NOT has_parameter_privilege(owner, 'temp_file_limit', 'SET') THEN
        EXECUTE format('GRANT SET ON PARAMETER temp_file_limit TO %I', owner);
    END IF;
END $$;
-- The superuser is reached from within the pod alone: kubectl exec … psql -U postgres.
ALTER ROLE CURRENT_USER PASSWORD NULL;
END
