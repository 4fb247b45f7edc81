-- Measurements on plain PostgreSQL: range partitions by month, made ahead and whenever a reading needs one.

CREATE TABLE sens.measurements (
    device_id int NOT NULL,
    metric_id int NOT NULL,
    ts timestamptz NOT NULL,
    value float8 NOT NULL,
    PRIMARY KEY (device_id, metric_id, ts)
) PARTITION BY RANGE (ts);

CREATE TABLE sens.text_measurements (
    device_id int NOT NULL,
    metric_id int NOT NULL,
    ts timestamptz NOT NULL,
    value text NOT NULL,
    PRIMARY KEY (device_id, metric_id, ts)
) PARTITION BY RANGE (ts);

-- Makes the partitions that hold the times from `first` to `last`; safe to call at any time, from several sessions at once.
-- A partition is made as a table of its own and then attached, which lets others read and write meanwhile.
CREATE FUNCTION sens.ensure_partitions(first timestamptz, last timestamptz) RETURNS void
    LANGUAGE plpgsql SET timezone = 'UTC'
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
                -- Two sessions that want the same partition wait for each other; the second finds it made. It asks the catalog with
                -- a query, because to_regclass may still answer from what it knew before the wait.
                PERFORM pg_advisory_xact_lock(hashtext('sens.ensure_partitions'));
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

SELECT sens.ensure_partitions(now(), now() + interval '2 months');
