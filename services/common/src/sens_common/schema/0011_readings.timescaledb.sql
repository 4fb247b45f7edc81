-- Readings on TimescaleDB: a hypertable, whose chunks the extension makes by itself.

CREATE TABLE sens.readings (
    device_id int NOT NULL,
    metric_set_id int NOT NULL,
    ts timestamptz NOT NULL,
    -- As many as the set has metrics of numbers, of texts; an element is NULL where there is no value. NULL: the set has none of them.
    numbers float8[],
    texts text[],
    PRIMARY KEY (device_id, ts)
);
SELECT create_hypertable('sens.readings', by_range('ts', INTERVAL '7 days'), create_default_indexes => false);
-- For what reads a time range of all devices.
CREATE INDEX readings_ts ON sens.readings USING brin (ts) WITH (pages_per_range = 32, autosummarize = on);
GRANT SELECT, INSERT, UPDATE ON sens.readings TO sens_worker;

-- Chunks older than a month go to the columnstore, which takes an eighth of the space. The primary key holds there too, and a late
-- reading still finds its chunk. The Apache edition and versions before 2.18 have no such policy; everything works without it.
DO $$
BEGIN
    IF current_setting('timescaledb.license', true) = 'timescale'
        AND EXISTS (SELECT FROM pg_proc WHERE proname = 'add_columnstore_policy')
    THEN
        ALTER TABLE sens.readings SET (
            timescaledb.enable_columnstore,
            timescaledb.segmentby = 'device_id, metric_set_id',
            timescaledb.orderby = 'ts'
        );
        CALL add_columnstore_policy('sens.readings', after => INTERVAL '30 days');
    END IF;
END
$$;

CREATE FUNCTION sens.ensure_reading_partitions(first timestamptz, last timestamptz) RETURNS void
    LANGUAGE sql
    RETURN NULL;
REVOKE EXECUTE ON FUNCTION sens.ensure_reading_partitions(timestamptz, timestamptz) FROM public;
GRANT EXECUTE ON FUNCTION sens.ensure_reading_partitions(timestamptz, timestamptz) TO sens_worker;

-- Whether a chunk with readings from `first` to `last` is in the columnstore: rows there are changed one by one.
CREATE FUNCTION sens.readings_in_columnstore(first timestamptz, last timestamptz) RETURNS boolean
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    BEGIN ATOMIC
        SELECT EXISTS (
            SELECT FROM timescaledb_information.chunks c
            WHERE c.hypertable_schema = 'sens' AND c.hypertable_name = 'readings' AND c.is_compressed
                AND c.range_start <= last AND c.range_end > first
        );
    END;
REVOKE EXECUTE ON FUNCTION sens.readings_in_columnstore(timestamptz, timestamptz) FROM public;
GRANT EXECUTE ON FUNCTION sens.readings_in_columnstore(timestamptz, timestamptz) TO sens_worker;
