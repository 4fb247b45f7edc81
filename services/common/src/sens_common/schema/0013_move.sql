-- The move of what was stored before: from rows of one value (sens.measurements, sens.text_measurements) into rows of a metric set
-- (sens.readings). sens_common.moving does it, device by device and in order of time, while the API reads from both.

-- From here on rows of one value are no longer stored, whoever logs in. The error is one after which a worker of an older version tries
-- again; it would take any other one for a fault of the message, and make dead letters. A transaction that has stored some ends first.
CREATE FUNCTION sens.refuse_older_worker() RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RAISE 'this database stores measurements in another form now: a telemetry worker of an older version can store nothing here'
        USING ERRCODE = 'insufficient_privilege', HINT = 'Stop that worker; one of the new version goes on where it was.';
END
$$;
CREATE FUNCTION sens.refuse_former_rows() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM sens.refuse_older_worker();
END
$$;
CREATE TRIGGER refuse_former_rows BEFORE INSERT ON sens.measurements
    FOR EACH STATEMENT EXECUTE FUNCTION sens.refuse_former_rows();
CREATE TRIGGER refuse_former_rows BEFORE INSERT ON sens.text_measurements
    FOR EACH STATEMENT EXECUTE FUNCTION sens.refuse_former_rows();
-- What such a worker calls before it stores: it meets the same error when the tables are gone.
CREATE OR REPLACE FUNCTION sens.ensure_partitions(first timestamptz, last timestamptz) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM sens.refuse_older_worker();
END
$$;

REVOKE EXECUTE ON FUNCTION sens.refuse_older_worker(), sens.refuse_former_rows() FROM public;
GRANT EXECUTE ON FUNCTION sens.refuse_older_worker() TO sens_worker;

-- Devices that may have rows of one value. While there is one, no worker stores measurements.
CREATE TABLE sens.former_devices (
    device_id int PRIMARY KEY,
    -- Values before this time are in sens.readings, and only there are they read; all others still have a row each.
    moved_before timestamptz NOT NULL DEFAULT '-infinity'
) WITH (fillfactor = 50);
INSERT INTO sens.former_devices (device_id) SELECT id FROM sens.devices;
GRANT SELECT ON sens.former_devices TO sens_worker;

-- How far the move is; one row.
CREATE TABLE sens.move_progress (
    moved_values bigint NOT NULL,
    -- Of the work, from 0 to 1.
    share float8 NOT NULL,
    longest_step_seconds float8 NOT NULL,
    noted_at timestamptz NOT NULL
);
CREATE UNIQUE INDEX ON sens.move_progress ((true));
INSERT INTO sens.move_progress VALUES (0, 0, 0, now());
GRANT SELECT ON sens.move_progress TO sens_worker;

-- What the functions of reading ask: whether a device may have rows of one value, and from which time on they are to be read.
CREATE OR REPLACE FUNCTION sens.has_former_rows(device int) RETURNS boolean
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
    RETURN EXISTS (SELECT FROM sens.former_devices f WHERE f.device_id = device);
CREATE OR REPLACE FUNCTION sens.former_rows_from(device int) RETURNS timestamptz
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
    RETURN (SELECT f.moved_before FROM sens.former_devices f WHERE f.device_id = device);

-- Sums of these hashes over a series are equal where its values and times are, in whatever order. Zeros of both signs are equal for
-- hashfloat8extended, but not the same value.
CREATE FUNCTION sens.number_hash(at timestamptz, value float8) RETURNS bigint
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN hashfloat8extended(
        value, timestamp_hash_extended(at AT TIME ZONE 'UTC', CASE WHEN value = 0 THEN get_byte(float8send(value), 0) ELSE 1 END)
    );
CREATE FUNCTION sens.text_hash(at timestamptz, value text) RETURNS bigint
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN hashtextextended(value COLLATE "C", timestamp_hash_extended(at AT TIME ZONE 'UTC', 0));
REVOKE EXECUTE ON FUNCTION sens.number_hash(timestamptz, float8), sens.text_hash(timestamptz, text) FROM public;
