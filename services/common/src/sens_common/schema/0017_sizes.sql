-- How many bytes a tenant's readings and rollups take on disk: an estimate. The size of each partition or chunk, with indexes, is exact; it is
-- divided among the tenants by what their rows in it weigh: those of up to a thousand pages. In TimescaleDB's columnstore, where rows have no
-- size of their own, all rows are counted, and weighed by their numbers of values.

CREATE TABLE sens.partition_sizes (
    partition text PRIMARY KEY,
    part_of text NOT NULL,
    bytes bigint NOT NULL,
    measured_at timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE sens.tenant_sizes (
    partition text NOT NULL REFERENCES sens.partition_sizes ON DELETE CASCADE,
    tenant_id int NOT NULL,
    bytes bigint NOT NULL,
    PRIMARY KEY (partition, tenant_id)
);

CREATE FUNCTION sens.partitions_on_disk() RETURNS TABLE (partition text, part_of text, bytes bigint)
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    extension_schema name;
BEGIN
    IF (SELECT kind FROM sens.storage) = 'timescaledb' THEN
        SELECT n.nspname INTO extension_schema
            FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'timescaledb';
        RETURN QUERY EXECUTE format(
            $query$
            SELECT format('%%I.%%I', s.chunk_schema, s.chunk_name), t.name, s.total_bytes::bigint
            FROM unnest(ARRAY['readings', 'rollup_1h', 'rollup_1d']) AS t (name)
            CROSS JOIN LATERAL %I.chunks_detailed_size(format('sens.%%I', t.name)::regclass) s
            $query$,
            extension_schema
        );
    ELSE
        RETURN QUERY
            SELECT format('%I.%I', n.nspname, c.relname), t.name, pg_total_relation_size(c.oid)
            FROM unnest(ARRAY['readings', 'rollup_1h', 'rollup_1d']) AS t (name)
            CROSS JOIN LATERAL pg_partition_tree(format('sens.%I', t.name)::regclass) p
            JOIN pg_class c ON c.oid = p.relid JOIN pg_namespace n ON n.oid = c.relnamespace
            WHERE p.isleaf;
    END IF;
END
$$;

CREATE FUNCTION sens.is_in_columnstore(partition text) RETURNS boolean
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF (SELECT kind FROM sens.storage) = 'postgresql' THEN
        RETURN false;
    END IF;
    RETURN EXISTS (
        SELECT FROM timescaledb_information.chunks c
        WHERE c.hypertable_schema = 'sens' AND format('%I.%I', c.chunk_schema, c.chunk_name) = partition AND c.is_compressed
    );
END
$$;

-- Measures the partition that was not measured for longest, if its size has changed or a week has gone by; returns its name, NULL when there is
-- none.
CREATE FUNCTION sens.measure_partition() RETURNS text
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    found record;
    weights text;
BEGIN
    LOCK TABLE sens.partition_sizes IN SHARE ROW EXCLUSIVE MODE; -- one at a time
    DELETE FROM sens.partition_sizes s WHERE NOT EXISTS (SELECT FROM sens.partitions_on_disk() p WHERE p.partition = s.partition);
    SELECT p.* INTO found
        FROM sens.partitions_on_disk() p LEFT JOIN sens.partition_sizes s USING (partition)
        WHERE s.partition IS NULL OR abs(p.bytes - s.bytes) > greatest(s.bytes / 50, 1048576) OR s.measured_at < now() - interval '7 days'
        ORDER BY s.measured_at NULLS FIRST, p.partition LIMIT 1;
    IF found IS NULL THEN
        PERFORM sens.compare_stored_bytes();
        RETURN NULL;
    END IF;
    weights := CASE
        WHEN NOT sens.is_in_columnstore(found.partition) THEN format(
            'SELECT r.device_id, sum(pg_column_size(r.*))::numeric AS weight FROM %s r TABLESAMPLE SYSTEM (%s) GROUP BY r.device_id',
            found.partition, least(100, 100 * 1000.0 / greatest(1, pg_relation_size(found.partition::regclass) / 8192))
        )
        WHEN found.part_of = 'readings' THEN format(
            'SELECT c.device_id, sum(c.rows * (32 + 8 * cardinality(s.number_ids) + 24 * cardinality(s.text_ids)))::numeric AS weight'
            ' FROM (SELECT r.device_id, r.metric_set_id, count(*) AS rows FROM %s r GROUP BY 1, 2) c'
            ' JOIN sens.metric_sets s ON s.id = c.metric_set_id GROUP BY 1',
            found.partition
        )
        ELSE format('SELECT r.device_id, count(*)::numeric AS weight FROM %s r GROUP BY r.device_id', found.partition)
    END;
    DELETE FROM sens.partition_sizes s WHERE s.partition = found.partition;
    INSERT INTO sens.partition_sizes (partition, part_of, bytes) VALUES (found.partition, found.part_of, found.bytes);
    EXECUTE format(
        'INSERT INTO sens.tenant_sizes (partition, tenant_id, bytes)'
        ' SELECT $1, d.tenant_id, ($2 * sum(w.weight) / sum(sum(w.weight)) OVER ())::bigint'
        ' FROM (%s) w JOIN sens.devices d ON d.id = w.device_id GROUP BY d.tenant_id',
        weights
    ) USING found.partition, found.bytes;
    RETURN found.partition;
END
$$;

-- The sizes of a tenant: of its readings, its rollups, its dead letters, and when the oldest part of the estimate was made.
CREATE FUNCTION sens.sizes_of(tenant int, OUT readings bigint, OUT rollups bigint, OUT letters bigint, OUT measured_at timestamptz)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    BEGIN ATOMIC
        SELECT coalesce(sum(t.bytes) FILTER (WHERE p.part_of = 'readings'), 0)::bigint,
            coalesce(sum(t.bytes) FILTER (WHERE p.part_of <> 'readings'), 0)::bigint,
            coalesce((SELECT sum(u.bytes) FROM sens.dead_letter_usage u WHERE u.tenant_id = tenant), 0)::bigint,
            min(p.measured_at)
        FROM sens.tenant_sizes t JOIN sens.partition_sizes p USING (partition)
        WHERE t.tenant_id = tenant;
    END;

-- A tenant that takes more than its limit gets dead letters instead of readings. Workers learn of it by the generation of tenants, so the size
-- is written when it comes to lie on the other side of the limit, or the limit changes.
ALTER TABLE sens.tenants
    ADD COLUMN stored_byte_limit bigint CHECK (stored_byte_limit >= 0),
    ADD COLUMN stored_bytes bigint NOT NULL DEFAULT 0;
CREATE FUNCTION sens.note_stored_bytes() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    SELECT s.readings + s.rollups INTO new.stored_bytes FROM sens.sizes_of(new.id) s;
    RETURN new;
END
$$;
CREATE TRIGGER note_stored_bytes BEFORE UPDATE OF stored_byte_limit ON sens.tenants FOR EACH ROW EXECUTE FUNCTION sens.note_stored_bytes();
CREATE FUNCTION sens.compare_stored_bytes() RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    crossed constant int[] := (
        SELECT array_agg(t.id) FROM sens.tenants t CROSS JOIN LATERAL sens.sizes_of(t.id) s
        WHERE t.stored_byte_limit IS NOT NULL AND (s.readings + s.rollups > t.stored_byte_limit) <> (t.stored_bytes > t.stored_byte_limit)
    );
BEGIN
    IF crossed IS NOT NULL THEN
        UPDATE sens.tenants SET stored_byte_limit = stored_byte_limit WHERE id = ANY (crossed);
    END IF;
END
$$;

CREATE FUNCTION sens.own_sizes(OUT readings bigint, OUT rollups bigint, OUT letters bigint, OUT measured_at timestamptz)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    BEGIN ATOMIC
        SELECT * FROM sens.sizes_of(sens.current_tenant_id());
    END;

REVOKE EXECUTE ON FUNCTION sens.partitions_on_disk(), sens.is_in_columnstore(text), sens.measure_partition(), sens.sizes_of(int),
    sens.own_sizes(), sens.note_stored_bytes(), sens.compare_stored_bytes() FROM public;
GRANT EXECUTE ON FUNCTION sens.measure_partition(), sens.own_sizes() TO sens_api;
