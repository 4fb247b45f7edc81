-- What the telemetry worker may do, and what nobody may who needs it not. The API, the workers and the migrations log in as roles of
-- their own: the first two are members of sens_api and sens_worker, the third owns the schema.

GRANT SELECT ON sens.schema_migrations, sens.tenants TO sens_worker;
GRANT SELECT, INSERT ON sens.devices, sens.metrics TO sens_worker;
GRANT SELECT, INSERT ON sens.measurements, sens.text_measurements TO sens_worker;
GRANT SELECT, INSERT, UPDATE ON sens.message_counts TO sens_worker;
-- The worker stores for all tenants.
CREATE POLICY all_tenants ON sens.tenants FOR SELECT TO sens_worker USING (true);
CREATE POLICY all_tenants ON sens.devices TO sens_worker USING (true);
CREATE POLICY all_tenants ON sens.metrics TO sens_worker USING (true);
CREATE POLICY all_tenants ON sens.message_counts TO sens_worker USING (true);

-- Partitions belong to the owner, whoever needs one: the function works as the owner. Only the owner may lock the gate, so nobody else
-- can keep partitions from being made. (Advisory locks can be taken by every login.)
CREATE TABLE sens.partition_gate ();
COMMENT ON TABLE sens.partition_gate IS 'empty; locked by who makes a partition';

DO $migration$
BEGIN
    IF (SELECT kind FROM sens.storage) = 'postgresql' THEN
        CREATE OR REPLACE FUNCTION sens.ensure_partitions(first timestamptz, last timestamptz) RETURNS void
            LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET timezone = 'UTC'
        AS $$
        DECLARE
            month timestamptz := date_trunc('month', first);
            parent text;
            partition text;
        BEGIN
            IF NOT (isfinite(first) AND isfinite(last)) THEN
                RAISE 'no partitions from % to %: both must be finite', first, last;
            END IF;
            WHILE month <= last LOOP
                FOREACH parent IN ARRAY ARRAY['measurements', 'text_measurements'] LOOP
                    partition := format('%s_%s', parent, to_char(month, 'YYYY_MM'));
                    IF to_regclass(format('sens.%I', partition)) IS NULL THEN
                        -- Two sessions that want the same partition wait for each other; the second finds it made. It asks the catalog
                        -- with a query, because to_regclass may still answer from what it knew before the wait.
                        LOCK TABLE sens.partition_gate IN EXCLUSIVE MODE;
                        IF NOT EXISTS (
                            SELECT FROM pg_class WHERE relnamespace = 'sens'::regnamespace AND relname = partition
                        ) THEN
                            EXECUTE format('CREATE TABLE sens.%I (LIKE sens.%I INCLUDING ALL)', partition, parent);
                            EXECUTE format(
                                'ALTER TABLE sens.%I ATTACH PARTITION sens.%I FOR VALUES FROM (%L) TO (%L)',
                                parent, partition, month, month + interval '1 month'
                            );
                        END IF;
                    END IF;
                END LOOP;
                month := month + interval '1 month';
            END LOOP;
        END
        $$;
    END IF;
END
$migration$;
REVOKE EXECUTE ON FUNCTION sens.ensure_partitions(timestamptz, timestamptz) FROM public;
GRANT EXECUTE ON FUNCTION sens.ensure_partitions(timestamptz, timestamptz) TO sens_worker;
