-- What may be gone because of its age, for each device and metric: whatever is computed from it stays as it is.

CREATE TABLE sens.expired (
    device_id int NOT NULL REFERENCES sens.devices ON DELETE CASCADE,
    -- 0: all metrics of the device.
    metric_id int NOT NULL,
    kind text NOT NULL CHECK (kind IN ('raw', 'rollup_1h', 'rollup_1d')),
    -- What lies before this time may be gone.
    before timestamptz NOT NULL CHECK (isfinite(before)),
    PRIMARY KEY (device_id, kind, metric_id)
) WITH (fillfactor = 80);

INSERT INTO sens.expired SELECT r.device_id, 0, 'raw', r.raw_complete_since FROM sens.device_retention r WHERE isfinite(r.raw_complete_since);
-- Which rollups are gone was not noted; those may be that are older than their tenant's rules keep them.
INSERT INTO sens.expired
    SELECT d.id, 0, r.kind, max(k.kept_from)
    FROM (SELECT DISTINCT tenant_id, kind FROM sens.retention WHERE kind IN ('rollup_1h', 'rollup_1d') AND days IS NOT NULL) r
        JOIN sens.devices d ON d.tenant_id = r.tenant_id
        CROSS JOIN LATERAL sens.kept_metrics(d.tenant_id, d.id, r.kind) k
    WHERE isfinite(k.kept_from) GROUP BY d.id, r.kind;

-- Notes that what lies before a time goes, of some metrics of a device, of all where they are NULL. It comes before the deletion, in the same
-- transaction.
CREATE FUNCTION sens.note_expired(device int, metrics int[], kind text, before timestamptz) RETURNS void
    LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    BEGIN ATOMIC
        INSERT INTO sens.expired AS e (device_id, metric_id, kind, before)
        SELECT device, m, note_expired.kind, note_expired.before FROM unnest(coalesce(metrics, '{0}')) m ORDER BY m
        ON CONFLICT (device_id, kind, metric_id) DO UPDATE SET before = excluded.before WHERE e.before < excluded.before;
    END;

-- Since when whole readings of a device are there. NULL: since ever.
CREATE OR REPLACE FUNCTION sens.raw_complete_since(device int) RETURNS timestamptz
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
    RETURN greatest(
        (SELECT p.raw_complete_since FROM sens.rollup_progress p),
        (SELECT e.before FROM sens.expired e WHERE e.device_id = device AND e.kind = 'raw' AND e.metric_id = 0)
    );

ALTER TABLE sens.device_retention DROP COLUMN raw_complete_since;

-- Since when all readings, hours or days of a metric of a device are there; '-infinity': since ever.
CREATE FUNCTION sens.complete_since(device int, metric int, kind text) RETURNS timestamptz
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
    RETURN coalesce(
        greatest(
            CASE WHEN complete_since.kind = 'raw' THEN (SELECT p.raw_complete_since FROM sens.rollup_progress p) END,
            (
                SELECT max(e.before) FROM sens.expired e
                WHERE e.device_id = device AND e.kind = complete_since.kind AND e.metric_id IN (0, metric)
            )
        ),
        '-infinity'
    );

-- Rollups of a device that are older than they are kept, at most so many at a time. Days are made of hours: these wait until a change is in
-- them, and no refresher works while some go.
CREATE OR REPLACE FUNCTION sens.expire_rollups(tenant int, device int, until timestamptz, OUT deleted bigint, OUT finished boolean)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    most constant int := 5000;
    target text;
    part record;
    metric int;
    following timestamptz;
    number bigint;
BEGIN
    deleted := 0;
    finished := true;
    PERFORM set_config('timescaledb.max_tuples_decompressed_per_dml_transaction', '0', true);
    FOREACH target IN ARRAY ARRAY['rollup_1h', 'rollup_1d'] LOOP
        FOR part IN SELECT k.kept_from AS before, k.ids FROM sens.kept_metrics(tenant, device, target) k WHERE isfinite(k.kept_from) LOOP
            CONTINUE WHEN NOT sens.rollups_complete(device, part.before);
            FOREACH metric IN ARRAY coalesce(part.ids, sens.metrics_of_device(device)) LOOP
                LOOP
                    EXECUTE format('SELECT ts FROM sens.%I WHERE device_id = $1 AND metric_id = $2 AND ts < $3 ORDER BY ts LIMIT 1', target)
                        INTO following USING device, metric, part.before;
                    EXIT WHEN following IS NULL;
                    IF deleted = 0 THEN
                        PERFORM FROM sens.rollup_progress FOR SHARE;
                        IF NOT sens.rollups_complete(device, part.before) THEN
                            RETURN; -- at the next time
                        END IF;
                    END IF;
                    PERFORM sens.note_expired(device, part.ids, target, part.before);
                    EXECUTE format(
                        'SELECT ts FROM sens.%I WHERE device_id = $1 AND metric_id = $2 AND ts < $3 ORDER BY ts OFFSET $4 LIMIT 1', target
                    ) INTO following USING device, metric, part.before, most;
                    EXECUTE format('DELETE FROM sens.%I WHERE device_id = $1 AND metric_id = $2 AND ts < $3', target)
                        USING device, metric, coalesce(following, part.before);
                    GET DIAGNOSTICS number = ROW_COUNT;
                    deleted := deleted + number;
                    IF deleted >= most OR clock_timestamp() >= until THEN
                        finished := false;
                        RETURN;
                    END IF;
                END LOOP;
            END LOOP;
        END LOOP;
    END LOOP;
END
$$;

-- Where the aggregates of a series are read, so that they are exact: stretches that do not overlap, each with its source: days (1d), hours
-- (1h) or readings (raw), the coarsest that buckets of such a width allow. What the rollups lack, or may have lost because of its age, is
-- read from the readings as far as these are there; so are, where `exact`, hours whose sum is not known.
CREATE OR REPLACE FUNCTION sens.bucket_sources(
    device int, metric int, first timestamptz, past timestamptz, width interval, origin timestamptz, exact boolean
) RETURNS TABLE (source text, starts timestamptz, ends timestamptz)
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    asked CONSTANT tstzmultirange := tstzmultirange(tstzrange(first, past));
    by_hour CONSTANT boolean := extract(epoch FROM width)::numeric % 3600 = 0 AND extract(epoch FROM origin)::numeric % 3600 = 0;
    by_day CONSTANT boolean := extract(epoch FROM width)::numeric % 86400 = 0 AND extract(epoch FROM origin)::numeric % 86400 = 0;
    raw_since CONSTANT timestamptz := sens.complete_since(device, metric, 'raw');
    hours_since CONSTANT timestamptz := sens.complete_since(device, metric, 'rollup_1h');
    days_since CONSTANT timestamptz := sens.complete_since(device, metric, 'rollup_1d');
    filled timestamptz;
    rolled tstzmultirange;
    lacking tstzmultirange;
    hours tstzmultirange := '{}';
    days tstzmultirange := '{}';
BEGIN
    IF by_hour THEN
        SELECT p.filled_until INTO filled FROM sens.rollup_progress p;
        IF sens.has_former_rows(device) THEN
            filled := least(filled, date_bin('1 hour', sens.former_rows_from(device), timestamptz 'epoch'));
        END IF;
        rolled := asked * tstzmultirange(tstzrange(NULL, filled));
        SELECT coalesce(range_agg(tstzrange(c.first, c.past)), '{}') INTO lacking
        FROM sens.rollup_changes c
        WHERE c.device_id = device AND c.first < bucket_sources.past AND c.past > bucket_sources.first;
        IF exact THEN
            SELECT lacking + coalesce(range_agg(tstzrange(r.ts, r.ts + interval '1 hour')), '{}') INTO lacking
            FROM sens.rollup_1h r
            WHERE r.device_id = device AND r.metric_id = metric AND r.ts >= bucket_sources.first AND r.ts < bucket_sources.past
                AND r.sum IS NULL AND r.ts >= raw_since;
        END IF;
        IF (SELECT count(*) FROM unnest(lacking)) > 8 THEN
            lacking := tstzmultirange(range_merge(lacking));
        END IF;
        IF by_day THEN
            -- What is never computed again lacks nothing.
            SELECT coalesce(range_agg(d.whole), '{}') INTO days
            FROM unnest(
                rolled * tstzmultirange(tstzrange(days_since, NULL)) - lacking * tstzmultirange(tstzrange(least(raw_since, hours_since), NULL))
            ) AS o (open)
            CROSS JOIN LATERAL (SELECT sens.whole_range(o.open, '1 day')) AS d (whole);
        END IF;
        hours := rolled - lacking * tstzmultirange(tstzrange(raw_since, NULL));
        IF raw_since < hours_since THEN
            hours := hours - tstzmultirange(tstzrange(raw_since, hours_since));
        END IF;
        SELECT coalesce(range_agg(h.whole), '{}') - days INTO hours
        FROM unnest(hours) AS o (open) CROSS JOIN LATERAL (SELECT sens.whole_range(o.open, '1 hour')) AS h (whole);
    END IF;
    RETURN QUERY
        SELECT s.source, lower(s.stretch), upper(s.stretch)
        FROM (
            SELECT '1d', unnest(days) UNION ALL SELECT '1h', unnest(hours) UNION ALL SELECT 'raw', unnest(asked - hours - days)
        ) AS s (source, stretch)
        ORDER BY 2;
END
$$;

REVOKE EXECUTE ON FUNCTION sens.note_expired(int, int[], text, timestamptz), sens.complete_since(int, int, text) FROM public;
