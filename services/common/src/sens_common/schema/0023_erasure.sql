-- Deletions count the messages that were kept, as they count readings and dead letters: the receipt of an erasure names them.
ALTER TABLE sens.deletions ADD COLUMN frames bigint NOT NULL DEFAULT 0;
ALTER TABLE sens.finished_deletions ADD COLUMN frames bigint NOT NULL DEFAULT 0;

-- Deletes messages that a device has readings of in a range, at most those of so many readings; returns how many messages went.
CREATE OR REPLACE FUNCTION sens.delete_frames(device int, first timestamptz, past timestamptz, most int) RETURNS bigint
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
    SELECT count(DISTINCT (c.received_at, c.stream, c.sequence, c.number)) INTO gone FROM chosen c;
    RETURN gone;
END
$$;

-- Deletes what a device has, or its values of some metrics, in a range, from a time on that was reached before; `finished` when nothing is left.
-- The messages that were kept of it go with it; those of a metric of a range too, but not those of a metric that goes as a whole.
DROP FUNCTION sens.delete_of_device(int, int[], timestamptz, timestamptz, timestamptz, int);
CREATE FUNCTION sens.delete_of_device(
    device int, metrics int[], first timestamptz, past timestamptz, since timestamptz, most int,
    OUT deleted bigint, OUT readings bigint, OUT reached timestamptz, OUT finished boolean, OUT frames bigint
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
    frames := 0;
    IF coalesce(cardinality(metrics), 0) = 0 OR isfinite(first) OR isfinite(past) THEN
        frames := sens.delete_frames(device, first, past, greatest(1, most / 10));
        IF frames > 0 THEN
            RETURN;
        END IF;
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
REVOKE EXECUTE ON FUNCTION sens.delete_of_device(int, int[], timestamptz, timestamptz, timestamptz, int) FROM public;

-- Goes on with one deletion, the one that was left alone for longest; no row when there is none, or when others are at all of them.
-- It deletes about `most` values at most, and works for a fraction of a second.
CREATE OR REPLACE FUNCTION sens.continue_deletion(most int) RETURNS TABLE (deletion bigint, deleted bigint, finished boolean)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '1s'
AS $$
#variable_conflict use_variable
DECLARE
    until constant timestamptz := clock_timestamp() + interval '200 milliseconds';
    task sens.deletions;
    device int;
    number bigint := 0;
    step record;
BEGIN
    IF EXISTS (SELECT FROM sens.deletions d WHERE d.to_device_id IS NOT NULL) THEN
        -- Names stay while readings are moved; whoever changes them locks the gate first, then rows of sens.deletions.
        LOCK TABLE sens.name_generation IN ACCESS SHARE MODE;
    END IF;
    SELECT * INTO task FROM sens.deletions d ORDER BY d.continued_at, d.id LIMIT 1 FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    IF task.to_device_id IS NOT NULL THEN
        LOCK TABLE sens.name_generation IN ACCESS SHARE MODE;
        IF NOT EXISTS (SELECT FROM sens.devices d WHERE d.id = task.to_device_id) THEN
            -- The device was deleted where it came to.
            task.to_device_id := NULL;
            task.reached := '-infinity';
        END IF;
    END IF;
    deletion := task.id;
    deleted := 0;
    finished := false;
    IF task.erased_hash IS NOT NULL THEN
        DELETE FROM sens.dead_letters l WHERE l.id IN (
            SELECT o.id FROM sens.dead_letters o
            WHERE o.tenant_id = task.tenant_id AND sha256(convert_to(o.device, 'UTF8')) = task.erased_hash
                AND o.received_at < (SELECT e.erased_at FROM sens.erasures e WHERE e.deletion_id = task.id)
            ORDER BY o.id LIMIT most
        );
        GET DIAGNOSTICS number = ROW_COUNT;
        task.letters := task.letters + number;
        finished := number < most AND task.device_id IS NULL;
    END IF;
    WHILE NOT finished AND number < most LOOP
        device := coalesce(
            task.device_id,
            (SELECT min(d.id) FROM sens.devices d WHERE d.tenant_id = task.tenant_id AND d.id > task.after_device_id)
        );
        IF device IS NULL THEN
            finished := NOT task.whole_tenant OR sens.delete_rest_of_tenant(task.tenant_id, most) = 0;
            EXIT;
        ELSIF task.to_device_id IS NOT NULL THEN
            SELECT v.*, 0::bigint AS frames INTO step FROM sens.move_values(device, task.to_device_id, task.from_metric_ids, task.to_metric_ids, task.reached, most) v;
        ELSE
            SELECT * INTO step
            FROM sens.delete_of_device(device, task.metric_ids, task.first, task.past, task.reached, (most - deleted)::int);
        END IF;
        deleted := deleted + step.deleted;
        task.readings := task.readings + step.readings;
        task.frames := task.frames + step.frames;
        task.reached := step.reached;
        EXIT WHEN NOT step.finished;
        IF task.whole_tenant THEN
            DELETE FROM sens.devices d WHERE d.id = device;
            PERFORM sens.forget_sets(device, NULL);
        END IF;
        task.reached := '-infinity';
        finished := task.device_id IS NOT NULL;
        EXIT WHEN finished;
        task.after_device_id := device;
        EXIT WHEN deleted >= most OR clock_timestamp() >= until;
    END LOOP;
    finished := finished AND NOT EXISTS (SELECT FROM sens.deletions p WHERE p.part_of = task.id);
    IF NOT finished THEN
        UPDATE sens.deletions d
        SET continued_at = clock_timestamp(), deleted = d.deleted + continue_deletion.deleted,
            readings = task.readings, letters = task.letters, frames = task.frames,
            after_device_id = task.after_device_id, reached = task.reached, to_device_id = task.to_device_id
        WHERE d.id = task.id;
        RETURN NEXT;
        RETURN;
    END IF;
    DELETE FROM sens.deletions d WHERE d.id = task.id;
    IF task.part_of IS NOT NULL THEN
        UPDATE sens.deletions d
            SET deleted = d.deleted + task.deleted + continue_deletion.deleted, readings = d.readings + task.readings,
                frames = d.frames + task.frames
            WHERE d.id = task.part_of;
    ELSE
        INSERT INTO sens.finished_deletions (id, tenant_id, subject, requested_at, finished_at, readings, "values", letters, to_tenant_id, frames)
            VALUES (
                task.id, task.tenant_id, task.subject, task.requested_at, now(), task.readings, task.deleted + deleted, task.letters,
                CASE WHEN task.to_device_id IS NOT NULL THEN task.to_tenant_id END, task.frames
            );
    END IF;
    RETURN NEXT;
END
$$;
