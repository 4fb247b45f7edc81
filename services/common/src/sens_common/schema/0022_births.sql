-- Births of Sparkplug B: what edge nodes and their devices announce of their metrics, by which later messages are read. Each has its place in
-- the stream: a message is read with the births that precede it there, whoever reads it, and when.

-- Edge nodes whose messages came, and a number that grows with every change of their births: a worker asks for it once a batch. Whoever writes
-- births, or dead letters that wait for them, locks the row.
CREATE TABLE sens.edge_nodes (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant_id int NOT NULL REFERENCES sens.tenants ON DELETE CASCADE,
    source_id int NOT NULL REFERENCES sens.sources ON DELETE CASCADE,
    -- Of group and edge node, as its device is called: sens_payloads.formats.sparkplug_topics.device_name_of.
    name text COLLATE "C" NOT NULL CHECK (octet_length(name) BETWEEN 1 AND 63),
    changes bigint NOT NULL DEFAULT 0,
    -- How many births and deaths are kept, and their size.
    births int NOT NULL DEFAULT 0,
    bytes bigint NOT NULL DEFAULT 0,
    UNIQUE (source_id, name)
);
CREATE INDEX ON sens.edge_nodes (tenant_id);

CREATE TABLE sens.births (
    edge_node_id bigint NOT NULL REFERENCES sens.edge_nodes ON DELETE CASCADE,
    -- The device's name, empty for the edge node itself.
    device text COLLATE "C" NOT NULL CHECK (octet_length(device) <= 63),
    -- Where the message came from first: see sens.dead_letters.
    stream bigint NOT NULL,
    sequence bigint NOT NULL,
    number int NOT NULL,
    is_birth boolean NOT NULL,
    -- Of the edge node's session, where it is told.
    bd_seq bigint,
    -- Whether earlier ones of the same publisher are not kept any more.
    follows_forgotten boolean NOT NULL DEFAULT false,
    noted_at timestamptz NOT NULL DEFAULT now(),
    -- Names, aliases and datatypes (MessagePack of sens_payloads.formats.sparkplug_births.Birth); NULL for a death.
    content bytea CHECK (octet_length(content) <= 4194304),
    PRIMARY KEY (edge_node_id, device, stream, sequence, number),
    CHECK (is_birth = (content IS NOT NULL))
);

-- Births since which dead letters may be readable that were not before; a worker replays those, then deletes the row.
CREATE TABLE sens.birth_replays (
    edge_node_id bigint NOT NULL,
    device text COLLATE "C" NOT NULL,
    stream bigint NOT NULL,
    sequence bigint NOT NULL,
    number int NOT NULL,
    -- Of the letters that wait.
    topic text NOT NULL,
    claimed_until timestamptz NOT NULL DEFAULT '-infinity',
    PRIMARY KEY (edge_node_id, device, stream, sequence, number),
    FOREIGN KEY (edge_node_id, device, stream, sequence, number) REFERENCES sens.births ON DELETE CASCADE
);

ALTER TABLE sens.edge_nodes ENABLE ROW LEVEL SECURITY;
ALTER TABLE sens.births ENABLE ROW LEVEL SECURITY;
ALTER TABLE sens.birth_replays ENABLE ROW LEVEL SECURITY;
CREATE POLICY all_tenants ON sens.edge_nodes TO sens_worker USING (true);
CREATE POLICY all_tenants ON sens.births TO sens_worker USING (true);
CREATE POLICY all_tenants ON sens.birth_replays TO sens_worker USING (true);
CREATE POLICY own_tenant ON sens.edge_nodes FOR SELECT TO sens_api USING (tenant_id = (SELECT sens.current_tenant_id()));
CREATE POLICY own_tenant ON sens.births FOR SELECT TO sens_api
    USING (edge_node_id IN (SELECT e.id FROM sens.edge_nodes e WHERE e.tenant_id = (SELECT sens.current_tenant_id())));
GRANT SELECT ON sens.edge_nodes, sens.births TO sens_api;
GRANT SELECT, INSERT, UPDATE (changes, births, bytes) ON sens.edge_nodes TO sens_worker;
GRANT SELECT, INSERT, UPDATE (follows_forgotten), DELETE ON sens.births TO sens_worker;
GRANT SELECT, INSERT, UPDATE (claimed_until), DELETE ON sens.birth_replays TO sens_worker;

-- The letters that wait for a birth. A topic may be longer than an index takes.
CREATE INDEX dead_letters_waiting ON sens.dead_letters (tenant_id, left(topic, 200), id) WHERE reason = 'unknown_alias';

-- Deletes letters that were replayed because their birth came, unless they were refused again since; returns how many.
CREATE FUNCTION sens.delete_explained_letters(ids bigint[], replays int[]) RETURNS int
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    deleted int;
BEGIN
    DELETE FROM sens.dead_letters l USING unnest(ids, delete_explained_letters.replays) AS sent (id, replays)
        WHERE l.id = sent.id AND l.replays = sent.replays AND l.reason = 'unknown_alias';
    GET DIAGNOSTICS deleted = ROW_COUNT;
    RETURN deleted;
END
$$;
REVOKE EXECUTE ON FUNCTION sens.delete_explained_letters(bigint[], int[]) FROM public;
GRANT EXECUTE ON FUNCTION sens.delete_explained_letters(bigint[], int[]) TO sens_worker;

-- An erased device's announcements go with it: they name it, and its metrics. Its data by alias waits for its next birth then.
CREATE FUNCTION sens.forget_births_of_erased() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    WITH gone AS (
        DELETE FROM sens.births b USING sens.edge_nodes e
        WHERE e.id = b.edge_node_id AND e.tenant_id = new.tenant_id
            AND sha256(convert_to(CASE b.device WHEN '' THEN e.name ELSE b.device END, 'UTF8')) = new.device_hash
        RETURNING b.edge_node_id, coalesce(octet_length(b.content), 0) AS bytes
    )
    UPDATE sens.edge_nodes e SET changes = e.changes + 1, births = e.births - g.births, bytes = e.bytes - g.bytes
        FROM (SELECT gone.edge_node_id, count(*) AS births, sum(gone.bytes) AS bytes FROM gone GROUP BY 1) g
        WHERE e.id = g.edge_node_id;
    RETURN NULL;
END
$$;
REVOKE EXECUTE ON FUNCTION sens.forget_births_of_erased() FROM public;
CREATE TRIGGER forget_births AFTER INSERT ON sens.erasures FOR EACH ROW EXECUTE FUNCTION sens.forget_births_of_erased();
