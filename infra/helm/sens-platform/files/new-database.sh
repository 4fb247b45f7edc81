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
-- The superuser is reached from within the pod alone: kubectl exec … psql -U postgres.
ALTER ROLE CURRENT_USER PASSWORD NULL;
END
