-- What live values of some devices of the current tenant, by their names, are read with: the unit of a metric, and its calibrations as
-- sens.calibrations_of has them; metrics with neither are left out.
CREATE FUNCTION sens.live_meanings(devices text[])
    RETURNS TABLE (device text, metric text, unit text, edges timestamptz[], scales float8[], addends float8[])
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    own constant int[] := ARRAY(SELECT d.id FROM sens.devices d WHERE d.tenant_id = sens.current_tenant_id() AND d.name = ANY (devices));
BEGIN
    RETURN QUERY
        WITH calibrated AS (
            SELECT c.device_id, m.name AS metric, c.edges, c.scales, c.addends
            FROM sens.calibrations_of(own) c JOIN sens.metrics m ON m.id = c.metric_id
        ), found AS (
            SELECT coalesce(u.device_id, c.device_id) AS device_id, coalesce(u.metric, c.metric) AS metric, u.unit, c.edges, c.scales, c.addends
            FROM sens.units_of_devices(own) u FULL JOIN calibrated c ON c.device_id = u.device_id AND c.metric = u.metric
        )
        SELECT d.name, f.metric, f.unit, f.edges, f.scales, f.addends FROM found f JOIN sens.devices d ON d.id = f.device_id;
END
$$;
REVOKE EXECUTE ON FUNCTION sens.live_meanings(text[]) FROM public;
GRANT EXECUTE ON FUNCTION sens.live_meanings(text[]) TO sens_api;
