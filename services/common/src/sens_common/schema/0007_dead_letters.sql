-- Messages that could not be stored, what became of all messages, and which envelopes are settled. All of it is written in the transaction
-- that stores a batch, so that no crash can part them.

ALTER TABLE sens.tenants
    ADD COLUMN dead_letter_count_limit int NOT NULL DEFAULT 100000 CHECK (dead_letter_count_limit >= 0),
    ADD COLUMN dead_letter_byte_limit bigint NOT NULL DEFAULT 268435456 CHECK (dead_letter_byte_limit >= 0);

-- No foreign key: looking each row's tenant up doubles the cost of a dead letter. A trigger of the tenants deletes instead, and the rows of
-- sens.dead_letter_usage, which every batch writes, refuse a tenant that is gone. No row-level security either: COPY is not possible with
-- it. The API has no right on the table, only on the view.
CREATE TABLE sens.dead_letters (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    -- NULL where the topic names no tenant that exists.
    tenant_id int,
    device text COLLATE "C",
    topic text NOT NULL,
    source text,
    codec text,
    received_at timestamptz NOT NULL,
    dead_lettered_at timestamptz NOT NULL,
    reason text NOT NULL,
    detail text NOT NULL,
    -- As published, or its beginning; payload_bytes is the size of the whole.
    payload bytea NOT NULL,
    payload_bytes int NOT NULL,
    -- Where the message came from, the same whenever it comes again: when the stream was made (microseconds since the epoch), the
    -- envelope's sequence there, and the message's number in the envelope.
    stream bigint NOT NULL,
    sequence bigint NOT NULL,
    number int NOT NULL,
    replays int NOT NULL DEFAULT 0,
    UNIQUE (stream, sequence, number)
);
CREATE INDEX ON sens.dead_letters (tenant_id, id);

CREATE VIEW sens.tenant_dead_letters WITH (security_barrier) AS
    SELECT * FROM sens.dead_letters WHERE tenant_id = (SELECT sens.current_tenant_id());
GRANT SELECT, DELETE ON sens.tenant_dead_letters TO sens_api;
GRANT SELECT, INSERT, UPDATE ON sens.dead_letters TO sens_worker;

-- How many dead letters a tenant has and how many bytes they take. Each session has rows of its own, so that none waits for another. A
-- row may be negative; the sum of a tenant's rows is not.
CREATE TABLE sens.dead_letter_usage (
    tenant_id int REFERENCES sens.tenants ON DELETE CASCADE,
    backend int NOT NULL,
    letters bigint NOT NULL,
    bytes bigint NOT NULL,
    UNIQUE NULLS NOT DISTINCT (tenant_id, backend)
) WITH (fillfactor = 50);
ALTER TABLE sens.dead_letter_usage ENABLE ROW LEVEL SECURITY;
CREATE POLICY own_tenant ON sens.dead_letter_usage FOR SELECT TO sens_api
    USING (tenant_id = (SELECT sens.current_tenant_id()));
CREATE POLICY all_tenants ON sens.dead_letter_usage FOR SELECT TO sens_worker USING (true);
GRANT SELECT ON sens.dead_letter_usage TO sens_api, sens_worker;

CREATE FUNCTION sens.note_dead_letter_usage() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF TG_OP IN ('INSERT', 'UPDATE') THEN
        INSERT INTO sens.dead_letter_usage AS u (tenant_id, backend, letters, bytes)
        SELECT tenant_id, pg_backend_pid(), count(*), sum(octet_length(payload) + octet_length(topic) + octet_length(detail))
        FROM added GROUP BY tenant_id
        ON CONFLICT (tenant_id, backend) DO UPDATE SET letters = u.letters + excluded.letters, bytes = u.bytes + excluded.bytes;
    END IF;
    IF TG_OP IN ('DELETE', 'UPDATE') THEN
        INSERT INTO sens.dead_letter_usage AS u (tenant_id, backend, letters, bytes)
        SELECT tenant_id, pg_backend_pid(), -count(*), -sum(octet_length(payload) + octet_length(topic) + octet_length(detail))
        FROM removed
        -- A tenant that is deleted takes its rows with it.
        WHERE tenant_id IS NULL OR EXISTS (SELECT FROM sens.tenants t WHERE t.id = tenant_id)
        GROUP BY tenant_id
        ON CONFLICT (tenant_id, backend) DO UPDATE SET letters = u.letters + excluded.letters, bytes = u.bytes + excluded.bytes;
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER note_added AFTER INSERT ON sens.dead_letters
    REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION sens.note_dead_letter_usage();
CREATE TRIGGER note_changed AFTER UPDATE ON sens.dead_letters
    REFERENCING OLD TABLE AS removed NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION sens.note_dead_letter_usage();
CREATE TRIGGER note_removed AFTER DELETE ON sens.dead_letters
    REFERENCING OLD TABLE AS removed FOR EACH STATEMENT EXECUTE FUNCTION sens.note_dead_letter_usage();

-- Rows of sessions that have ended become one row a tenant.
CREATE FUNCTION sens.compact_dead_letter_usage() RETURNS void
    LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
    WITH ended AS (
        DELETE FROM sens.dead_letter_usage
        WHERE backend <> 0 AND backend NOT IN (SELECT pid FROM pg_stat_activity)
        RETURNING tenant_id, letters, bytes
    )
    INSERT INTO sens.dead_letter_usage AS u (tenant_id, backend, letters, bytes)
    SELECT tenant_id, 0, sum(letters), sum(bytes) FROM ended GROUP BY tenant_id
    ON CONFLICT (tenant_id, backend) DO UPDATE SET letters = u.letters + excluded.letters, bytes = u.bytes + excluded.bytes
$$;
REVOKE EXECUTE ON FUNCTION sens.compact_dead_letter_usage() FROM public;
GRANT EXECUTE ON FUNCTION sens.compact_dead_letter_usage() TO sens_worker;

-- A new tenant gets the dead letters whose topics name it already; one that is deleted takes its dead letters with it.
CREATE FUNCTION sens.pass_on_dead_letters() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        UPDATE sens.dead_letters SET tenant_id = new.id
        WHERE tenant_id IS NULL AND starts_with(topic, 'sens/v1/' || new.name || '/');
    ELSE
        DELETE FROM sens.dead_letters WHERE tenant_id = old.id;
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER pass_on_dead_letters AFTER INSERT OR DELETE ON sens.tenants
    FOR EACH ROW EXECUTE FUNCTION sens.pass_on_dead_letters();

-- What became of the messages, by the day (UTC) on which the log took them. For every tenant and day,
-- received = stored + duplicate + dead_lettered + discarded. Of what was stored before this migration only that much is known.
ALTER TABLE sens.message_counts DROP CONSTRAINT message_counts_pkey;
ALTER TABLE sens.message_counts
    ALTER COLUMN tenant_id DROP NOT NULL, -- NULL: topics that name no tenant that exists
    ADD COLUMN received bigint NOT NULL DEFAULT 0,
    ADD COLUMN dead_lettered bigint NOT NULL DEFAULT 0,
    ADD COLUMN discarded bigint NOT NULL DEFAULT 0,
    ADD UNIQUE NULLS NOT DISTINCT (tenant_id, day, backend);
UPDATE sens.message_counts SET received = stored + duplicate;
GRANT SELECT, INSERT, UPDATE ON sens.message_counts TO sens_worker;

-- Envelopes whose messages are all stored, dead-lettered or discarded, and counted: nothing of them is counted again. While an envelope is
-- stored in parts, `outcomes` tells what became of each message so far, a byte each (sens_telemetry_worker.accounting.Outcome).
CREATE TABLE sens.settled (
    stream bigint NOT NULL,
    sequence bigint NOT NULL,
    outcomes bytea,
    PRIMARY KEY (stream, sequence)
);
CREATE INDEX ON sens.settled (stream) WHERE outcomes IS NOT NULL;
GRANT SELECT, INSERT, UPDATE, DELETE ON sens.settled TO sens_worker;

-- What is received and not accounted for must be 0, and what is accounted for and not received too, whenever no envelope is settled in part.
CREATE FUNCTION sens.conservation(since date DEFAULT '-infinity')
    RETURNS TABLE (
        tenant_id int, day date, received bigint, stored bigint, duplicate bigint, dead_lettered bigint, discarded bigint, unaccounted bigint
    )
    LANGUAGE sql STABLE
    BEGIN ATOMIC
        SELECT c.tenant_id, c.day, sum(c.received)::bigint, sum(c.stored)::bigint, sum(c.duplicate)::bigint,
            sum(c.dead_lettered)::bigint, sum(c.discarded)::bigint,
            sum(c.received - c.stored - c.duplicate - c.dead_lettered - c.discarded)::bigint
        FROM sens.message_counts c
        WHERE c.day >= since
        GROUP BY c.tenant_id, c.day;
    END;
