"""The two workers as processes, between real servers; and a client that records what the broker acknowledged."""

import asyncio
import contextlib
import signal
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self, override

import aiomqtt
import asyncpg
import nats as nats_client
import pytest
from aiomqtt import ProtocolVersion
from anyio.from_thread import BlockingPortal, start_blocking_portal

from sens_common.database import connect
from sens_common.nats_permissions import INGESTION_USER, TELEMETRY_USER
from sens_common.settings import DatabaseSettings, NatsSettings
from support.brokers import MqttBroker
from support.servers import HOST, eventually, free_port, scratch_folder
from tools.stack import server, stored

INGESTION = "sens_mqtt_ingestion_worker"
TELEMETRY = "sens_telemetry_worker"


class Worker(server.Worker):
    """A worker's process, which can be killed and started again."""

    def __init__(self, module: str, environment: Mapping[str, str], port: int, log: Path) -> None:
        super().__init__(module, module, environment, port, log)

    @override
    def metric(self, name: str) -> float:
        """Return the sum of a metric over its labels, 0 while the worker does not answer."""
        try:
            return super().metric(name)
        except OSError:
            return 0.0


class Publisher:
    """An ordinary MQTT client; `acknowledged` holds what the broker has acknowledged."""

    def __init__(self, broker: MqttBroker, *, version: ProtocolVersion = ProtocolVersion.V311) -> None:
        self._port = broker.port_v5 if version is ProtocolVersion.V5 else broker.port
        self._version = version
        self._resources = contextlib.ExitStack()
        self._portal: BlockingPortal
        self._client: aiomqtt.Client
        self.acknowledged: list[tuple[str, bytes]] = []

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as resources:
            self._portal = resources.enter_context(start_blocking_portal())
            self._client = resources.enter_context(self._portal.wrap_async_context_manager(self._connected()))
            self._resources = resources.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._resources.close()

    @contextlib.asynccontextmanager
    async def _connected(self) -> AsyncIterator[aiomqtt.Client]:
        async with aiomqtt.Client(
            HOST, self._port, protocol=self._version, max_inflight_messages=200, timeout=60
        ) as client:
            client.pending_calls_threshold = 10_000  # many at once are wanted here, and no reason for a warning
            yield client

    def publish(self, topic: str, payload: bytes | str) -> None:
        """Publish with QoS 1 and wait for the acknowledgement."""
        self.publish_all([(topic, payload.encode() if isinstance(payload, str) else payload)])

    def publish_all(self, messages: list[tuple[str, bytes]]) -> None:
        """Publish with QoS 1, many at once, and wait for all acknowledgements."""
        self._portal.call(self._publish_all, messages)
        self.acknowledged += messages

    async def _publish_all(self, messages: list[tuple[str, bytes]]) -> None:
        async with asyncio.TaskGroup() as tasks:
            for message in messages:
                tasks.create_task(self._client.publish(*message, qos=1))


@dataclass
class TelemetryPath:
    """From a broker to a database, with both workers running."""

    broker: MqttBroker
    nats: NatsSettings
    database: DatabaseSettings
    ingestion: Worker
    telemetry: Worker

    def fetch(self, query: str, *arguments: object) -> list[asyncpg.Record]:
        """Ask the database as its owner."""

        async def ask() -> list[asyncpg.Record]:
            connection = await connect(self.database, "test")
            try:
                return list(await connection.fetch(query, *arguments))
            finally:
                await connection.close()

        return asyncio.run(ask())

    def fetch_stored(self, query: str, *arguments: object) -> list[asyncpg.Record]:
        """Ask the database as its owner, with the table `stored_values` of `tools.stack.stored`."""
        tables = [row["name"] for row in self.fetch(stored.VALUE_TABLES)]
        return self.fetch(stored.with_stored_values(tables, query), *arguments)

    def values(self) -> list[tuple[str, str, int, float | bool | str]]:
        """Return device, metric, time (µs) and value of all that is stored, in that order."""
        rows = self.fetch_stored(
            "SELECT device, metric, (extract(epoch FROM ts) * 1000000)::int8, kind, number, text FROM stored_values ORDER BY 1, 2, 3"
        )
        return [
            (row[0], row[1], row[2], row[5] if row[3] == "text" else bool(row[4]) if row[3] == "boolean" else row[4])
            for row in rows
        ]

    def settled(self) -> float:
        """Return how many messages the running telemetry worker has settled."""
        return self.telemetry.metric("sens_telemetry_messages_received_total")

    def wait_until_idle(self) -> None:
        """Wait until everything that was acknowledged to a publisher is stored or dead-lettered.

        The broker hands messages over in order, so a message that is published last is stored last.
        """
        marker = f"idle-{free_port()}"
        with Publisher(self.broker) as publisher:
            publisher.publish(f"sens/v1/demo/{marker}/telemetry", '{"marker": 1}')
        asyncio.run(self._idle(marker))

    async def _idle(self, marker: str) -> None:
        """Wait until a device is there and nothing is left, on connections that are kept: each new one takes a hundredth of a second of a core."""
        connection = await connect(self.database, "test")
        try:
            known = "SELECT EXISTS (SELECT FROM sens.devices WHERE name = $1)"
            await eventually(lambda: connection.fetchval(known, marker), "the path is idle", 60)
        finally:
            await connection.close()
        assert self.nats.password is not None
        client = await nats_client.connect(
            self.nats.url, user=self.nats.user, password=self.nats.password.get_secret_value()
        )
        try:
            stream = client.jetstream()

            async def nothing_left() -> bool:
                self.telemetry.wait_until_ready()
                info = await stream.consumer_info("TELEMETRY", "telemetry-worker")
                return not (info.num_pending or info.num_ack_pending)

            await eventually(nothing_left, "the stream is settled", 60)
        finally:
            await client.close()


@contextlib.contextmanager
def running_path(
    broker: MqttBroker, nats: NatsSettings, database: DatabaseSettings, settings: Mapping[str, str] | None = None
) -> Iterator[TelemetryPath]:
    """Run both workers between the servers, with further settings (variables by name); tenant ``demo`` exists."""
    assert nats.password is not None
    assert database.password is not None
    environment = {
        # Bad input on purpose must not stop the worker.
        "SENS_DEAD_LETTERS__MAX_SHARE": "1",
        "SENS_NATS__URL": nats.url,
        "SENS_NATS__PASSWORD": nats.password.get_secret_value(),
        "SENS_NATS__STREAM_MAX_BYTES": str(nats.stream_max_bytes),
        "SENS_MQTT__URL": f"mqtt://{HOST}:{broker.port_v5}",
        "SENS_DATABASE__HOST": database.host,
        "SENS_DATABASE__PORT": str(database.port),
        "SENS_DATABASE__NAME": database.name,
        "SENS_DATABASE__USER": database.user,
        "SENS_DATABASE__PASSWORD": database.password.get_secret_value(),
        **(settings or {}),
    }
    with scratch_folder("sens-workers-") as folder:
        workers = [
            Worker(module, {"SENS_NATS__USER": user} | environment, free_port(), folder / module)
            for module, user in ((INGESTION, INGESTION_USER), (TELEMETRY, TELEMETRY_USER))
        ]
        path = TelemetryPath(broker, nats, database, *workers)
        path.fetch("INSERT INTO sens.tenants (name, late_days) VALUES ('demo', 36500)")
        try:
            for worker in workers:
                worker.start()
            for worker in workers:
                worker.wait_until_ready()
            yield path
        finally:
            for worker in workers:
                worker.stop(signal.SIGKILL)
                # pytest shows it beside a failure.
                sys.stdout.write(worker.log.read_text()[-5000:] if worker.log.exists() else "")


@pytest.fixture
def path(mqtt_broker: MqttBroker, nats: NatsSettings, database: DatabaseSettings) -> Iterator[TelemetryPath]:
    """The whole path from a broker to a database, running."""
    with running_path(mqtt_broker, nats, database) as running:
        yield running
