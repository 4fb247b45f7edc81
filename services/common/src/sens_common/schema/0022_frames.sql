-- Messages of sources, kept as they were received, so that they can be decoded again.

-- For how many days a source's messages are kept; NULL: not at all.
ALTER TABLE sens.sources ADD COLUMN keep_frames int CHECK (keep_frames BETWEEN 1 AND 400);

-- A row for each reading that a message led to. It is found by its device and time, and goes with them. The first row of a message has its
-- topic and payload; a message goes as a whole.
DO $migration$
BEGIN
    EXECUTE $table$
        CREATE TABLE sens.frames (
            device_id int NOT NULL,
            -- Of the reading.
            ts timestamptz NOT NULL,
            received_at timestamptz NOT NULL,
            -- Where the message came from first: see sens.dead_letters.
            stream bigint NOT NULL,
            sequence bigint NOT NULL,
            number int NOT NULL,
            source_id int NOT NULL,
            -- What decoded the device's bytes: name@number, or the name of one that is built in; NULL: nothing.
            codec text,
            -- The run that decoded it again last.
            run_id bigint,
            -- The metrics of which it led to a value.
            metric_ids int[] NOT NULL,
            -- Whether the message has further rows.
            multiple boolean NOT NULL,
            topic text,
            payload bytea,
            PRIMARY KEY (device_id, ts, received_at, stream, sequence, number)
        )
    $table$ || CASE WHEN (SELECT kind FROM sens.storage) = 'timescaledb' THEN '' ELSE ' PARTITION BY RANGE (received_at)' END;
    IF (SELECT kind FROM sens.storage) = 'timescaledb' THEN
        PERFORM create_hypertable('sens.frames', by_range('received_at', INTERVAL '7 days'), create_default_indexes => false);
    END IF;
END
$migration$;
CREATE INDEX frames_of_sources ON sens.frames (source_id, received_at);
CREATE INDEX frames_of_messages ON sens.frames (sequence, number) WHERE multiple;
GRANT SELECT, INSERT, UPDATE (codec, run_id, metric_ids) ON sens.frames TO sens_worker;

-- Makes the partitions, one a week, that hold the times from `first` to `last`; on plain PostgreSQL. It makes no more than those of two years.
CREATE FUNCTION sens.ensure_frame_partitions(first timestamptz, last timestamptz) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET timezone = 'UTC'
AS $$
DECLARE
    week timestamptz := date_bin('7 days', first, timestamptz '2024-01-01');
    partition text;
BEGIN
    IF (SELECT kind FROM sens.storage) <> 'postgresql' THEN
        RETURN;
    ELSIF NOT (first > now() - interval '730 days' AND last < now() + interval '30 days') THEN
        RAISE 'no partitions from % to %: messages are kept for 400 days at most', first, last;
    END IF;
    WHILE week <= last LOOP
        partition := to_char(week, '"frames_"YYYYMMDD');
        IF to_regclass(format('sens.%I', partition)) IS NULL THEN
            -- Two sessions that want the same partition wait for each other: see sens.ensure_reading_partitions.
            LOCK TABLE sens.partition_gate IN EXCLUSIVE MODE;
            IF NOT EXISTS (SELECT FROM pg_class WHERE relnamespace = 'sens'::regnamespace AND relname = partition) THEN
                EXECUTE format('CREATE TABLE sens.%I (LIKE sens.frames INCLUDING ALL)', partition);
                EXECUTE format(
                    'ALTER TABLE sens.frames ATTACH PARTITION sens.%I FOR VALUES FROM (%L) TO (%L)', partition, week, week + interval '7 days'
                );
            END IF;
        END IF;
        week := week + interval '7 days';
    END LOOP;
END
$$;

-- Sets for how many days the messages of a source of the current tenant are kept, NULL: not at all; returns whether that was different.
CREATE FUNCTION sens.set_keep_frames(source text, days int, actor text, address text, request_id text) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    tenant constant int := sens.current_tenant_id();
BEGIN
    UPDATE sens.sources s SET keep_frames = days, changed_at = now()
        WHERE s.tenant_id = tenant AND s.name = source AND s.keep_frames IS DISTINCT FROM days;
    IF FOUND THEN
        PERFORM sens.record_audit(
            tenant, actor, 'source.keep_frames_changed', 'source ' || source, jsonb_build_object('keep_frames', days), address, request_id
        );
        RETURN true;
    END IF;
    RETURN false;
END
$$;

-- Deletes messages that a device has readings of in a range, at most so many of the readings; returns how many went.
CREATE FUNCTION sens.delete_frames(device int, first timestamptz, past timestamptz, most int) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    gone bigint;
BEGIN
    WITH chosen AS MATERIALIZED (
        SELECT f.ts, f.received_at, f.stream, f.sequence, f.number, f.multiple FROM sens.frames f
        WHERE f.device_id = device AND f.ts >= first AND f.ts < past ORDER BY f.ts LIMIT most
    ), own AS (
        DELETE FROM sens.frames f USING chosen c
        WHERE NOT c.multiple AND f.device_id = device AND f.ts = c.ts AND f.received_at = c.received_at
            AND f.stream = c.stream AND f.sequence = c.sequence AND f.number = c.number
    ), whole AS (
        DELETE FROM sens.frames f USING (SELECT DISTINCT w.received_at, w.stream, w.sequence, w.number FROM chosen w WHERE w.multiple) c
        WHERE f.multiple AND f.received_at = c.received_at AND f.stream = c.stream AND f.sequence = c.sequence AND f.number = c.number
    )
    SELECT count(*) INTO gone FROM chosen;
    RETURN gone;
END
$$;

-- Goes on deleting messages that are older than their source keeps them, at most so many rows; returns how many went. Partitions and chunks are
-- dropped where all of it is older.
CREATE FUNCTION sens.expire_frames(most int) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '200ms' SET timezone = 'UTC'
AS $$
DECLARE
    longest constant int := coalesce((SELECT max(s.keep_frames) FROM sens.sources s), 0);
    kept_from constant timestamptz := now() - longest * interval '24 hours';
    partition name;
    source int;
    before timestamptz;
    gone bigint;
    deleted bigint := 0;
BEGIN
    BEGIN
        IF (SELECT kind FROM sens.storage) = 'timescaledb' THEN
            EXECUTE format(
                'SELECT %I.drop_chunks(''sens.frames'', older_than => $1)',
                (SELECT n.nspname FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'timescaledb')
            ) USING kept_from;
        ELSE
            FOR partition IN
                SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
                WHERE i.inhparent = 'sens.frames'::regclass
                    AND to_timestamp(c.relname, '"frames_"YYYYMMDD') + interval '7 days' <= kept_from
            LOOP
                EXECUTE format('DROP TABLE sens.%I', partition);
            END LOOP;
        END IF;
    EXCEPTION
        WHEN lock_not_available THEN
            NULL; -- the next time
    END;
    DELETE FROM sens.deleted_ranges d WHERE d.deleted_at < now() - interval '800 days';
    LOOP
        SELECT f.source_id INTO source FROM sens.frames f WHERE f.source_id > source OR source IS NULL ORDER BY f.source_id LIMIT 1;
        EXIT WHEN source IS NULL OR deleted >= most;
        before := now() - coalesce((SELECT s.keep_frames FROM sens.sources s WHERE s.id = source), 0) * interval '24 hours';
        DELETE FROM sens.frames f USING (
            SELECT o.device_id, o.ts, o.received_at, o.stream, o.sequence, o.number FROM sens.frames o
            WHERE o.source_id = source AND o.received_at < before ORDER BY o.received_at LIMIT most - deleted
        ) c
        WHERE f.device_id = c.device_id AND f.ts = c.ts AND f.received_at = c.received_at
            AND f.stream = c.stream AND f.sequence = c.sequence AND f.number = c.number;
        GET DIAGNOSTICS gone = ROW_COUNT;
        deleted := deleted + gone;
    END LOOP;
    RETURN deleted;
END
$$;

-- Ranges of which readings were deleted: what was received before is not brought back when it is decoded again.
CREATE TABLE sens.deleted_ranges (
    device_id int NOT NULL REFERENCES sens.devices ON DELETE CASCADE,
    -- NULL: all.
    metric_ids int[],
    first timestamptz NOT NULL,
    past timestamptz NOT NULL,
    deleted_at timestamptz NOT NULL
);
CREATE INDEX ON sens.deleted_ranges (device_id);
CREATE INDEX ON sens.deleted_ranges (deleted_at);
CREATE FUNCTION sens.note_deleted_range() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF new.to_device_id IS NOT NULL THEN
        -- Of a device that moves, the messages stay behind: they name sources and codecs of the tenant that had it.
        INSERT INTO sens.deletions (tenant_id, device_id, metric_ids, subject, part_of)
            VALUES (new.tenant_id, new.device_id, '{}', 'messages kept of a device that was moved', new.id);
    ELSE
        INSERT INTO sens.deleted_ranges SELECT d.id, new.metric_ids, new.first, new.past, clock_timestamp()
            FROM sens.devices d WHERE d.id = new.device_id;
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER note_deleted_range AFTER INSERT ON sens.deletions FOR EACH ROW
    WHEN (new.to_device_id IS NOT NULL OR isfinite(new.first) OR isfinite(new.past)) EXECUTE FUNCTION sens.note_deleted_range();

-- Deletes what a device has, or its values of some metrics, in a range, from a time on that was reached before; `finished` when nothing is left.
-- The messages that were kept of it go with it; those of a metric of a range too, but not those of a metric that goes as a whole.
CREATE OR REPLACE FUNCTION sens.delete_of_device(
    device int, metrics int[], first timestamptz, past timestamptz, since timestamptz, most int,
    OUT deleted bigint, OUT readings bigint, OUT reached timestamptz, OUT finished boolean
)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    has_sets boolean;
    step record;
BEGIN
    deleted := 0;
    readings := 0;
    reached := since;
    finished := false;
    IF (coalesce(cardinality(metrics), 0) = 0 OR isfinite(first) OR isfinite(past))
        AND sens.delete_frames(device, first, past, greatest(1, most / 10)) > 0
    THEN
        RETURN;
    END IF;
    IF sens.has_former_rows(device) THEN
        -- Whoever moves its rows waits; what has been moved so far is in the sets that are looked for next.
        PERFORM FROM sens.devices d WHERE d.id = device FOR NO KEY UPDATE;
    END IF;
    has_sets := EXISTS (
        SELECT FROM sens.device_metric_sets d LEFT JOIN sens.metric_sets s ON s.id = d.metric_set_id
        WHERE d.device_id = device AND (metrics IS NULL OR s.number_ids && metrics OR s.text_ids && metrics)
    );
    IF has_sets THEN
        -- Whoever merges values into rows of the device waits.
        PERFORM FROM sens.devices d WHERE d.id = device FOR NO KEY UPDATE;
    END IF;
    SELECT f.deleted, f.finished INTO deleted, finished FROM sens.delete_former(device, metrics, first, past, most) f;
    IF NOT finished OR NOT has_sets THEN
        RETURN;
    END IF;
    SELECT * INTO step FROM sens.delete_readings(device, metrics, greatest(since, first), past, (most - deleted)::int, noted => true);
    deleted := deleted + step.deleted;
    readings := step.readings;
    reached := step.reached;
    finished := step.finished;
    IF finished AND sens.delete_rollups_of(device, metrics, first, past, (most - deleted)::int) > 0 THEN
        finished := false;
    END IF;
    IF finished THEN
        PERFORM sens.forget_sets(device, metrics);
    END IF;
END
$$;

-- What tenants take on disk, with the messages that are kept: these count as readings.
CREATE OR REPLACE FUNCTION sens.partitions_on_disk() RETURNS TABLE (partition text, part_of text, bytes bigint)
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
            FROM unnest(ARRAY['readings', 'rollup_1h', 'rollup_1d', 'frames']) AS t (name)
            CROSS JOIN LATERAL %I.chunks_detailed_size(format('sens.%%I', t.name)::regclass) s
            $query$,
            extension_schema
        );
    ELSE
        RETURN QUERY
            SELECT format('%I.%I', n.nspname, c.relname), t.name, pg_total_relation_size(c.oid)
            FROM unnest(ARRAY['readings', 'rollup_1h', 'rollup_1d', 'frames']) AS t (name)
            CROSS JOIN LATERAL pg_partition_tree(format('sens.%I', t.name)::regclass) p
            JOIN pg_class c ON c.oid = p.relid JOIN pg_namespace n ON n.oid = c.relnamespace
            WHERE p.isleaf;
    END IF;
END
$$;
CREATE OR REPLACE FUNCTION sens.sizes_of(tenant int, OUT readings bigint, OUT rollups bigint, OUT letters bigint, OUT measured_at timestamptz)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    BEGIN ATOMIC
        SELECT coalesce(sum(t.bytes) FILTER (WHERE p.part_of IN ('readings', 'frames')), 0)::bigint,
            coalesce(sum(t.bytes) FILTER (WHERE p.part_of IN ('rollup_1h', 'rollup_1d')), 0)::bigint,
            coalesce((SELECT sum(u.bytes) FROM sens.dead_letter_usage u WHERE u.tenant_id = tenant), 0)::bigint,
            min(p.measured_at)
        FROM sens.tenant_sizes t JOIN sens.partition_sizes p USING (partition)
        WHERE t.tenant_id = tenant;
    END;

REVOKE EXECUTE ON FUNCTION sens.ensure_frame_partitions(timestamptz, timestamptz), sens.set_keep_frames(text, int, text, text, text),
    sens.delete_frames(int, timestamptz, timestamptz, int), sens.expire_frames(int), sens.note_deleted_range() FROM public;
GRANT EXECUTE ON FUNCTION sens.ensure_frame_partitions(timestamptz, timestamptz) TO sens_worker;
GRANT EXECUTE ON FUNCTION sens.set_keep_frames(text, int, text, text, text), sens.expire_frames(int) TO sens_api;
SELECT sens.ensure_frame_partitions(now(), now() + interval '7 days');
