"""The ingestion worker: ``python -m sens_mqtt_ingestion_worker``."""

import asyncio
from collections.abc import Mapping

from nats.aio.client import Client

from sens_common.envelope import OVERHEAD_BYTES
from sens_common.health import Check
from sens_common.ingestion.clock import ReceiptClock, time_slot
from sens_common.ingestion.limits import LimitsBucket
from sens_common.ingestion.rates import Rates
from sens_common.ingestion.states import StatesBucket
from sens_common.jetstream import connect, ensure_streams, nats_check
from sens_common.lifecycle import run
from sens_common.operations import Heartbeat, serve_operations
from sens_common.readiness import not_started
from sens_common.tenant_limits import TenantLimits
from sens_mqtt_ingestion_worker.brokers.opening import SessionOpener
from sens_mqtt_ingestion_worker.brokers.reaching import Reach
from sens_mqtt_ingestion_worker.brokers.serving import ServedBrokers
from sens_mqtt_ingestion_worker.jetstream import JetStreamPublisher
from sens_mqtt_ingestion_worker.leases import Leases
from sens_mqtt_ingestion_worker.mqtt import MqttSource, PlatformBroker
from sens_mqtt_ingestion_worker.pipeline import Pipeline
from sens_mqtt_ingestion_worker.sessions import SessionRecord
from sens_mqtt_ingestion_worker.settings import IngestionSettings
from sens_mqtt_ingestion_worker.source_routes import SourceRoutes
from sens_mqtt_ingestion_worker.status import IngestionStatus

SERVICE = "mqtt-ingestion-worker"


async def main(settings: IngestionSettings, stop: asyncio.Event) -> None:
    """Wire the parts, and work until the stop."""
    mqtt = settings.mqtt
    heartbeat = Heartbeat()
    status = IngestionStatus()
    client = Client()
    checks: dict[str, Check] = {"nats": nats_check(client), "stream": not_started, "mqtt": not_started}
    notes: dict[str, Check] = {}
    async with (
        serve_operations(SERVICE, settings.operations, checks, heartbeat, status.describe, notes=notes),
        connect(settings.nats, f"{SERVICE} {mqtt.client_id}", client=client, stop=stop),
    ):
        jetstream = client.jetstream()
        await ensure_streams(jetstream, settings.nats)
        clock = ReceiptClock(time_slot(mqtt.client_id))
        rates = Rates()
        routes = SourceRoutes(mqtt.topic_filters)
        reach = Reach(settings.brokers.allowed_hosts, settings.brokers.max_count)
        max_payload = client.max_payload
        opener = SessionOpener(jetstream, settings.nats, mqtt, settings.brokers, clock, reach, max_payload)
        brokers = ServedBrokers(settings.brokers, Leases(jetstream, mqtt.client_id), opener.open)

        def follow(tenants: Mapping[str, TenantLimits]) -> None:
            routes.follow(tenants)
            brokers.follow(tenants)

        limits = LimitsBucket(jetstream, rates, follow)
        await limits.read()
        status.export_metrics(brokers.statuses)
        routes.export_metrics(brokers.routes)
        for part in (clock, limits, brokers):
            part.export_metrics()
        stream = JetStreamPublisher(
            jetstream,
            settings.nats,
            mqtt.client_id,
            clock,
            rates,
            receive_max=mqtt.receive_max,
            max_payload_bytes=max_payload,
        )
        source = MqttSource(
            PlatformBroker(mqtt, mqtt.ca_file),
            clock,
            SessionRecord(jetstream, settings.nats, mqtt.client_id, mqtt.url),
            routes,
            max_packet_bytes=min(mqtt.max_packet_bytes, max_payload - OVERHEAD_BYTES),
        )
        pipeline = Pipeline(source, stream, status, rates, receive_max=mqtt.receive_max)
        states = StatesBucket(
            jetstream, mqtt.client_id, [lambda: routes.states(status.connected_since), brokers.states], settings.nats
        )
        checks |= {
            "stream": stream.problems.check,
            "mqtt": pipeline.problems.check,
            "subscriptions": source.subscriptions.check,
            "clock": clock.check,
            "limits": limits.check,
        }
        notes |= {
            "sources": routes.problems.check,
            "brokers": brokers.problems.check,
            "source_states": states.problems.check,
        }
        try:
            async with asyncio.TaskGroup() as tasks:
                beside = [
                    tasks.create_task(limits.keep_reading(), name="read the tenants' limits"),
                    tasks.create_task(states.keep_telling(), name="tell the sources' states"),
                ]
                working = [
                    tasks.create_task(pipeline.run(stop), name="serve the platform's broker"),
                    tasks.create_task(brokers.run(stop), name="serve tenants' brokers"),
                ]
                await asyncio.wait(working)
                for task in beside:
                    task.cancel()
        finally:
            reach.close()


if __name__ == "__main__":
    run(SERVICE, IngestionSettings, main)
