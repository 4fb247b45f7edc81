-- One row for each device and time: metric sets, and which of them a device has had. The table of the readings is in the next file.

-- Which metrics a row has values of, and where in its arrays. Equal sets are one row; a set never changes.
CREATE FUNCTION sens.metric_set_digest(number_ids int[], text_ids int[]) RETURNS bytea
    LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog
    RETURN sha256(convert_to(array_to_string(number_ids, ',') || ';' || array_to_string(text_ids, ','), 'UTF8'));
CREATE TABLE sens.metric_sets (
    id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant_id int NOT NULL REFERENCES sens.tenants ON DELETE CASCADE,
    -- Ids of metrics of the kinds number and boolean, and of the kind text; each ascending, without repetition.
    number_ids int[] NOT NULL,
    text_ids int[] NOT NULL,
    -- A set may have thousands of metrics, more than fit into an index.
    digest bytea NOT NULL GENERATED ALWAYS AS (sens.metric_set_digest(number_ids, text_ids)) STORED,
    UNIQUE (tenant_id, digest),
    CHECK (cardinality(number_ids) + cardinality(text_ids) > 0)
);
ALTER TABLE sens.metric_sets ENABLE ROW LEVEL SECURITY;
CREATE POLICY all_tenants ON sens.metric_sets TO sens_worker USING (true);
GRANT SELECT, INSERT ON sens.metric_sets TO sens_worker;

-- Which sets the readings of a device have, and on which days (UTC) the first and the last of them lie: what series the device has, and
-- where to look for the newest reading. The days may lie further apart than the readings do, after a deletion; never less far.
CREATE TABLE sens.device_metric_sets (
    device_id int NOT NULL,
    metric_set_id int NOT NULL,
    first_day date NOT NULL,
    last_day date NOT NULL CHECK (last_day >= first_day),
    PRIMARY KEY (device_id, metric_set_id)
) WITH (fillfactor = 80);
GRANT SELECT, INSERT, UPDATE ON sens.device_metric_sets TO sens_worker;

-- When the platform last received a message of the device; up to a minute old.
ALTER TABLE sens.devices ADD COLUMN last_seen timestamptz;
ALTER TABLE sens.devices SET (fillfactor = 90);
-- With it the worker may also lock devices.
GRANT UPDATE (last_seen) ON sens.devices TO sens_worker;
