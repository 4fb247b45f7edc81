-- What was deleted is not brought back when messages are decoded again: metrics that were deleted as a whole, by their names, for their ids are gone.
CREATE TABLE sens.deleted_metrics (
    tenant_id int NOT NULL REFERENCES sens.tenants ON DELETE CASCADE,
    name text NOT NULL,
    kind text NOT NULL,
    -- Messages that were received before bring nothing back.
    deleted_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, name, kind)
);
ALTER TABLE sens.deleted_metrics ENABLE ROW LEVEL SECURITY;
CREATE POLICY all_tenants ON sens.deleted_metrics FOR SELECT TO sens_worker USING (true);
GRANT SELECT ON sens.deleted_metrics TO sens_worker;
CREATE FUNCTION sens.note_deleted_metric() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    INSERT INTO sens.deleted_metrics AS m (tenant_id, name, kind, deleted_at)
        SELECT t.id, old.name, old.kind, clock_timestamp() FROM sens.tenants t WHERE t.id = old.tenant_id AND t.deleted_at IS NULL
        ON CONFLICT (tenant_id, name, kind) DO UPDATE SET deleted_at = excluded.deleted_at;
    RETURN NULL;
END
$$;
REVOKE EXECUTE ON FUNCTION sens.note_deleted_metric() FROM public;
CREATE TRIGGER note_deleted_metric AFTER DELETE ON sens.metrics FOR EACH ROW EXECUTE FUNCTION sens.note_deleted_metric();

-- Goes on deleting messages that are older than their source keeps them, at most so many rows; returns how many went, -1 where a partition or a
-- chunk went as a whole: its lock, which who stores messages waits for, is not kept while rows are deleted.
CREATE OR REPLACE FUNCTION sens.expire_frames(most int) RETURNS bigint
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
    dropped boolean := false;
BEGIN
    BEGIN
        IF (SELECT kind FROM sens.storage) = 'timescaledb' THEN
            EXECUTE format(
                'SELECT count(*) > 0 FROM %I.drop_chunks(''sens.frames'', older_than => $1)',
                (SELECT n.nspname FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'timescaledb')
            ) INTO dropped USING kept_from;
        ELSE
            FOR partition IN
                SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
                WHERE i.inhparent = 'sens.frames'::regclass
                    AND to_timestamp(c.relname, '"frames_"YYYYMMDD') + interval '7 days' <= kept_from
            LOOP
                EXECUTE format('DROP TABLE sens.%I', partition);
                dropped := true;
            END LOOP;
        END IF;
    EXCEPTION
        WHEN lock_not_available THEN
            dropped := false; -- the next time
    END;
    IF dropped THEN
        RETURN -1;
    END IF;
    DELETE FROM sens.deleted_ranges d WHERE d.deleted_at < now() - interval '800 days';
    DELETE FROM sens.deleted_metrics d WHERE d.deleted_at < now() - interval '800 days';
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
