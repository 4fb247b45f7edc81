"""From the topic of somebody's own sensors to rows: a source that is made while the platform runs."""

import asyncio
import json
from collections.abc import Iterator

import pytest

from sens_common.jetstream import connect
from sens_common.settings import DatabaseSettings, NatsSettings
from sens_common.tenant_limits import MqttSource, TenantLimits
from sens_payloads.formats.presets import PRESETS
from sens_platform_api.tenants.jetstream import LimitsBucket
from support.brokers import mock_broker
from support.servers import execute_as, nats_server, scratch_folder, wait_until
from support.workers import Publisher, TelemetryPath, running_path

NATIVE = "sens/v1/demo/native/telemetry"
TASMOTA = PRESETS["tasmota"]


SOURCE = f"""
    INSERT INTO sens.sources (tenant_id, name, transport, topic_filter, format, settings)
    SELECT id, 'house', 'mqtt', '{TASMOTA.filters[0]}', 'json', '{json.dumps(TASMOTA.settings.model_dump(mode="json", exclude_unset=True))}'
    FROM sens.tenants WHERE name = 'demo'
"""  # noqa: S608 - constants


@pytest.fixture
def servers(database: DatabaseSettings) -> Iterator[tuple[TelemetryPath, NatsSettings, DatabaseSettings]]:
    """A path, its stream and its database."""
    with (
        mock_broker() as broker,
        scratch_folder("sens-nats-") as folder,
        nats_server(folder) as nats,
        running_path(broker, nats, database) as path,
    ):
        yield path, nats, database


async def tell(nats: NatsSettings, *sources: MqttSource) -> None:
    """Tell the ingestion worker of sources, as the API does."""
    async with connect(nats, "test") as client:
        await LimitsBucket(client).bring_to({"demo": TenantLimits(mqtt_sources=sources)})


class TestSource:
    def test_that_is_made_brings_values_and_one_that_is_deleted_no_more(
        self, servers: tuple[TelemetryPath, NatsSettings, DatabaseSettings]
    ) -> None:
        path, nats, database = servers
        asyncio.run(execute_as(database, SOURCE))
        asyncio.run(tell(nats, MqttSource("house", TASMOTA.filters[0])))
        with Publisher(path.broker) as publisher:

            def is_stored() -> bool:
                publisher.publish("tele/kitchen/SENSOR", '{"Time":"2026-09-04T08:00:00","SI7021":{"Temperature":21.5}}')
                path.wait_until_idle()
                return bool(path.fetch_stored("SELECT 1 FROM stored_values WHERE metric = 'SI7021.Temperature'"))

            wait_until(is_stored, "a value of the source is stored")
            publisher.publish("tele/kitchen/LWT", "Online")
            publisher.publish(NATIVE, '{"a": 1}')
            path.wait_until_idle()
            asyncio.run(tell(nats))

            def received(*topics: str) -> float:
                before = path.ingestion.metric("sens_ingestion_messages_received_total")
                for topic in topics:
                    publisher.publish(topic, '{"a": 1}')
                path.wait_until_idle()
                return path.ingestion.metric("sens_ingestion_messages_received_total") - before

            def is_over() -> bool:
                return received("tele/kitchen/SENSOR", NATIVE) == received(NATIVE)

            wait_until(is_over, "the session is no longer subscribed to the source's filter")
        [counts] = path.fetch("SELECT without_measurements::int, unaccounted::int FROM sens.conservation()")
        assert dict(counts) == {"without_measurements": 1, "unaccounted": 0}
        assert [
            dict(row) for row in path.fetch("SELECT name FROM sens.devices WHERE name !~ '^idle' ORDER BY name")
        ] == [
            {"name": "kitchen"},
            {"name": "native"},
        ]
