"""A part of an ingestion worker, in this process: that which serves brokers of tenants' own, on real servers."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from nats.aio.client import Client
from nats.js.errors import NotFoundError

from sens_common import envelope
from sens_common.brokers import Broker
from sens_common.envelope import Message
from sens_common.ingestion.clock import ReceiptClock, time_slot
from sens_common.ingestion.states import ensure_bucket
from sens_common.jetstream import connect, ensure_streams
from sens_common.names import TELEMETRY_STREAM
from sens_common.settings import NatsSettings
from sens_common.source_states import SourceState
from sens_common.tenant_limits import MqttSource, TenantLimits
from sens_mqtt_ingestion_worker.brokers.opening import SessionOpener
from sens_mqtt_ingestion_worker.brokers.reaching import Reach
from sens_mqtt_ingestion_worker.brokers.serving import ServedBrokers
from sens_mqtt_ingestion_worker.leases import Leases
from sens_mqtt_ingestion_worker.settings import BrokersSettings, MqttSettings
from support.brokers import MqttBroker
from support.servers import HOST, eventually

ANY_PORT = f"{HOST}:*"


def credential(folder: Path, tenant: str, name: str, **files: str) -> None:
    """Write a credential's files; ``tls_key`` is tls.key."""
    own = folder / tenant / name
    own.mkdir(parents=True, exist_ok=True)
    for file, content in files.items():
        scratch = own / f".{file}"
        scratch.write_text(content)
        scratch.rename(own / file.replace("_", "."))


def source(broker: MqttBroker, name: str = "house", topic_filter: str = "tele/#", **members: object) -> MqttSource:
    """Return a source on a broker."""
    return MqttSource(name, topic_filter, Broker(f"mqtt://{HOST}:{broker.port}", **members))  # type: ignore[arg-type]


@dataclass
class Serving:
    """What serves, and how it does."""

    client: Client
    brokers: ServedBrokers

    def follow(self, **sources: list[MqttSource]) -> None:
        """Let tenants have sources."""
        self.brokers.follow({tenant: TenantLimits(mqtt_sources=tuple(each)) for tenant, each in sources.items()})

    def state(self, tenant: str = "demo", name: str = "house") -> SourceState | None:
        """Return how a source does."""
        return self.brokers.states().get(tenant, {}).get(name)

    async def reaches(self, status: str, reason: str = "", tenant: str = "demo", name: str = "house") -> SourceState:
        """Wait until a source does so; return how."""

        async def look() -> SourceState | None:
            found = self.state(tenant, name)
            return found if found is not None and (found.status, found.reason) == (status, reason) else None

        found = await eventually(look, f"source {name} is {status} {reason}")
        assert found is not None
        return found

    async def stored(self) -> list[Message]:
        """Return what the stream has."""
        return await stored(self.client)

    async def stores(self, topics: Mapping[str, int] | set[str]) -> list[Message]:
        """Wait until messages of so many topics are in the stream, and return all."""

        async def look() -> list[Message]:
            found = await self.stored()
            return found if {message.topic for message in found} >= set(topics) else []

        return await eventually(look, f"{topics} are stored")


async def stored(client: Client) -> list[Message]:
    """Return the messages of all envelopes."""
    jetstream = client.jetstream()
    info = await jetstream.stream_info(TELEMETRY_STREAM)
    found: list[Message] = []
    for sequence in range(max(1, info.state.first_seq), info.state.last_seq + 1):
        with contextlib.suppress(NotFoundError):
            raw = await jetstream.get_msg(TELEMETRY_STREAM, sequence)
            found += envelope.decode(raw.data or b"")
    return found


@contextlib.asynccontextmanager
async def serving(
    nats: NatsSettings, folder: Path, worker: str = "worker-0", **settings: object
) -> AsyncIterator[Serving]:
    """Serve until the context ends; hosts on this machine are allowed, and credentials are in a folder."""
    given: dict[str, object] = {"allowed_hosts": [ANY_PORT], "credentials_folder": str(folder)} | settings
    brokers = BrokersSettings.model_validate(given)
    mqtt = MqttSettings(client_id=worker, connect_timeout_seconds=2, keep_alive_seconds=5)
    stop = asyncio.Event()
    async with connect(nats, "test") as client:
        jetstream = client.jetstream()
        await ensure_streams(jetstream, nats)
        await ensure_bucket(jetstream, 1)
        reach = Reach(brokers.allowed_hosts, brokers.max_count)
        clock = ReceiptClock(time_slot(worker))
        opener = SessionOpener(jetstream, nats, mqtt, brokers, clock, reach, client.max_payload)
        served = ServedBrokers(brokers, Leases(jetstream, worker), opener.open)
        running = asyncio.create_task(served.run(stop))
        try:
            async with asyncio.timeout(60):
                yield Serving(client, served)
        finally:
            stop.set()
            await running
            reach.close()
