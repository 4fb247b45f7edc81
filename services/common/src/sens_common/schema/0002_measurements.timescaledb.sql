-- Measurements on TimescaleDB: hypertables, whose chunks the extension makes by itself.

CREATE TABLE sens.measurements (
    device_id int NOT NULL,
    metric_id int NOT NULL,
    ts timestamptz NOT NULL,
    value float8 NOT NULL,
    PRIMARY KEY (device_id, metric_id, ts)
);
SELECT create_hypertable(
    'sens.measurements', by_range('ts', INTERVAL '7 days'), create_default_indexes => false
);

CREATE TABLE sens.text_measurements (
    device_id int NOT NULL,
    metric_id int NOT NULL,
    ts timestamptz NOT NULL,
    value text NOT NULL,
    PRIMARY KEY (device_id, metric_id, ts)
);
SELECT create_hypertable(
    'sens.text_measurements', by_range('ts', INTERVAL '7 days'), create_default_indexes => false
);

-- Chunks older than a month go to the columnstore, which takes a tenth of the space. The primary key holds there too, and a late
-- reading still finds its chunk. The Apache edition and versions before 2.18 have no such policy; everything works without it.
DO $$
BEGIN
    IF current_setting('timescaledb.license', true) = 'timescale'
        AND EXISTS (SELECT FROM pg_proc WHERE proname = 'add_columnstore_policy')
    THEN
        ALTER TABLE sens.measurements SET (
            timescaledb.enable_columnstore,
            timescaledb.segmentby = 'device_id, metric_id',
            timescaledb.orderby = 'ts'
        );
        ALTER TABLE sens.text_measurements SET (
            timescaledb.enable_columnstore,
            timescaledb.segmentby = 'device_id, metric_id',
            timescaledb.orderby = 'ts'
        );
        CALL add_columnstore_policy('sens.measurements', after => INTERVAL '30 days');
        CALL add_columnstore_policy('sens.text_measurements', after => INTERVAL '30 days');
    END IF;
END
$$;

CREATE FUNCTION sens.ensure_partitions(first timestamptz, last timestamptz) RETURNS void
    LANGUAGE sql
    RETURN NULL;
