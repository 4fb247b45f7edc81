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

CREATE FUNCTION sens.ensure_partitions(first timestamptz, last timestamptz) RETURNS void
    LANGUAGE sql
    RETURN NULL;
