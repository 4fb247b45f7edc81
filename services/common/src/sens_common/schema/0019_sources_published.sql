-- What the API tells the ingestion workers: rates, and sources. A tenant that has neither is left out.
CREATE FUNCTION sens.ingestion_tenants() RETURNS TABLE (tenant text, messages_per_second int, mqtt_sources text)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    BEGIN ATOMIC
        SELECT t.name, t.messages_per_second, coalesce(s.sources, '[]')
        FROM sens.tenants t
        LEFT JOIN LATERAL (
            SELECT json_agg(
                json_build_object('name', s.name, 'topic_filter', s.topic_filter, 'broker', s.broker) ORDER BY s.name
            )::text AS sources
            FROM sens.sources s
            WHERE s.tenant_id = t.id AND s.transport = 'mqtt' AND s.enabled
        ) s ON true
        WHERE t.messages_per_second IS NOT NULL OR s.sources IS NOT NULL;
    END;
REVOKE EXECUTE ON FUNCTION sens.ingestion_tenants() FROM public;
GRANT EXECUTE ON FUNCTION sens.ingestion_tenants() TO sens_api;
