-- What a tenant may have and send; how many names it has and how fast they come; and how workers learn of changes.

ALTER TABLE sens.tenants
    -- NULL: no limit. The ingestion workers, which have no database, are told by the API (sens_common.tenant_limits).
    ADD COLUMN messages_per_second int CHECK (messages_per_second > 0),
    -- How far back a reading may lie, before the receipt of its message.
    ADD COLUMN late_days int NOT NULL DEFAULT 400 CHECK (late_days BETWEEN 1 AND 36500),
    -- A mistake that makes names up (a counter in a metric's name) uses up the limits of devices and metrics only this fast.
    ADD COLUMN new_devices_per_hour int NOT NULL DEFAULT 100000 CHECK (new_devices_per_hour >= 0),
    ADD COLUMN new_metrics_per_hour int NOT NULL DEFAULT 1000 CHECK (new_metrics_per_hour >= 0);

-- How many names a tenant has, and how many of them came within an hour of the clock. Whoever registers or deletes names locks the row,
-- so that the limits hold for all workers together.
CREATE TABLE sens.registrations (
    tenant_id int PRIMARY KEY REFERENCES sens.tenants ON DELETE CASCADE,
    devices int NOT NULL,
    metrics int NOT NULL,
    hour timestamptz NOT NULL DEFAULT '-infinity',
    new_devices int NOT NULL DEFAULT 0,
    new_metrics int NOT NULL DEFAULT 0
);
INSERT INTO sens.registrations (tenant_id, devices, metrics)
    SELECT t.id, (SELECT count(*) FROM sens.devices d WHERE d.tenant_id = t.id), (SELECT count(*) FROM sens.metrics m WHERE m.tenant_id = t.id)
    FROM sens.tenants t;
ALTER TABLE sens.registrations ENABLE ROW LEVEL SECURITY;
CREATE POLICY own_tenant ON sens.registrations FOR SELECT TO sens_api USING (tenant_id = (SELECT sens.current_tenant_id()));
CREATE POLICY all_tenants ON sens.registrations TO sens_worker USING (true);
GRANT SELECT ON sens.registrations TO sens_api;
GRANT SELECT, INSERT, UPDATE ON sens.registrations TO sens_worker;

-- Grows with every change of the tenants, so that a worker asks one short question to know that it still knows them all.
CREATE TABLE sens.tenant_generation (generation bigint NOT NULL);
CREATE UNIQUE INDEX ON sens.tenant_generation ((true));
INSERT INTO sens.tenant_generation VALUES (1);
CREATE FUNCTION sens.raise_tenant_generation() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    UPDATE sens.tenant_generation SET generation = generation + 1;
    RETURN NULL;
END
$$;
CREATE TRIGGER raise_generation AFTER INSERT OR UPDATE OR DELETE ON sens.tenants
    FOR EACH STATEMENT EXECUTE FUNCTION sens.raise_tenant_generation();
GRANT SELECT ON sens.tenant_generation TO sens_worker;

-- The gate between storing and deleting. A worker reads the generation in the transaction that stores rows under ids which it
-- remembers, and keeps the lock of a reader until the end of that transaction. Who deletes devices or metrics locks the table (ACCESS
-- EXCLUSIVE) and raises the generation: no row is stored under an id that is gone, and whoever remembers ids of before asks again.
CREATE TABLE sens.name_generation (generation bigint NOT NULL);
CREATE UNIQUE INDEX ON sens.name_generation ((true));
INSERT INTO sens.name_generation VALUES (1);
GRANT SELECT ON sens.name_generation TO sens_worker;

-- What the API tells the ingestion workers; it sees no other tenant's row otherwise.
CREATE FUNCTION sens.ingestion_limits() RETURNS TABLE (tenant text, messages_per_second int)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    BEGIN ATOMIC
        SELECT t.name, t.messages_per_second FROM sens.tenants t WHERE t.messages_per_second IS NOT NULL;
    END;
REVOKE EXECUTE ON FUNCTION sens.ingestion_limits() FROM public;
GRANT EXECUTE ON FUNCTION sens.ingestion_limits() TO sens_api;
