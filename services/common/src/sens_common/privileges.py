"""Rights in the database beyond the schema's own grants: which are taken away from everybody, and which separation is still missing.

PostgreSQL lets every login make temporary tables, look into the schema ``public``, take advisory locks, with which one login can
keep others waiting, store large objects, and use every database of the server. `restrict` takes that away. All but the first two need a
superuser, because they are about what is PostgreSQL's own.
"""

import asyncpg
import structlog

from sens_common.database import Connection
from sens_common.logins import API_ROLE, WORKER_ROLE

log = structlog.get_logger()


_OF_THE_DATABASE = f"""
DO $$ BEGIN
    EXECUTE format('REVOKE TEMPORARY ON DATABASE %I FROM public', current_database());
    EXECUTE format('REVOKE TEMPORARY ON DATABASE %I FROM {API_ROLE}', current_database());
    -- It brings what came twice into a temporary table.
    EXECUTE format('GRANT TEMPORARY ON DATABASE %I TO {WORKER_ROLE}', current_database());
    IF to_regnamespace('public') IS NOT NULL THEN
        REVOKE ALL ON SCHEMA public FROM public;
    END IF;
END $$
"""
ADVISORY_LOCKS = """
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
END $$
"""
"""What a superuser runs in the platform's database: only its owner may take advisory locks (the first migrations take one)."""


TENANT_LOGINS = """
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
END $$
"""
"""What a superuser runs in the platform's database for the logins of tenants: they may store no large objects, use no other database that
PostgreSQL makes itself, and the owner may bound the temporary files of their queries."""


async def restrict(connection: Connection) -> None:
    """Take away rights that nobody needs, as far as the connection's role may; `shortcomings` tells which are left."""
    # A role that owns neither the database nor its schema "public" gets a warning, and nothing changes.
    try:
        async with connection.transaction():
            await connection.execute(_OF_THE_DATABASE)
    except asyncpg.InsufficientPrivilegeError as error:
        log.warning("the rights of all logins on the database can't be restricted", error=str(error))
    if await connection.fetchval("SELECT rolsuper FROM pg_roles WHERE rolname = current_user"):
        await connection.execute(ADVISORY_LOCKS)
        await connection.execute(TENANT_LOGINS)


async def shortcomings(connection: Connection, password_setting: str, secret_key: str) -> list[str]:
    """Return what a service's session could do that it need not, a sentence each; empty when all is separated.

    Args:
        connection: The service's, working as the role that holds its rights.
        password_setting: Variable that gives the service a login of its own.
        secret_key: Key of the cluster's secret that does.
    """
    row = await connection.fetchrow(
        """
        SELECT session_user AS login, owner.rolname AS owner, owner.rolsuper AS owner_is_superuser,
            pg_has_role(session_user, owner.oid, 'MEMBER') AS can_become_owner,
            has_function_privilege('pg_catalog.pg_advisory_lock(bigint)', 'EXECUTE') AS advisory_locks,
            has_schema_privilege('public', 'USAGE') AS public_schema,
            current_user = $1 AND has_database_privilege(current_database(), 'TEMPORARY') AS temporary_tables
        FROM pg_namespace n JOIN pg_roles owner ON owner.oid = n.nspowner
        WHERE n.nspname = 'sens'
        """,
        API_ROLE,
    )
    if row is None:
        return []  # without a schema there is nothing to say yet
    found = []
    if row["can_become_owner"]:
        found.append(
            f"it logs in as {row['login']}, who can do all that the schema's owner can: give it a login of its own with"
            f" {password_setting} (in a cluster, the key {secret_key} of the secret) and run the migrations"
        )
    if row["owner_is_superuser"]:
        found.append(f"the schema's owner {row['owner']} is a superuser of the server; it needs CREATEROLE at most")
    if row["advisory_locks"]:
        found.append(
            "every login may take advisory locks: a superuser can end that (documentation, Operations, Roles of the database)"
        )
    if row["public_schema"] or row["temporary_tables"]:
        found.append(
            "every login may use the schema public or make temporary tables: the database's owner has to run the migrations"
        )
    return found


async def shortcomings_of_login(connection: Connection, login: str) -> list[str]:
    """Return what a tenant's login could do on this server that it need not, in words that follow "can"; empty when all is well."""
    row = await connection.fetchrow(
        """
        SELECT has_function_privilege($1, 'pg_catalog.pg_advisory_lock(bigint)', 'EXECUTE') AS advisory_locks,
            has_function_privilege($1, 'pg_catalog.lo_from_bytea(oid, bytea)', 'EXECUTE') AS large_objects,
            has_database_privilege($1, current_database(), 'TEMPORARY') AS temporary_tables,
            has_schema_privilege($1, 'public', 'USAGE') AS public_schema,
            has_parameter_privilege('temp_file_limit', 'SET') AS bounded_files,
            ARRAY(
                SELECT datname::text FROM pg_database
                WHERE datname <> current_database() AND datallowconn AND has_database_privilege($1, oid, 'CONNECT') ORDER BY 1
            ) AS databases
        """,
        login,
    )
    assert row is not None  # noqa: S101 - for the type checker: it returns one row in any case
    found = {
        "take advisory locks": row["advisory_locks"],
        "store large objects": row["large_objects"],
        "make temporary tables": row["temporary_tables"],
        "use the schema public": row["public_schema"],
        "fill the disk with temporary files of its queries": not row["bounded_files"],
        f"connect to other databases of the server: {', '.join(row['databases'])}": bool(row["databases"]),
    }
    return [what for what, is_so in found.items() if is_so]
