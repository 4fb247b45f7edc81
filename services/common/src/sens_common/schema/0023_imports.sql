-- How many days back a reading of an import may lie, where that is further than late_days: what the operator has allowed.
ALTER TABLE sens.tenants ADD COLUMN import_late_days int CHECK (import_late_days BETWEEN 1 AND 36500);

-- Readings older than a tenant accepts would be stored and deleted at once; those of imports too.
CREATE OR REPLACE FUNCTION sens.check_late_days() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    tenant constant int := to_jsonb(new) ->> CASE TG_TABLE_NAME WHEN 'tenants' THEN 'id' ELSE 'tenant_id' END;
    late constant int := (SELECT greatest(t.late_days, t.import_late_days) FROM sens.tenants t WHERE t.id = tenant);
    kept constant int := (SELECT min(r.days) FROM sens.retention r WHERE r.tenant_id = tenant AND r.kind = 'raw');
BEGIN
    IF kept < late THEN
        RAISE 'readings may lie % days back (late_days, import_late_days), and would be kept for % days only (raw retention)', late, kept
            USING ERRCODE = 'check_violation', CONSTRAINT = 'late_days_within_retention';
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER check_import_late_days AFTER UPDATE OF import_late_days ON sens.tenants FOR EACH ROW EXECUTE FUNCTION sens.check_late_days();
