-- What became of the messages, for each tenant and day (UTC) of their storing. The telemetry worker counts in the transaction that
-- stores the rows, so that no crash can part the two. Together with the dead letters it shows that nothing is missing.

CREATE TABLE sens.message_counts (
    tenant_id int NOT NULL REFERENCES sens.tenants ON DELETE CASCADE,
    day date NOT NULL,
    -- The database session that counted: each has rows of its own, so that none waits for another.
    backend int NOT NULL,
    stored bigint NOT NULL,
    duplicate bigint NOT NULL,
    PRIMARY KEY (tenant_id, day, backend)
) WITH (fillfactor = 50); -- room on each page for the next version of a row that changes with every batch

ALTER TABLE sens.message_counts ENABLE ROW LEVEL SECURITY;
CREATE POLICY own_tenant ON sens.message_counts FOR SELECT TO sens_api
    USING (tenant_id = (SELECT sens.current_tenant_id()));
GRANT SELECT ON sens.message_counts TO sens_api;
