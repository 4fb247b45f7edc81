"""Brokers of tenants' own, on real brokers and a real stream."""

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import mqtt5
import pytest

from sens_common.brokers import Broker
from sens_common.errors import UnavailableError
from sens_common.jetstream import connect
from sens_common.nats_permissions import INGESTION_USER
from sens_common.settings import NatsSettings
from sens_common.tenant_limits import MqttSource, TenantLimits
from sens_platform_api.sources.jetstream import SourceStates
from sens_platform_api.tenants.jetstream import LimitsBucket
from support.brokers import MqttBroker, let_in, mosquitto
from support.certificates import Authority
from support.servers import HOST, eventually, free_port
from support.tenant_brokers import credential, serving, source, stored
from support.workers import Publisher, Worker

SPOOFED = ("sens/v1/acme/d1/telemetry", "ingest/v1/acme/older/x")


@pytest.fixture
def broker() -> Iterator[MqttBroker]:
    """A broker that lets everybody in."""
    with mosquitto() as running:
        yield running


async def publish(broker: MqttBroker, *messages: tuple[str, bytes]) -> None:
    def work() -> None:
        with Publisher(broker) as publisher:
            publisher.publish_all(list(messages))

    await asyncio.to_thread(work)


class TestBrokerThatAsksForAPassword:
    async def test_is_let_in_to_by_files_and_says_what_is_missing_or_wrong_until_then(
        self, nats: NatsSettings, tmp_path: Path
    ) -> None:
        with mosquitto(access=let_in(tmp_path, "sens", "first")) as broker:
            async with serving(nats, tmp_path / "credentials") as it:
                it.follow(demo=[source(broker, credential="house")])
                missing = await it.reaches("failed", "credential_missing")
                assert missing.detail.endswith(f"there is no folder {tmp_path}/credentials/demo/house")
                credential(tmp_path / "credentials", "demo", "house", username="sens\n", password="wrong")
                refused = await it.reaches("failed", "bad_credentials")
                assert "the broker refuses the connection: not authorized" in refused.detail
                credential(tmp_path / "credentials", "demo", "house", password="first\n")
                connected = await it.reaches("connected")
                assert (connected.messages, connected.last_message_at) == (0, None)


class TestBrokers:
    async def test_are_served_side_by_side_and_one_that_is_away_or_hostile_slows_none(
        self, nats: NatsSettings, broker: MqttBroker, tmp_path: Path
    ) -> None:
        away = MqttSource("away", "#", Broker(f"mqtt://{HOST}:{free_port()}"))
        with mosquitto() as another:
            async with hostile() as port, serving(nats, tmp_path) as it:
                hostile_source = MqttSource("hostile", "#", Broker(f"mqtt://{HOST}:{port}", client_id="h"))
                older = source(another, "older", "tele/#", version="3.1.1")
                it.follow(demo=[source(broker), away, hostile_source], acme=[older])
                await it.reaches("connected")
                await it.reaches("connected", tenant="acme", name="older")
                await it.reaches("failed", "unreachable", name="away")
                await it.reaches("failed", "protocol_error", name="hostile")
                await publish(broker, ("tele/kitchen", b"1"), ("tele/cellar", b"2"))
                await publish(another, ("tele/kitchen", b"3"))
                wanted = {
                    "ingest/v1/demo/house/tele/kitchen": b"1",
                    "ingest/v1/demo/house/tele/cellar": b"2",
                    "ingest/v1/acme/older/tele/kitchen": b"3",
                }
                spoofed = {f"ingest/v1/demo/hostile/{topic}" for topic in SPOOFED}
                stored = await it.stores(wanted.keys() | spoofed)
                honest = [message for message in stored if message.topic not in spoofed]
                assert sorted((message.topic, message.payload) for message in honest) == sorted(wanted.items())
                state = await it.reaches("connected")
                assert state.messages == 2
                assert state.last_message_at is not None

    async def test_that_are_too_many_are_left_out_by_name(
        self, nats: NatsSettings, broker: MqttBroker, tmp_path: Path
    ) -> None:
        async with serving(nats, tmp_path, max_per_tenant=1) as it:
            second = source(broker, "second", client_id="second")
            it.follow(demo=[source(broker, client_id="first"), second], acme=[source(broker)])
            await it.reaches("connected")
            await it.reaches("connected", tenant="acme")
            left_out = await it.reaches("failed", "too_many_brokers", name="second")
            assert "SENS_BROKERS__MAX_PER_TENANT" in left_out.detail

    async def test_that_another_worker_serves_are_not_left_out(
        self, nats: NatsSettings, broker: MqttBroker, tmp_path: Path
    ) -> None:
        sources = [source(broker, "first", client_id="first"), source(broker, "second", client_id="second")]
        elsewhere = MqttSource("elsewhere", "#", Broker("mqtt://192.0.2.1"))  # not allowed, so that it takes no room
        async with (
            serving(nats, tmp_path, max_count=1) as first,
            serving(nats, tmp_path, "worker-1", max_count=1) as second,
        ):
            for each in (first, second):
                each.follow(demo=sources, acme=[elsewhere])

            async def told() -> bool:
                states = [each.brokers.states().get("demo", {}) for each in (first, second)]
                return [[state.status for state in of_worker.values()] for of_worker in states] == [["connected"]] * 2

            assert await eventually(told, "each serves one, and leaves none out")
            assert first.brokers.states()["acme"]["elsewhere"].reason == "host_not_allowed"

    async def test_that_the_operator_does_not_allow_are_not_connected_to(
        self, nats: NatsSettings, broker: MqttBroker, tmp_path: Path
    ) -> None:
        async with serving(nats, tmp_path, allowed_hosts=["*:*"]) as it:
            it.follow(demo=[source(broker)])
            refused = await it.reaches("failed", "host_not_allowed")
            assert "leads to no public address" in refused.detail
        async with serving(nats, tmp_path, allowed_hosts=[]) as it:
            it.follow(demo=[source(broker)])
            refused = await it.reaches("failed", "host_not_allowed")
            assert "no broker outside is allowed" in refused.detail


class TestSession:
    async def test_goes_on_with_another_worker_and_stores_once_what_was_not_acknowledged(
        self, nats: NatsSettings, broker: MqttBroker, tmp_path: Path
    ) -> None:
        async with serving(nats, tmp_path) as first:
            first.follow(demo=[source(broker)])
            await first.reaches("connected")
            await publish(broker, *[("tele/a", b"%d" % number) for number in range(20)])
            await first.stores({"ingest/v1/demo/house/tele/a"})
        await publish(broker, *[("tele/b", b"%d" % number) for number in range(20)])  # the broker keeps the session
        async with serving(nats, tmp_path, "worker-1") as second:
            second.follow(demo=[source(broker)])
            await publish(broker, ("tele/last", b"1"))
            stored = await second.stores({"ingest/v1/demo/house/tele/last"})
        payloads = sorted((message.topic[-1], int(message.payload)) for message in stored if message.topic[-2] == "/")
        assert payloads == [(topic, number) for topic in "ab" for number in range(20)]

    async def test_that_changes_while_messages_are_on_their_way_stores_each_once(
        self, nats: NatsSettings, broker: MqttBroker, tmp_path: Path
    ) -> None:
        changes = [("house", "3.1.1"), ("renamed", "5"), ("renamed", "3.1.1"), ("house", "5")]
        async with serving(nats, tmp_path) as it:
            it.follow(demo=[source(broker)])
            await it.reaches("connected")
            for round_, (name, version) in enumerate(changes):
                messages = [("tele/a", b"%d" % (round_ * 300 + number)) for number in range(300)]
                publishing = asyncio.create_task(publish(broker, *messages))
                it.follow(demo=[source(broker, name, version=version)])
                await publishing
            await publish(broker, ("tele/last", b"1"))
            stored = await it.stores({"ingest/v1/demo/house/tele/last"})
        numbers = sorted(int(message.payload) for message in stored if message.topic.endswith("/a"))
        assert numbers == list(range(1200))

    async def test_is_served_by_one_of_two_workers(
        self, nats: NatsSettings, broker: MqttBroker, tmp_path: Path
    ) -> None:
        async with serving(nats, tmp_path) as first, serving(nats, tmp_path, "worker-1") as second:
            for each in (first, second):
                each.follow(demo=[source(broker)])

            async def told() -> list[str]:
                states = [each.state() for each in (first, second)]
                found: list[str] = [state.status for state in states if state is not None]
                return found if "connected" in found else []

            assert await eventually(told, "one serves it") == ["connected"]

    async def test_of_a_deleted_source_is_forgotten_by_the_broker(
        self, nats: NatsSettings, broker: MqttBroker, tmp_path: Path
    ) -> None:
        for version in ("5", "3.1.1"):
            async with serving(nats, tmp_path) as it:
                it.follow(demo=[source(broker, version=version, client_id=f"v{version}")])
                await it.reaches("connected")
                it.follow(demo=[])
                await eventually(lambda: _is(it.state() is None), "it is served no longer")
                await eventually(lambda: _is(not list(it.brokers.statuses())), "it has ended")
                await publish(broker, ("tele/late", b"1"))
                it.follow(demo=[source(broker, version=version, client_id=f"v{version}")])
                await it.reaches("connected")
                await publish(broker, (f"tele/{version}", b"2"))
                stored = await it.stores({f"ingest/v1/demo/house/tele/{version}"})
                assert "ingest/v1/demo/house/tele/late" not in {message.topic for message in stored}


class TestTls:
    async def test_trusts_the_authority_of_the_credential_and_presents_its_certificate(
        self, nats: NatsSettings, authority: Authority, tmp_path: Path
    ) -> None:
        server = authority.certificate("localhost", 30)
        access = [
            f"cafile {authority.root.file}", f"certfile {server.file}", f"keyfile {server.key}",
            "require_certificate true", "use_identity_as_username true", "allow_anonymous true",
        ]  # fmt: skip
        with mosquitto(access=access) as broker:
            async with serving(nats, tmp_path, allowed_hosts=["localhost:*"]) as it:
                own = Broker(f"mqtts://localhost:{broker.port}", credential="tls")
                it.follow(demo=[MqttSource("house", "tele/#", own)])
                credential(tmp_path, "demo", "tls", username="sens")
                distrusted = await it.reaches("failed", "tls_error")
                assert "TLS fails: self-signed certificate in certificate chain" in distrusted.detail
                client = authority.certificate("sens", 30, usage="clientAuth")
                root = authority.root.file.read_text()
                credential(tmp_path, "demo", "tls", ca_crt=root, tls_crt=client.file.read_text())
                halved = await it.reaches("failed", "credential_missing")
                assert halved.detail.endswith("tls.key is missing")
                credential(tmp_path, "demo", "tls", tls_key=client.key.read_text())
                await it.reaches("connected")


class TestWorker:
    async def test_that_is_killed_again_and_again_stores_once_what_each_broker_was_acknowledged(
        self, nats: NatsSettings, broker: MqttBroker, tmp_path: Path
    ) -> None:
        assert nats.password is not None
        environment = {
            "SENS_NATS__URL": nats.url,
            "SENS_NATS__USER": INGESTION_USER,
            "SENS_NATS__PASSWORD": nats.password.get_secret_value(),
            "SENS_BROKERS__ALLOWED_HOSTS": f'["{HOST}:*"]',
        }
        with mosquitto() as platform, mosquitto() as another:
            environment["SENS_MQTT__URL"] = f"mqtt://{HOST}:{platform.port}"
            sources = (
                MqttSource("platform", "tele/#"),
                source(broker, "first"),
                source(another, "second", version="3.1.1"),
            )
            worker = Worker("sens_mqtt_ingestion_worker", environment, free_port(), tmp_path / "log")
            async with connect(nats, "test") as client:
                await LimitsBucket(client).bring_to({"demo": TenantLimits(mqtt_sources=sources)})

                async def connected() -> bool:
                    try:
                        states = await SourceStates(client).of("demo")
                    except UnavailableError:  # no answer in a second, on a machine with much else to do
                        return False
                    return [state.status for state in states.values()] == ["connected"] * 3

                async def last_is_stored() -> bool:
                    topics = {message.topic for message in await stored(client)}
                    return topics >= {f"ingest/v1/demo/{each.name}/tele/last" for each in sources}

                worker.start()
                try:
                    await eventually(connected, "each source is connected", 60)
                    for round_ in range(3):
                        messages = [("tele/a", b"%d" % (round_ * 200 + number)) for number in range(200)]
                        publishing = [
                            asyncio.create_task(publish(each, *messages)) for each in (platform, broker, another)
                        ]
                        await asyncio.to_thread(worker.stop, signal.SIGKILL)
                        await asyncio.gather(*publishing)
                        worker.start()
                    for each in (platform, broker, another):
                        await publish(each, ("tele/last", b"1"))
                    await eventually(last_is_stored, "everything is stored", 60)
                finally:
                    await asyncio.to_thread(worker.stop, signal.SIGKILL)
                numbers: dict[str, list[int]] = {}
                for message in await stored(client):
                    if message.topic.endswith("/a"):
                        numbers.setdefault(message.topic, []).append(int(message.payload))
        assert {topic: sorted(found) for topic, found in numbers.items()} == {
            f"ingest/v1/demo/{each.name}/tele/a": list(range(600)) for each in sources
        }


async def _is(condition: bool) -> bool:
    return condition


@contextlib.asynccontextmanager
async def hostile() -> AsyncIterator[int]:
    """A broker that accepts everybody, sends what nobody subscribed to under the topics of others, and then garbage."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            await reader.read(4096)
            packets = [mqtt5.PublishPacket(topic, b"{}").write() for topic in SPOOFED]
            writer.write(mqtt5.ConnAckPacket().write() + b"".join(packets) + b"\xff" * 4096)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, HOST, 0)
    async with server:
        yield int(server.sockets[0].getsockname()[1])
