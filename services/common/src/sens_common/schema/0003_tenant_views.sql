-- What the API's role sees of the measurements. The tables carry no tenant, and TimescaleDB's columnstore allows no row-level
-- security on them, so the role has no right on the tables at all, only on these views. `security_barrier` keeps a query's own
-- functions from looking at a row before the view has decided about it.

CREATE VIEW sens.tenant_measurements WITH (security_barrier) AS
    SELECT m.device_id, m.metric_id, m.ts, m.value
    FROM sens.measurements m
    WHERE EXISTS (
        SELECT FROM sens.devices d WHERE d.id = m.device_id AND d.tenant_id = (SELECT sens.current_tenant_id())
    );

CREATE VIEW sens.tenant_text_measurements WITH (security_barrier) AS
    SELECT m.device_id, m.metric_id, m.ts, m.value
    FROM sens.text_measurements m
    WHERE EXISTS (
        SELECT FROM sens.devices d WHERE d.id = m.device_id AND d.tenant_id = (SELECT sens.current_tenant_id())
    );

GRANT SELECT ON sens.tenant_measurements, sens.tenant_text_measurements TO sens_api;
