"""What each service's user may do on a real NATS server, and what not; the services themselves run as these users in all tests."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from nats.aio.client import Client
from nats.js.api import KeyValueConfig
from nats.js.errors import KeyNotFoundError
from structlog.testing import capture_logs

from sens_common.ingestion.limits import LimitsBucket
from sens_common.ingestion.rates import Rates
from sens_common.ingestion.states import StatesBucket, ensure_bucket
from sens_common.jetstream import connect, ensure_streams, flush_all
from sens_common.names import (
    LIVE_INTEREST_SUBJECT,
    LIVE_SUBJECT,
    TELEMETRY_CONSUMER,
    TELEMETRY_STREAM,
    TELEMETRY_SUBJECT,
)
from sens_common.nats_permissions import API_USER, HTTP_INGESTION_USER, INGESTION_USER, PERMISSIONS, TELEMETRY_USER
from sens_common.settings import NatsSettings
from sens_common.source_states import SourceState, lease_subject, state_subject
from sens_common.tenant_limits import BUCKET
from sens_mqtt_ingestion_worker.leases import Leases
from sens_mqtt_ingestion_worker.sessions import SessionRecord
from sens_platform_api.sources.jetstream import SourceStates
from sens_telemetry_worker.jetstream.consumer import ensure_consumer

SERVICES = sorted(PERMISSIONS)


@asynccontextmanager
async def client_of(nats: NatsSettings, user: str) -> AsyncIterator[Client]:
    """Connect as a service does."""
    async with connect(nats.model_copy(update={"user": user}), user) as client:
        yield client


async def refused(client: Client, act: Callable[[str], Awaitable[object]], *subjects: str) -> list[str]:
    """Do something on all subjects; return those on which the server says that this user may not."""
    with capture_logs() as logs:
        for subject in subjects:
            await act(subject)
        await flush_all(client)
    told = [str(entry["error"]) for entry in logs if "error" in entry]  # in lower case, as the driver gives it
    return [subject for subject in subjects if any(f'"{subject.lower()}"' in text for text in told)]


async def not_published(client: Client, *subjects: str) -> list[str]:
    """Return the subjects on which this user may not publish."""
    return await refused(client, lambda subject: client.publish(subject, b"{}"), *subjects)


async def run[T](nats: NatsSettings, user: str, work: Callable[[Client], Awaitable[T]]) -> T:
    """Let the telemetry worker prepare the streams, and do something as a user."""

    async with client_of(nats, TELEMETRY_USER) as client:
        await ensure_consumer(client, nats)
    async with client_of(nats, user) as client:
        return await work(client)


DESTRUCTIVE = [
    f"$JS.API.STREAM.DELETE.{TELEMETRY_STREAM}",
    f"$JS.API.STREAM.UPDATE.{TELEMETRY_STREAM}",
    f"$JS.API.STREAM.MSG.DELETE.{TELEMETRY_STREAM}",
    f"$JS.API.CONSUMER.DELETE.{TELEMETRY_STREAM}.{TELEMETRY_CONSUMER}",
    "$JS.API.STREAM.CREATE.ANOTHER",
    "$JS.API.STREAM.NAMES",
    "anything.else",
]
PURGE = f"$JS.API.STREAM.PURGE.{TELEMETRY_STREAM}"
CONSUMING = [
    f"$JS.API.CONSUMER.MSG.NEXT.{TELEMETRY_STREAM}.{TELEMETRY_CONSUMER}",
    f"$JS.API.CONSUMER.CREATE.{TELEMETRY_STREAM}.{TELEMETRY_CONSUMER}",
    f"$JS.API.CONSUMER.CREATE.{TELEMETRY_STREAM}.{TELEMETRY_CONSUMER}.{TELEMETRY_SUBJECT}.>",
    f"$JS.API.CONSUMER.DURABLE.CREATE.{TELEMETRY_STREAM}.{TELEMETRY_CONSUMER}",
    f"$JS.ACK.{TELEMETRY_STREAM}.{TELEMETRY_CONSUMER}.1.1.1.1.1",
]


class TestEveryService:
    @pytest.mark.parametrize("user", SERVICES)
    async def test_can_neither_remove_nor_change_the_log_nor_make_streams(self, nats: NatsSettings, user: str) -> None:
        async def attempt(client: Client) -> list[str]:
            return await not_published(client, *DESTRUCTIVE)

        assert await run(nats, user, attempt) == DESTRUCTIVE

    @pytest.mark.parametrize("user", SERVICES)
    async def test_reads_no_other_ones_answers_and_not_the_log_itself(self, nats: NatsSettings, user: str) -> None:
        subjects = [f"_INBOX.{other}.>" for other in SERVICES if other != user] + ["_INBOX.>", "sens.>", "$JS.>", ">"]

        async def listen(client: Client) -> list[str]:
            return await refused(client, client.subscribe, *subjects)

        assert await run(nats, user, listen) == subjects


class TestTheApi:
    async def test_can_neither_purge_nor_consume_nor_write_as_a_session(self, nats: NatsSettings) -> None:
        forbidden = [PURGE, *CONSUMING, f"{TELEMETRY_SUBJECT}.sens-0", f"{LIVE_SUBJECT}.demo"]

        async def attempt(client: Client) -> list[str]:
            return await not_published(client, *forbidden)

        assert await run(nats, API_USER, attempt) == forbidden

    async def test_replays_reads_single_envelopes_and_asks_for_live_readings(self, nats: NatsSettings) -> None:
        async def work(client: Client) -> bytes | None:
            jetstream = client.jetstream()
            stored = await jetstream.publish(f"{TELEMETRY_SUBJECT}.replay", b"x", stream=TELEMETRY_STREAM)
            await client.subscribe(f"{LIVE_SUBJECT}.demo")
            assert await not_published(client, LIVE_INTEREST_SUBJECT) == []
            assert (await jetstream.stream_info(TELEMETRY_STREAM)).state.messages == 1
            assert (await jetstream.consumer_info(TELEMETRY_STREAM, TELEMETRY_CONSUMER)).num_pending == 1
            await jetstream.get_msg(TELEMETRY_STREAM, seq=stored.seq)
            return (await jetstream.get_msg(TELEMETRY_STREAM, seq=stored.seq, direct=True)).data

        assert await run(nats, API_USER, work) == b"x"

    async def test_keeps_the_tenants_limits_for_the_ingestion_to_watch(self, nats: NatsSettings) -> None:
        async def write(client: Client) -> list[str]:
            bucket = await client.jetstream().create_key_value(KeyValueConfig(bucket=BUCKET))
            await bucket.put("demo", b"1")
            await bucket.put("gone", b"2")
            await bucket.delete("gone")
            return sorted(await bucket.keys())

        async def read(client: Client) -> tuple[bytes | None, list[str]]:
            bucket = await client.jetstream().key_value(BUCKET)
            with pytest.raises(KeyNotFoundError):
                await bucket.get("gone")
            watcher = await bucket.watchall()
            seen = [await watcher.updates(timeout=5)]  # type: ignore[no-untyped-call]  # the library has no types here
            unwritable = await not_published(client, f"$KV.{BUCKET}.demo", f"$JS.API.STREAM.DELETE.KV_{BUCKET}")
            await watcher.stop()  # type: ignore[no-untyped-call]  # same
            assert seen[0] is not None
            assert seen[0].key == "demo"
            return (await bucket.get("demo")).value, unwritable

        assert await run(nats, API_USER, write) == ["demo"]
        assert await run(nats, INGESTION_USER, read) == (
            b"1",
            [f"$KV.{BUCKET}.demo", f"$JS.API.STREAM.DELETE.KV_{BUCKET}"],
        )


class TestTheIngestion:
    async def test_reads_the_tenants_limits(self, nats: NatsSettings) -> None:
        async def write(client: Client) -> None:
            bucket = await client.jetstream().create_key_value(KeyValueConfig(bucket=BUCKET))
            await bucket.put("demo", b'{"messages_per_second": 5}')

        async def read(client: Client) -> str | None:
            limits = LimitsBucket(client.jetstream(), Rates())
            await limits._read()
            return await limits.check()

        await run(nats, API_USER, write)
        assert await run(nats, INGESTION_USER, read) is None

    async def test_takes_nothing_from_the_telemetry_workers(self, nats: NatsSettings) -> None:
        async def attempt(client: Client) -> list[str]:
            return await not_published(client, PURGE, *CONSUMING)

        assert await run(nats, INGESTION_USER, attempt) == [PURGE, *CONSUMING]

    async def test_makes_the_streams_where_they_are_missing(self, nats: NatsSettings) -> None:
        async with client_of(nats, INGESTION_USER) as client:
            await ensure_streams(client.jetstream(), nats)
            assert ((await client.jetstream().stream_info(TELEMETRY_STREAM)).config).subjects == [
                f"{TELEMETRY_SUBJECT}.>"
            ]

    async def test_keeps_what_its_sessions_are_subscribed_to(self, nats: NatsSettings) -> None:
        filters = frozenset({"sens/v1/+/+/telemetry"})

        async with client_of(nats, INGESTION_USER) as client:
            record = SessionRecord(client.jetstream(), nats, "one", "mqtt://a:1")
            await record.save(filters)
            assert (await record.load()) == filters

    async def test_tells_how_sources_do_and_the_api_reads_it(self, nats: NatsSettings) -> None:
        states = {"demo": {"field": SourceState("connected", messages=1)}}

        async with client_of(nats, INGESTION_USER) as client:
            jetstream = client.jetstream()
            await ensure_bucket(jetstream, 1)
            await StatesBucket(jetstream, "one", [lambda: states], nats).tell()
            leases = Leases(jetstream, "one")
            assert [await leases.take("a"), await leases.renew("a")] == [True, True]
            assert not await Leases(jetstream, "two").take("a")
            await leases.release("a")
            assert await Leases(jetstream, "two").take("a")
        async with client_of(nats, API_USER) as client:
            assert await SourceStates(client).of("demo") == states["demo"]
            assert await SourceStates(client).of("other") == {}
            forbidden = [state_subject("one", "demo"), lease_subject("a")]
            assert await not_published(client, *forbidden) == forbidden


class TestTheHttpIngestion:
    async def test_tells_how_sources_do_and_takes_no_lease(self, nats: NatsSettings) -> None:
        states = {"demo": {"push": SourceState("connected", checks_token=True)}}
        async with client_of(nats, HTTP_INGESTION_USER) as client:
            jetstream = client.jetstream()
            await ensure_bucket(jetstream, 1)
            await StatesBucket(jetstream, "http", [lambda: states], nats).tell()
            assert await not_published(client, lease_subject("a")) == [lease_subject("a")]
        async with client_of(nats, API_USER) as client:
            assert await SourceStates(client).of("demo") == states["demo"]


class TestTheTelemetryWorker:
    async def test_writes_nothing_into_the_log_but_replays(self, nats: NatsSettings) -> None:
        forbidden = [f"{TELEMETRY_SUBJECT}.sens-0", f"$KV.{BUCKET}.demo"]

        async def attempt(client: Client) -> list[str]:
            return await not_published(client, *forbidden, f"{TELEMETRY_SUBJECT}.replay")

        assert await run(nats, TELEMETRY_USER, attempt) == forbidden

    async def test_reads_acknowledges_and_trims(self, nats: NatsSettings) -> None:
        async def fill(client: Client) -> None:
            await client.jetstream().publish(f"{TELEMETRY_SUBJECT}.sens-0", b"x", stream=TELEMETRY_STREAM)

        async def work(client: Client) -> tuple[int, int]:
            jetstream = client.jetstream()
            subscription = await jetstream.pull_subscribe_bind(TELEMETRY_CONSUMER, TELEMETRY_STREAM)
            (message,) = await subscription.fetch(1, timeout=5)
            await message.ack_sync()
            await jetstream.purge_stream(TELEMETRY_STREAM)
            consumer = await jetstream.consumer_info(TELEMETRY_STREAM, TELEMETRY_CONSUMER)
            return (await jetstream.stream_info(TELEMETRY_STREAM)).state.messages, consumer.num_ack_pending or 0

        await run(nats, INGESTION_USER, fill)
        assert await run(nats, TELEMETRY_USER, work) == (0, 0)


def test_every_subject_of_the_table_is_of_something_that_exists() -> None:
    """A wildcard at the wrong place would allow more than is meant."""
    for user, may in PERMISSIONS.items():
        for subject in (*may.publish, *may.subscribe):
            assert not subject.startswith((">", "*")), (user, subject)
            assert subject not in {"$JS.>", "$JS.API.>", "$JS.API.STREAM.>", "sens.>", "_INBOX.>"}, (user, subject)
    assert json.dumps(PERMISSIONS)
