-- Readings on plain PostgreSQL: range partitions by month, and by year for the distant past.

CREATE TABLE sens.readings (
    device_id int NOT NULL,
    metric_set_id int NOT NULL,
    ts timestamptz NOT NULL,
    -- As many as the set has metrics of numbers, of texts; an element is NULL where there is no value. NULL: the set has none of them.
    numbers float8[],
    texts text[],
    PRIMARY KEY (device_id, ts)
) PARTITION BY RANGE (ts);
-- For what reads a time range of all devices.
CREATE INDEX readings_ts ON sens.readings USING brin (ts) WITH (pages_per_range = 32, autosummarize = on);
GRANT SELECT, INSERT, UPDATE ON sens.readings TO sens_worker;

-- Makes the partitions that hold the times from `first` to `last`; safe to call at any time, from several sessions at once.
-- A year before the last one gets one partition as a whole, unless months of it are there already.
CREATE FUNCTION sens.ensure_reading_partitions(first timestamptz, last timestamptz) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET timezone = 'UTC'
AS $$
DECLARE
    month timestamptz := date_trunc('month', first);
    year timestamptz;
    by_month boolean;
    lower_bound timestamptz;
    upper_bound timestamptz;
    partition text;
BEGIN
    IF NOT (isfinite(first) AND isfinite(last)) THEN
        RAISE 'no partitions from % to %: both must be finite', first, last;
    END IF;
    WHILE month <= last LOOP
        year := date_trunc('year', month);
        by_month := to_regclass(format('sens.%I', to_char(month, '"readings_"YYYY_MM'))) IS NOT NULL;
        IF NOT by_month AND to_regclass(format('sens.%I', to_char(year, '"readings_"YYYY'))) IS NULL THEN
            -- Two sessions that want the same partition wait for each other; the second finds it made. It asks the catalog with a query,
            -- because to_regclass may still answer from what it knew before the wait.
            LOCK TABLE sens.partition_gate IN EXCLUSIVE MODE;
            by_month := year >= date_trunc('year', now()) - interval '1 year' OR EXISTS (
                SELECT FROM pg_class
                WHERE relnamespace = 'sens'::regnamespace AND relkind = 'r'
                    AND starts_with(relname, to_char(year, '"readings_"YYYY"_"'))
            );
            lower_bound := CASE WHEN by_month THEN month ELSE year END;
            upper_bound := lower_bound + CASE WHEN by_month THEN interval '1 month' ELSE interval '1 year' END;
            partition := to_char(lower_bound, CASE WHEN by_month THEN '"readings_"YYYY_MM' ELSE '"readings_"YYYY' END);
            IF NOT EXISTS (SELECT FROM pg_class WHERE relnamespace = 'sens'::regnamespace AND relname = partition) THEN
                -- A table of its own that is attached then: others read and write meanwhile.
                EXECUTE format('CREATE TABLE sens.%I (LIKE sens.readings INCLUDING ALL)', partition);
                EXECUTE format(
                    'ALTER TABLE sens.readings ATTACH PARTITION sens.%I FOR VALUES FROM (%L) TO (%L)', partition, lower_bound, upper_bound
                );
            END IF;
        END IF;
        month := month + interval '1 month';
    END LOOP;
END
$$;

REVOKE EXECUTE ON FUNCTION sens.ensure_reading_partitions(timestamptz, timestamptz) FROM public;
GRANT EXECUTE ON FUNCTION sens.ensure_reading_partitions(timestamptz, timestamptz) TO sens_worker;

SELECT sens.ensure_reading_partitions(now(), now() + interval '2 months');

-- There is no columnstore.
CREATE FUNCTION sens.readings_in_columnstore(first timestamptz, last timestamptz) RETURNS boolean
    LANGUAGE sql IMMUTABLE
    RETURN false;
REVOKE EXECUTE ON FUNCTION sens.readings_in_columnstore(timestamptz, timestamptz) FROM public;
GRANT EXECUTE ON FUNCTION sens.readings_in_columnstore(timestamptz, timestamptz) TO sens_worker;
