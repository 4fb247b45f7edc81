-- Calibrations: from a time on, the values of a metric of a device are what was stored times a scale plus an offset. What is stored stays as it
-- was decoded. Whoever reads sees calibrated values, or, with the setting sens.calibration, none of them ('none') or those that were known at a
-- time (a timestamp).

CREATE TABLE sens.calibrations (
    id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    -- Without a foreign key: of a device that is moved, they wait until the end of the transaction for where it goes.
    device_id int NOT NULL,
    metric_id int NOT NULL REFERENCES sens.metrics ON DELETE CASCADE,
    valid_from timestamptz NOT NULL CHECK (isfinite(valid_from)),
    -- So that no product of a value of up to 1e290 and a scale is too large for a float8. 1 and 0 end what was valid before.
    scale float8 NOT NULL CHECK (abs(scale) BETWEEN 1e-9 AND 1e9),
    addend float8 NOT NULL CHECK (abs(addend) <= 1e15),
    reason text NOT NULL CHECK (octet_length(reason) <= 2000),
    added_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    added_by text NOT NULL,
    -- NULL: it holds. Else it was removed, or replaced by another one that is valid from the same time.
    removed_at timestamptz CHECK (removed_at >= added_at),
    removed_by text
);
CREATE UNIQUE INDEX calibrations_that_hold ON sens.calibrations (device_id, metric_id, valid_from) WHERE removed_at IS NULL;
CREATE INDEX ON sens.calibrations (device_id, metric_id, added_at);
CREATE INDEX ON sens.calibrations (metric_id);
ALTER TABLE sens.calibrations ENABLE ROW LEVEL SECURITY;
CREATE POLICY own_tenant ON sens.calibrations FOR SELECT TO sens_api
    USING (device_id IN (SELECT d.id FROM sens.devices d WHERE d.tenant_id = (SELECT sens.current_tenant_id())));
GRANT SELECT ON sens.calibrations TO sens_api;

-- Those of devices that are gone are deleted with the transaction that deletes the device; a device that moves takes its own with it.
CREATE FUNCTION sens.delete_calibrations() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    DELETE FROM sens.calibrations c WHERE c.device_id = old.id;
    RETURN NULL;
END
$$;
CREATE CONSTRAINT TRIGGER delete_calibrations AFTER DELETE ON sens.devices DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION sens.delete_calibrations();
CREATE FUNCTION sens.move_calibrations() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    UPDATE sens.calibrations c SET device_id = new.to_device_id, metric_id = t.id
    FROM unnest(new.from_metric_ids, new.to_metric_ids) AS t (former, id)
    WHERE c.device_id = new.device_id AND c.metric_id = t.former;
    RETURN NULL;
END
$$;
CREATE TRIGGER move_calibrations AFTER INSERT ON sens.deletions
    FOR EACH ROW WHEN (new.to_device_id IS NOT NULL) EXECUTE FUNCTION sens.move_calibrations();

-- The calibrations of some devices by which values are read: from edges[i] on, scales[i] and addends[i] are valid, until the next edge. Series
-- without one are left out.
CREATE FUNCTION sens.calibrations_of(devices int[])
    RETURNS TABLE (device_id int, metric_id int, edges timestamptz[], scales float8[], addends float8[])
    LANGUAGE plpgsql STABLE ROWS 10 SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    setting constant text := coalesce(current_setting('sens.calibration', true), '');
    known_at timestamptz;
BEGIN
    IF setting = 'none' THEN
        RETURN;
    ELSIF setting = '' THEN
        RETURN QUERY
            SELECT c.device_id, c.metric_id, array_agg(c.valid_from ORDER BY c.valid_from), array_agg(c.scale ORDER BY c.valid_from),
                array_agg(c.addend ORDER BY c.valid_from)
            FROM sens.calibrations c WHERE c.device_id = ANY (devices) AND c.removed_at IS NULL GROUP BY 1, 2;
        RETURN;
    END IF;
    BEGIN
        known_at := setting::timestamptz;
    EXCEPTION
        WHEN invalid_datetime_format OR datetime_field_overflow THEN
            RAISE 'sens.calibration is %', quote_literal(setting) USING
                ERRCODE = 'invalid_parameter_value',
                HINT = 'It may be none, a time at which calibrations were known, or empty for those that hold.';
    END;
    RETURN QUERY
        SELECT c.device_id, c.metric_id, array_agg(c.valid_from ORDER BY c.valid_from), array_agg(c.scale ORDER BY c.valid_from),
            array_agg(c.addend ORDER BY c.valid_from)
        FROM sens.calibrations c
        WHERE c.device_id = ANY (devices) AND c.added_at <= known_at AND (c.removed_at IS NULL OR c.removed_at > known_at)
        GROUP BY 1, 2;
END
$$;

-- A value by a calibration. Where a product could be larger or smaller than a float8 can be, the value stays as it is.
CREATE FUNCTION sens.calibrated(value float8, scale float8, addend float8) RETURNS float8
    LANGUAGE sql IMMUTABLE
    RETURN CASE WHEN abs(value) BETWEEN 1e-290 AND 1e290 OR value = 0 THEN value * scale + addend ELSE value END;
-- The same at a time, by the calibrations of its series, or none.
CREATE FUNCTION sens.calibrated_at(value float8, at timestamptz, edges timestamptz[], scales float8[], addends float8[]) RETURNS float8
    LANGUAGE sql IMMUTABLE
    RETURN CASE
        WHEN edges IS NULL OR at < edges[1] THEN value
        ELSE sens.calibrated(value, scales[width_bucket(at, edges)], addends[width_bucket(at, edges)])
    END;

-- How the value of an expression at the time of another one is calibrated; and by what it is multiplied then.
CREATE FUNCTION sens.calibrated_expression(element text, at text, edges timestamptz[], scales float8[], addends float8[]) RETURNS text
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
    RETURN CASE
        WHEN edges IS NULL THEN element
        WHEN cardinality(edges) = 1 THEN format(
            'CASE WHEN %1$s < %2$L::timestamptz OR NOT (abs(%3$s) BETWEEN 1e-290 AND 1e290 OR %3$s = 0) THEN %3$s'
            ' ELSE %3$s * %4$L::float8 + %5$L::float8 END',
            at, edges[1], element, scales[1], addends[1]
        )
        ELSE format(
            'CASE WHEN %1$s < %2$L::timestamptz OR NOT (abs(%3$s) BETWEEN 1e-290 AND 1e290 OR %3$s = 0) THEN %3$s'
            ' ELSE %3$s * (%4$L::float8[])[width_bucket(%1$s, %6$L::timestamptz[])] + (%5$L::float8[])[width_bucket(%1$s, %6$L::timestamptz[])] END',
            at, edges[1], element, scales, addends, edges
        )
    END;
CREATE FUNCTION sens.scale_expression(at text, edges timestamptz[], scales float8[]) RETURNS text
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
    RETURN format(
        'CASE WHEN %1$s < %2$L::timestamptz THEN 1 ELSE (%3$L::float8[])[width_bucket(%1$s, %4$L::timestamptz[])] END', at, edges[1], scales, edges
    );

-- Adds a calibration of a metric of a device of the current tenant; one that is valid from the same time is replaced by it.
-- outcome: added or unchanged, with its id; unknown_device, unknown_metric, not_a_number, too_many, too_many_ever.
CREATE FUNCTION sens.add_calibration(
    device text, metric text, valid_from timestamptz, scale float8, addend float8, reason text, actor text, address text, request_id text,
    OUT outcome text, OUT id int
)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    tenant constant int := sens.current_tenant_id();
    chosen_device int;
    chosen_metric int;
    stored sens.calibrations;
    at timestamptz;
BEGIN
    PERFORM FROM sens.tenants t WHERE t.id = tenant FOR NO KEY UPDATE;
    SELECT d.id INTO chosen_device FROM sens.devices d WHERE d.tenant_id = tenant AND d.name = device FOR KEY SHARE;
    SELECT m.id INTO chosen_metric FROM sens.metrics m WHERE m.tenant_id = tenant AND m.name = metric AND m.kind = 'number' FOR KEY SHARE;
    outcome := CASE
        WHEN chosen_device IS NULL THEN 'unknown_device'
        WHEN chosen_metric IS NOT NULL THEN NULL
        WHEN EXISTS (SELECT FROM sens.metrics m WHERE m.tenant_id = tenant AND m.name = metric) THEN 'not_a_number'
        ELSE 'unknown_metric'
    END;
    IF outcome IS NOT NULL THEN
        RETURN;
    END IF;
    SELECT c.* INTO stored FROM sens.calibrations c
        WHERE c.device_id = chosen_device AND c.metric_id = chosen_metric AND c.valid_from = valid_from AND c.removed_at IS NULL;
    IF (stored.scale, stored.addend, stored.reason) = (scale, addend, reason) THEN
        outcome := 'unchanged';
        id := stored.id;
        RETURN;
    ELSIF (SELECT count(*) FROM sens.calibrations c WHERE c.device_id = chosen_device AND c.metric_id = chosen_metric) >= 1000 THEN
        outcome := 'too_many_ever';
        RETURN;
    ELSIF stored.id IS NULL AND (
        SELECT count(*) FROM sens.calibrations c
        WHERE c.device_id = chosen_device AND c.metric_id = chosen_metric AND c.removed_at IS NULL
    ) >= 100 THEN
        outcome := 'too_many';
        RETURN;
    END IF;
    at := clock_timestamp();
    UPDATE sens.calibrations c SET removed_at = at, removed_by = actor WHERE c.id = stored.id;
    INSERT INTO sens.calibrations AS c (device_id, metric_id, valid_from, scale, addend, reason, added_at, added_by)
        VALUES (chosen_device, chosen_metric, valid_from, scale, addend, reason, at, actor) RETURNING c.id INTO id;
    PERFORM sens.record_audit(
        tenant, actor, 'calibration.added', device,
        jsonb_build_object(
            'calibration', id, 'metric', metric, 'valid_from', valid_from, 'scale', scale, 'offset', addend, 'replaces', stored.id
        ),
        address, request_id
    );
    outcome := 'added';
END
$$;

-- Removes a calibration of a device of the current tenant; what was known of it before stays known: removed, unknown_device, unknown.
CREATE FUNCTION sens.remove_calibration(device text, calibration int, actor text, address text, request_id text) RETURNS text
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    tenant constant int := sens.current_tenant_id();
    chosen_device int;
    removed sens.calibrations;
BEGIN
    PERFORM FROM sens.tenants t WHERE t.id = tenant FOR NO KEY UPDATE;
    SELECT d.id INTO chosen_device FROM sens.devices d WHERE d.tenant_id = tenant AND d.name = device;
    IF chosen_device IS NULL THEN
        RETURN 'unknown_device';
    END IF;
    UPDATE sens.calibrations c SET removed_at = clock_timestamp(), removed_by = actor
        WHERE c.id = calibration AND c.device_id = chosen_device AND c.removed_at IS NULL RETURNING c.* INTO removed;
    IF removed.id IS NULL THEN
        RETURN 'unknown';
    END IF;
    PERFORM sens.record_audit(
        tenant, actor, 'calibration.removed', device,
        jsonb_build_object(
            'calibration', removed.id, 'metric', (SELECT m.name FROM sens.metrics m WHERE m.id = removed.metric_id),
            'valid_from', removed.valid_from, 'scale', removed.scale, 'offset', removed.addend
        ),
        address, request_id
    );
    RETURN 'removed';
END
$$;

REVOKE EXECUTE ON FUNCTION sens.delete_calibrations(), sens.move_calibrations(), sens.calibrations_of(int[]),
    sens.calibrated(float8, float8, float8), sens.calibrated_at(float8, timestamptz, timestamptz[], float8[], float8[]),
    sens.calibrated_expression(text, text, timestamptz[], float8[], float8[]), sens.scale_expression(text, timestamptz[], float8[]),
    sens.add_calibration(text, text, timestamptz, float8, float8, text, text, text, text),
    sens.remove_calibration(text, int, text, text, text) FROM public;
GRANT EXECUTE ON FUNCTION sens.add_calibration(text, text, timestamptz, float8, float8, text, text, text, text),
    sens.remove_calibration(text, int, text, text, text) TO sens_api;
