-- Historical values of Sparkplug B do not become the latest one. For a series of which a historical value is newer than the live ones: up to when
-- live values are known, and up to when historical ones are. What lies between is historical, for a live value that comes there moves `live_until`.
CREATE TABLE sens.latest_holds (
    -- Without a foreign key: see sens.calibrations.
    device_id int NOT NULL,
    metric_id int NOT NULL REFERENCES sens.metrics ON DELETE CASCADE,
    -- NULL where the series has no live value.
    live_until timestamptz,
    historical_until timestamptz NOT NULL,
    PRIMARY KEY (device_id, metric_id)
);
CREATE INDEX ON sens.latest_holds (metric_id);
ALTER TABLE sens.latest_holds ENABLE ROW LEVEL SECURITY;
CREATE POLICY all_tenants ON sens.latest_holds TO sens_worker USING (true);
GRANT SELECT, INSERT, UPDATE (live_until, historical_until) ON sens.latest_holds TO sens_worker;

CREATE FUNCTION sens.delete_latest_holds() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    DELETE FROM sens.latest_holds h WHERE h.device_id = old.id;
    RETURN NULL;
END
$$;
CREATE CONSTRAINT TRIGGER delete_latest_holds AFTER DELETE ON sens.devices DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION sens.delete_latest_holds();
CREATE FUNCTION sens.move_latest_holds() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    UPDATE sens.latest_holds h SET device_id = new.to_device_id, metric_id = t.id
    FROM unnest(new.from_metric_ids, new.to_metric_ids) AS t (former, id)
    WHERE h.device_id = new.device_id AND h.metric_id = t.former;
    RETURN NULL;
END
$$;
CREATE TRIGGER move_latest_holds AFTER INSERT ON sens.deletions
    FOR EACH ROW WHEN (new.to_device_id IS NOT NULL) EXECUTE FUNCTION sens.move_latest_holds();

-- The times of the newest values of series, which a device and a metric name; those without a value are left out.
CREATE FUNCTION sens.newest_times(devices int[], metrics int[]) RETURNS TABLE (device_id int, metric_id int, ts timestamptz)
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
        SELECT w.device_id, n.metric_id, n.ts
        FROM (
            SELECT u.device_id, array_agg(u.metric_id) AS metrics FROM unnest(devices, metrics) AS u (device_id, metric_id) GROUP BY 1
        ) w CROSS JOIN LATERAL sens.newest_values(w.device_id, w.metrics) n;
END
$$;

-- The newest value of a series up to a time; none without the time.
CREATE FUNCTION sens.newest_value_until(device int, metric int, until timestamptz) RETURNS TABLE (ts timestamptz, number float8, string text)
    LANGUAGE plpgsql STABLE STRICT ROWS 1
    SET search_path = pg_catalog, pg_temp SET enable_sort = off SET enable_bitmapscan = off SET plan_cache_mode = force_custom_plan
AS $$
#variable_conflict use_column
DECLARE
    sets int[];
    oldest timestamptz;
BEGIN
    SELECT array_agg(x.id), min(s.first_day)::timestamp AT TIME ZONE 'UTC' INTO sets, oldest
        FROM sens.device_metric_sets s JOIN sens.metric_sets x ON x.id = s.metric_set_id
        WHERE s.device_id = device AND metric = ANY (x.number_ids || x.text_ids);
    RETURN QUERY
        SELECT v.ts, v.number, v.string
        FROM (
            SELECT r.ts, r.numbers[array_position(x.number_ids, metric)] AS number, r.texts[array_position(x.text_ids, metric)] AS string
            FROM sens.readings r JOIN sens.metric_sets x ON x.id = r.metric_set_id
            WHERE r.device_id = device AND r.metric_set_id = ANY (sets) AND r.ts >= oldest AND r.ts <= until
        ) v
        WHERE v.number IS NOT NULL OR v.string IS NOT NULL
        ORDER BY v.ts DESC LIMIT 1;
END
$$;

-- The latest value of each series of some devices that has one: the newest by its time, live ones before historical ones; `number` holds those of
-- booleans too, `string` those of texts.
CREATE OR REPLACE FUNCTION sens.latest_of_devices(devices int[])
    RETURNS TABLE (device_id int, metric_id int, name text, kind text, ts timestamptz, number float8, string text)
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    own CONSTANT int[] := ARRAY(
        SELECT d.id FROM sens.devices d WHERE d.id = ANY (devices) AND d.tenant_id = sens.current_tenant_id()
    );
    -- Of a device with many sets, the newest reading of each would cost more than to go back until all metrics are found.
    with_many CONSTANT int[] := ARRAY(
        SELECT s.device_id FROM sens.device_metric_sets s WHERE s.device_id = ANY (own) GROUP BY s.device_id HAVING count(*) > 8
    );
BEGIN
    RETURN QUERY
        WITH newest AS MATERIALIZED (
            SELECT DISTINCT ON (e.device_id, e.metric_id) e.*
            FROM sens.newest_elements(ARRAY(SELECT d.id FROM unnest(own) d(id) WHERE d.id <> ALL (with_many))) e
            ORDER BY e.device_id, e.metric_id, e.ts DESC
        ), missing AS (
            SELECT n.device_id, n.metric_id FROM newest n WHERE n.number IS NULL AND n.string IS NULL
            UNION ALL
            SELECT DISTINCT s.device_id, e.id
            FROM sens.device_metric_sets s JOIN sens.metric_sets x ON x.id = s.metric_set_id
                CROSS JOIN LATERAL unnest(x.number_ids || x.text_ids) e(id)
            WHERE s.device_id = ANY (with_many)
        ), found AS (
            SELECT n.* FROM newest n WHERE n.number IS NOT NULL OR n.string IS NOT NULL
            UNION ALL
            SELECT i.device_id, o.* FROM (
                SELECT g.device_id, array_agg(g.metric_id) AS metrics
                FROM missing g JOIN sens.metrics m ON m.id = g.metric_id GROUP BY g.device_id
            ) i CROSS JOIN LATERAL sens.newest_values(i.device_id, i.metrics) o
            UNION ALL
            SELECT d.id, o.* FROM unnest(own) d(id) CROSS JOIN LATERAL sens.former_latest(d.id) o WHERE sens.has_former_rows(d.id)
        ), by_time AS (
            SELECT DISTINCT ON (f.device_id, f.metric_id) f.* FROM found f ORDER BY f.device_id, f.metric_id, f.ts DESC
        ), latest AS (
            SELECT b.device_id, b.metric_id, coalesce(l.ts, b.ts) AS ts, CASE WHEN l.ts IS NULL THEN b.number ELSE l.number END AS number,
                CASE WHEN l.ts IS NULL THEN b.string ELSE l.string END AS string
            FROM by_time b
                LEFT JOIN sens.latest_holds h ON h.device_id = b.device_id AND h.metric_id = b.metric_id
                    AND b.ts > h.live_until AND b.ts <= h.historical_until
                LEFT JOIN LATERAL sens.newest_value_until(b.device_id, b.metric_id, h.live_until) l ON true
        )
        SELECT f.device_id, f.metric_id, m.name, m.kind, f.ts, sens.calibrated_at(f.number, f.ts, c.edges, c.scales, c.addends), f.string
        FROM latest f JOIN sens.metrics m ON m.id = f.metric_id
            LEFT JOIN sens.calibrations_of(own) c ON c.device_id = f.device_id AND c.metric_id = f.metric_id
        ORDER BY f.device_id, f.metric_id;
END
$$;

REVOKE EXECUTE ON FUNCTION sens.delete_latest_holds(), sens.move_latest_holds(), sens.newest_times(int[], int[]),
    sens.newest_value_until(int, int, timestamptz) FROM public;
GRANT EXECUTE ON FUNCTION sens.newest_times(int[], int[]) TO sens_worker;
