-- Runs of codecs over messages that were received before: to store what they say now, to see what that would change, or to compare two versions.
-- A telemetry worker does them, in short steps; each step's transaction keeps how far it is.
CREATE TABLE sens.codec_runs (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant_id int NOT NULL REFERENCES sens.tenants ON DELETE CASCADE,
    kind text NOT NULL CHECK (kind IN ('redecode', 'dry_run', 'compare')),
    -- Of a comparison NULL.
    device text,
    -- The readings' times; of a comparison the messages' receipt.
    first timestamptz NOT NULL,
    past timestamptz NOT NULL CHECK (past > first),
    codec text NOT NULL,
    number int NOT NULL,
    -- Of a comparison: the version before, and the source whose messages are taken; NULL: of all sources.
    other_number int,
    source text,
    requested_at timestamptz NOT NULL DEFAULT now(),
    requested_by text NOT NULL,
    cancelled_at timestamptz,
    finished_at timestamptz,
    outcome text CHECK (outcome IN ('finished', 'cancelled', 'failed')),
    failure text,
    -- Where to go on, and what was found so far: see sens_telemetry_worker.codec_runs.
    progress jsonb NOT NULL DEFAULT '{}' CHECK (octet_length(progress::text) <= 16384),
    report jsonb NOT NULL DEFAULT '{}' CHECK (octet_length(report::text) <= 262144),
    continued_at timestamptz NOT NULL DEFAULT now(),
    -- A worker is at a step until then, or has gone.
    taken_until timestamptz NOT NULL DEFAULT '-infinity',
    CHECK ((finished_at IS NULL) = (outcome IS NULL)),
    CHECK ((kind = 'compare') = (device IS NULL)),
    CHECK ((kind = 'compare') = (other_number IS NOT NULL))
);
-- One at a time for each tenant.
CREATE UNIQUE INDEX codec_run_of_tenant ON sens.codec_runs (tenant_id) WHERE finished_at IS NULL;
CREATE INDEX ON sens.codec_runs (tenant_id, id);
ALTER TABLE sens.codec_runs ENABLE ROW LEVEL SECURITY;
CREATE POLICY own_tenant ON sens.codec_runs FOR SELECT TO sens_api USING (tenant_id = (SELECT sens.current_tenant_id()));
CREATE POLICY all_tenants ON sens.codec_runs TO sens_worker USING (true);
GRANT SELECT ON sens.codec_runs TO sens_api, sens_worker;
GRANT UPDATE (progress, report, continued_at, taken_until) ON sens.codec_runs TO sens_worker;

-- Times at which a run has found a message of its device in the stream, until it ends.
CREATE TABLE sens.codec_run_times (
    run_id bigint NOT NULL REFERENCES sens.codec_runs ON DELETE CASCADE,
    ts timestamptz NOT NULL,
    PRIMARY KEY (run_id, ts)
);
GRANT SELECT, INSERT ON sens.codec_run_times TO sens_worker;

-- Begins a run for the current tenant: {"kind", "device", "first", "past", "codec", "number", "other_number", "source"}.
-- outcome: begun, running (with the one that is not finished), unknown_device, unknown_codec, unknown_source. The newest 200 runs are kept.
CREATE FUNCTION sens.begin_codec_run(document jsonb, actor text, address text, request_id text, OUT outcome text, OUT run bigint)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    tenant constant int := sens.current_tenant_id();
    wanted constant sens.codec_runs := jsonb_populate_record(NULL::sens.codec_runs, document);
BEGIN
    PERFORM FROM sens.tenants t WHERE t.id = tenant FOR NO KEY UPDATE;
    SELECT r.id INTO begin_codec_run.run FROM sens.codec_runs r WHERE r.tenant_id = tenant AND r.finished_at IS NULL;
    IF FOUND THEN
        begin_codec_run.outcome := 'running';
        RETURN;
    ELSIF wanted.device IS NOT NULL AND NOT EXISTS (SELECT FROM sens.devices d WHERE d.tenant_id = tenant AND d.name = wanted.device) THEN
        begin_codec_run.outcome := 'unknown_device';
        RETURN;
    ELSIF wanted.source IS NOT NULL AND NOT EXISTS (SELECT FROM sens.sources s WHERE s.tenant_id = tenant AND s.name = wanted.source) THEN
        begin_codec_run.outcome := 'unknown_source';
        RETURN;
    ELSIF 1 + (wanted.other_number IS NOT NULL)::int > (
        SELECT count(*) FROM sens.codecs c JOIN sens.codec_versions v ON v.codec_id = c.id
        WHERE c.tenant_id = tenant AND c.name = wanted.codec AND v.number IN (wanted.number, wanted.other_number)
    ) THEN
        begin_codec_run.outcome := 'unknown_codec';
        RETURN;
    END IF;
    DELETE FROM sens.codec_runs r WHERE r.tenant_id = tenant AND r.finished_at IS NOT NULL AND r.id <= (
        SELECT o.id FROM sens.codec_runs o WHERE o.tenant_id = tenant ORDER BY o.id DESC OFFSET 199 LIMIT 1
    );
    INSERT INTO sens.codec_runs AS r (tenant_id, kind, device, first, past, codec, number, other_number, source, requested_by)
        VALUES (
            tenant, wanted.kind, wanted.device, wanted.first, wanted.past, wanted.codec, wanted.number, wanted.other_number, wanted.source, actor
        )
        RETURNING r.id INTO begin_codec_run.run;
    begin_codec_run.outcome := 'begun';
    IF wanted.kind = 'redecode' THEN
        PERFORM sens.record_audit(
            tenant, actor, 'values.redecoding', wanted.device,
            jsonb_build_object(
                'run', begin_codec_run.run, 'codec', format('%s@%s', wanted.codec, wanted.number), 'from', wanted.first, 'to', wanted.past
            ),
            address, request_id
        );
    END IF;
END
$$;

-- Cancels a run of the current tenant; what it has stored stays: cancelled, finished (it was before), or unknown.
CREATE FUNCTION sens.cancel_codec_run(run bigint, actor text, address text, request_id text) RETURNS text
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    tenant constant int := sens.current_tenant_id();
    found sens.codec_runs;
BEGIN
    SELECT r.* INTO found FROM sens.codec_runs r WHERE r.id = run AND r.tenant_id = tenant FOR UPDATE;
    IF found.id IS NULL THEN
        RETURN 'unknown';
    ELSIF found.finished_at IS NOT NULL THEN
        RETURN 'finished';
    END IF;
    UPDATE sens.codec_runs r SET cancelled_at = now(), finished_at = now(), outcome = 'cancelled' WHERE r.id = run;
    DELETE FROM sens.codec_run_times t WHERE t.run_id = run;
    PERFORM sens.record_audit(tenant, actor, 'codec_run.cancelled', format('run %s', run), '{}', address, request_id);
    RETURN 'cancelled';
END
$$;

-- Ends a run: `failure` says why it could not be finished, NULL: it is.
CREATE FUNCTION sens.finish_codec_run(run bigint, failure text) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    done sens.codec_runs;
BEGIN
    UPDATE sens.codec_runs r SET finished_at = now(), outcome = CASE WHEN finish_codec_run.failure IS NULL THEN 'finished' ELSE 'failed' END,
        failure = finish_codec_run.failure WHERE r.id = run AND r.finished_at IS NULL RETURNING r.* INTO done;
    DELETE FROM sens.codec_run_times t WHERE t.run_id = run;
    IF done.kind = 'redecode' THEN
        PERFORM sens.record_audit(
            done.tenant_id, done.requested_by, 'values.redecoded', done.device,
            jsonb_strip_nulls(jsonb_build_object(
                'run', done.id, 'codec', format('%s@%s', done.codec, done.number), 'counts', done.report -> 'counts', 'failure', failure
            ))
        );
    END IF;
END
$$;

-- Deletes readings of a device that are left without a value when its messages are decoded again, in the transaction of a step of a run.
CREATE FUNCTION sens.delete_redecoded(run bigint, device int, times timestamptz[]) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    at timestamptz;
    gone bigint;
    deleted bigint := 0;
BEGIN
    IF NOT EXISTS (
        SELECT FROM sens.codec_runs r JOIN sens.devices d ON d.tenant_id = r.tenant_id AND d.name = r.device
        WHERE r.id = run AND r.finished_at IS NULL AND r.kind = 'redecode' AND d.id = delete_redecoded.device
    ) THEN
        RAISE 'no run decodes messages of the device again' USING ERRCODE = 'insufficient_privilege';
    END IF;
    FOREACH at IN ARRAY times LOOP
        -- With a constant, so that one chunk or partition is looked at.
        EXECUTE format('DELETE FROM sens.readings r WHERE r.device_id = $1 AND r.ts = %L', at) USING device;
        GET DIAGNOSTICS gone = ROW_COUNT;
        deleted := deleted + gone;
    END LOOP;
    RETURN deleted;
END
$$;

-- What of a device is not brought back when its messages are decoded again: of some metrics, NULL: of all, readings in a range, where the message
-- was received before a time. That is what went because of its age, whose rollups stay as they are, and what somebody has deleted.
CREATE FUNCTION sens.never_redecoded(device int) RETURNS TABLE (metric_ids int[], first timestamptz, past timestamptz, received_before timestamptz)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET timezone = 'UTC'
    BEGIN ATOMIC
        SELECT n.metric_ids, greatest(n.first, '1900-01-01'), least(n.past, '9999-01-01'), least(n.received_before, '9999-01-01')
        FROM (
            SELECT CASE WHEN e.metric_id <> 0 THEN ARRAY[e.metric_id] END AS metric_ids, '-infinity'::timestamptz AS first,
                date_bin('1 hour', e.before + interval '1 hour' - interval '1 microsecond', timestamptz 'epoch') AS past,
                'infinity'::timestamptz AS received_before
            FROM sens.expired e WHERE e.device_id = device AND e.kind = 'raw'
            UNION ALL
            SELECT NULL, '-infinity', p.raw_complete_since, 'infinity' FROM sens.rollup_progress p WHERE p.raw_complete_since IS NOT NULL
            UNION ALL
            SELECT d.metric_ids, d.first, d.past, d.deleted_at FROM sens.deleted_ranges d WHERE d.device_id = device
        ) n;
    END;

-- Whether readings of a device are still to come from another tenant.
CREATE FUNCTION sens.is_arriving(device int) RETURNS boolean
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    RETURN EXISTS (SELECT FROM sens.deletions d WHERE d.to_device_id = device);

REVOKE EXECUTE ON FUNCTION sens.never_redecoded(int), sens.is_arriving(int), sens.begin_codec_run(jsonb, text, text, text), sens.cancel_codec_run(bigint, text, text, text),
    sens.finish_codec_run(bigint, text), sens.delete_redecoded(bigint, int, timestamptz[]) FROM public;
GRANT EXECUTE ON FUNCTION sens.begin_codec_run(jsonb, text, text, text), sens.cancel_codec_run(bigint, text, text, text) TO sens_api;
GRANT EXECUTE ON FUNCTION sens.never_redecoded(int), sens.is_arriving(int), sens.finish_codec_run(bigint, text), sens.delete_redecoded(bigint, int, timestamptz[]) TO sens_worker;
