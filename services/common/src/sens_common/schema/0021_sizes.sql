-- Sizes of chunks in the columnstore from a sample of their batches too, whose compressed bytes are known; and what the API tells of retention.

CREATE INDEX ON sens.tenant_sizes (tenant_id);

-- The statement that weighs some rows of a partition or chunk, as (device_id, weight).
CREATE FUNCTION sens.weights_statement(partition text, part_of text) RETURNS text
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    sampled constant text := 'SELECT r.device_id, %s * sum(%s)::numeric AS weight FROM ONLY %s r TABLESAMPLE SYSTEM (%s) GROUP BY r.device_id';
    share numeric := least(100, 100 * 1000.0 / greatest(1, pg_relation_size(partition::regclass) / 8192));
    of_rows constant text := format(sampled, 100 / share, 'pg_column_size(r.*)', partition, share);
    batches regclass;
    bytes text;
BEGIN
    IF NOT sens.is_in_columnstore(partition) THEN
        RETURN of_rows;
    END IF;
    IF EXISTS (
        SELECT FROM pg_attribute
        WHERE attrelid = to_regclass('_timescaledb_catalog.compression_settings') AND attname = 'compress_relid' AND NOT attisdropped
    ) THEN
        EXECUTE 'SELECT compress_relid FROM _timescaledb_catalog.compression_settings WHERE relid = $1::regclass' INTO batches USING partition;
    END IF;
    IF batches IS NULL THEN
        -- A version of TimescaleDB that does not tell where the batches are: all rows are counted.
        RETURN CASE
            WHEN part_of = 'readings' THEN format(
                'SELECT c.device_id, sum(c.rows * (32 + 8 * cardinality(s.number_ids) + 24 * cardinality(s.text_ids)))::numeric AS weight'
                ' FROM (SELECT r.device_id, r.metric_set_id, count(*) AS rows FROM %s r GROUP BY 1, 2) c'
                ' JOIN sens.metric_sets s ON s.id = c.metric_set_id GROUP BY 1',
                partition
            )
            ELSE format('SELECT r.device_id, count(*)::numeric AS weight FROM %s r GROUP BY r.device_id', partition)
        END;
    END IF;
    SELECT string_agg(format('coalesce(pg_column_size(r.%I), 0)', a.attname), ' + ') INTO bytes
        FROM pg_attribute a WHERE a.attrelid = batches AND a.attnum > 0 AND NOT a.attisdropped;
    share := least(100, 100 * 1000.0 / greatest(1, pg_relation_size(batches) / 8192));
    RETURN format('%s UNION ALL %s', format(sampled, 100 / share, bytes, batches, share), of_rows);
END
$$;

-- Measures the partition that was not measured for longest, if its size has changed or a week has gone by; returns its name, NULL when there is
-- none.
CREATE OR REPLACE FUNCTION sens.measure_partition() RETURNS text
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    found record;
BEGIN
    LOCK TABLE sens.partition_sizes IN SHARE ROW EXCLUSIVE MODE; -- one at a time
    WITH present AS MATERIALIZED (
        SELECT * FROM sens.partitions_on_disk()
    ), gone AS (
        DELETE FROM sens.partition_sizes s WHERE NOT EXISTS (SELECT FROM present p WHERE p.partition = s.partition)
    )
    SELECT p.* INTO found
        FROM present p LEFT JOIN sens.partition_sizes s USING (partition)
        WHERE s.partition IS NULL OR abs(p.bytes - s.bytes) > greatest(s.bytes / 50, 1048576) OR s.measured_at < now() - interval '7 days'
        ORDER BY s.measured_at NULLS FIRST, p.partition LIMIT 1;
    IF found IS NULL THEN
        PERFORM sens.compare_stored_bytes();
        RETURN NULL;
    END IF;
    DELETE FROM sens.partition_sizes s WHERE s.partition = found.partition;
    INSERT INTO sens.partition_sizes (partition, part_of, bytes) VALUES (found.partition, found.part_of, found.bytes);
    EXECUTE format(
        'INSERT INTO sens.tenant_sizes (partition, tenant_id, bytes)'
        ' SELECT $1, d.tenant_id, ($2 * sum(w.weight) / nullif(sum(sum(w.weight)) OVER (), 0))::bigint'
        ' FROM (%s) w JOIN sens.devices d ON d.id = w.device_id GROUP BY d.tenant_id HAVING sum(w.weight) > 0',
        sens.weights_statement(found.partition, found.part_of)
    ) USING found.partition, found.bytes;
    RETURN found.partition;
END
$$;

-- What the API's metrics tell of retention: of tenants with a limit of stored bytes how much of it is used, of tenants whose deletion of what is
-- older waits for the rollups, since when. The row without a tenant is that of partitions that wait.
CREATE FUNCTION sens.retention_status() RETURNS TABLE (tenant text, filled float8, waiting_since timestamptz)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    BEGIN ATOMIC
        SELECT t.name, (s.readings + s.rollups) / greatest(t.stored_byte_limit, 1)::float8, p.waiting_since
        FROM sens.tenants t LEFT JOIN sens.retention_progress p ON p.tenant_id = t.id
            LEFT JOIN LATERAL (SELECT * FROM sens.sizes_of(t.id) WHERE t.stored_byte_limit IS NOT NULL) s ON true
        WHERE (t.stored_byte_limit IS NOT NULL OR p.waiting_since IS NOT NULL) AND t.deleted_at IS NULL
        UNION ALL
        SELECT NULL, NULL, d.waiting_since FROM sens.dropping d;
    END;

REVOKE EXECUTE ON FUNCTION sens.weights_statement(text, text), sens.retention_status() FROM public;
GRANT EXECUTE ON FUNCTION sens.retention_status() TO sens_api;
