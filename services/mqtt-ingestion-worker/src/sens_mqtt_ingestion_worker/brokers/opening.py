"""Puts a session at a broker of a tenant's own together."""

import hashlib
from typing import NamedTuple

from nats.js import JetStreamContext

from sens_common.envelope import OVERHEAD_BYTES
from sens_common.health import Problems
from sens_common.ingestion.clock import ReceiptClock
from sens_common.ingestion.rates import Rates
from sens_common.names import subject_token
from sens_common.settings import NatsSettings
from sens_mqtt_ingestion_worker.brokers.broker import TenantBroker
from sens_mqtt_ingestion_worker.brokers.plans import Plan
from sens_mqtt_ingestion_worker.brokers.reaching import Reach
from sens_mqtt_ingestion_worker.brokers.session import BrokerSession, PacedStream, Parts
from sens_mqtt_ingestion_worker.jetstream import JetStreamPublisher
from sens_mqtt_ingestion_worker.mqtt import MqttSource
from sens_mqtt_ingestion_worker.sessions import SessionRecord
from sens_mqtt_ingestion_worker.settings import BrokersSettings, MqttSettings
from sens_mqtt_ingestion_worker.source_routes import TenantRoutes

_UNTOLD_WINDOW = 4096
"""Unacknowledged messages that are reckoned with where the broker can't be told a number (MQTT 3.1.1 has none)."""


class SessionOpener(NamedTuple):
    """What all sessions have in common; the clock is the worker's, so that no two of its messages of a device get the same time.

    Attributes:
        jetstream: Where everything is kept.
        nats: Settings of it.
        mqtt: Of the platform's own session.
        brokers: Of tenants' brokers.
        clock: For the receipt times.
        reach: Finds hosts.
        max_payload_bytes: Of a message in NATS.
    """

    jetstream: JetStreamContext
    nats: NatsSettings
    mqtt: MqttSettings
    brokers: BrokersSettings
    clock: ReceiptClock
    reach: Reach
    max_payload_bytes: int

    def open(self, plan: Plan, problems: Problems) -> BrokerSession:
        """Return a session that begins when it is run.

        Args:
            plan: What it is to be.
            problems: Where to say what is wrong with it.
        """
        broker = TenantBroker(plan, self.brokers, self.mqtt, self.reach)
        settings = broker.settings
        window = settings.receive_max if settings.version == "5" else max(settings.receive_max, _UNTOLD_WINDOW)
        routes = TenantRoutes(plan.tenant, problems)
        rates = Rates()
        stream = JetStreamPublisher(
            self.jetstream,
            self.nats,
            publisher_of(plan),
            self.clock,
            rates,
            receive_max=window,
            max_payload_bytes=self.max_payload_bytes,
            problems=problems,
        )
        source = MqttSource(
            broker,
            self.clock,
            SessionRecord(self.jetstream, self.nats, settings.client_id, plan.key),
            routes,
            max_packet_bytes=min(self.mqtt.max_packet_bytes, self.max_payload_bytes - OVERHEAD_BYTES),
            subscriptions=problems,
        )
        paced = PacedStream(stream, self.brokers.messages_per_second)
        return BrokerSession(Parts(broker, source, routes, paced, rates, problems, window))


def publisher_of(plan: Plan) -> str:
    """Return the name under which the stream knows a session, whichever worker serves it."""
    digest = hashlib.sha256(plan.key.encode()).hexdigest()[:16]
    return f"own-{subject_token(plan.tenant).replace('%', '=')}-{digest}"
