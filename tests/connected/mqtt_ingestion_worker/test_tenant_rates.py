"""Messages a second of each tenant: from the bucket that the platform writes to what is stored, discarded and counted."""

import asyncio
import signal
from collections import Counter
from collections.abc import Coroutine, Mapping

from nats.aio.client import Client
from nats.js.api import AckPolicy, ConsumerConfig, KeyValueConfig

from sens_common import envelope, tenant_limits
from sens_common.envelope import Message
from sens_common.ingestion.clock import ReceiptClock, time_slot
from sens_common.ingestion.limits import LimitsBucket
from sens_common.ingestion.rates import Rates
from sens_common.jetstream import connect, ensure_streams
from sens_common.names import TELEMETRY_STREAM
from sens_common.settings import DatabaseSettings, NatsSettings
from sens_mqtt_ingestion_worker.jetstream import JetStreamPublisher
from support.brokers import mosquitto
from support.clocks import Clock
from support.servers import nats_server, scratch_folder, wait_until
from support.workers import Publisher, running_path


async def run[T](work: Coroutine[None, None, T]) -> T:
    async with asyncio.timeout(60):
        return await work


async def write(client: Client, limits: Mapping[str, bytes | None]) -> None:
    """Write the bucket as the API does; None deletes a key."""
    bucket = await client.jetstream().create_key_value(KeyValueConfig(tenant_limits.BUCKET))
    for tenant, value in limits.items():
        if value is None:
            await bucket.delete(tenant_limits.key(tenant))
        else:
            await bucket.put(tenant_limits.key(tenant), value)


def rate(messages_per_second: int | None) -> bytes:
    return tenant_limits.encode(tenant_limits.TenantLimits(messages_per_second))


def let_through(rates: Rates, tenant: str) -> int:
    """Return how many of a thousand messages are not over the rate."""
    messages = [Message(f"sens/v1/{tenant}/d1/telemetry", b"", 1)] * 1000
    return 1000 - len(rates.over(messages))


class TestLimits:
    async def test_are_those_of_the_bucket_as_it_changes(self, nats: NatsSettings) -> None:
        async def work() -> None:
            async with connect(nats, "test") as client:
                rates = Rates(lambda: 0.0)
                limits = LimitsBucket(client.jetstream(), rates)
                await limits.read()
                assert await limits.check() is None
                assert let_through(rates, "plant.north") == 1000

                await write(client, {"plant.north": rate(10), "other": rate(None)})
                await limits.read()
                assert let_through(rates, "plant.north") == 10
                assert rates.tenants == {"plant.north", "other"}

                await write(client, {"plant.north": None, "other": rate(7)})
                await limits.read()
                assert let_through(rates, "plant.north") == 1000
                assert let_through(rates, "other") == 7
                assert rates.tenants == {"other"}

        await run(work())

    async def test_of_hundreds_of_tenants_are_read(self, nats: NatsSettings) -> None:
        async def work() -> int:
            async with connect(nats, "test") as client:
                rates = Rates()
                await write(client, {f"tenant-{number}": rate(number) for number in range(600)})
                await LimitsBucket(client.jetstream(), rates).read()
                return len(rates.tenants)

        assert await run(work()) == 600

    async def test_that_were_known_last_hold_while_the_bucket_or_nats_is_away(self) -> None:
        clock = Clock()

        async def work(nats: NatsSettings, client: Client) -> LimitsBucket:
            rates = Rates(lambda: 0.0)
            limits = LimitsBucket(client.jetstream(timeout=1), rates, clock=clock)
            await write(client, {"demo": rate(10), "other": rate(5)})
            await limits.read()
            await client.jetstream().delete_key_value(tenant_limits.BUCKET)
            await limits.read()
            assert await limits.check() is None
            assert let_through(rates, "demo") == 10
            await client.close()
            await limits.read()
            clock.now += 11
            assert let_through(rates, "other") == 5
            return limits

        async def connected() -> str | None:
            with scratch_folder("sens-nats-") as folder, nats_server(folder) as nats:
                async with connect(nats, "test") as client:
                    return await (await work(nats, client)).check()

        assert "the tenants' limits were last read 11 s ago, and those hold: nats: connection closed" in (
            await run(connected()) or ""
        )

    async def test_that_can_not_be_understood_are_told_and_the_others_hold(self, nats: NatsSettings) -> None:
        async def work() -> None:
            async with connect(nats, "test") as client:
                rates = Rates(lambda: 0.0)
                limits = LimitsBucket(client.jetstream(), rates)
                await write(client, {"demo": b"ten", "other": rate(5)})
                await limits.read()
                assert "the limits of tenant demo can't be understood" in (await limits.check() or "")
                assert (let_through(rates, "demo"), let_through(rates, "other")) == (1000, 5)
                await write(client, {"demo": rate(10)})
                await limits.read()
                assert await limits.check() is None
                assert let_through(rates, "demo") == 10
                await write(client, {"demo": b"ten"})
                await limits.read()
                assert "can't be understood, and those before hold" in (await limits.check() or "")
                assert let_through(rates, "demo") == 0  # its tokens are used, and nobody took its rate away

        await run(work())


async def envelopes(client: Client) -> list[tuple[dict[str, str], bytes]]:
    """Return headers and body of every envelope in the log."""
    jetstream = client.jetstream()
    state = (await jetstream.stream_info(TELEMETRY_STREAM)).state
    subscription = await jetstream.pull_subscribe(
        "sens.telemetry.>", stream=TELEMETRY_STREAM, config=ConsumerConfig(ack_policy=AckPolicy.NONE)
    )
    found: list[tuple[dict[str, str], bytes]] = []
    while len(found) < state.messages:
        found += [(dict(each.headers or {}), each.data) for each in await subscription.fetch(256)]
    return found


def counted(found: list[tuple[dict[str, str], bytes]], header: str) -> Counter[str]:
    total: Counter[str] = Counter()
    for headers, _body in found:
        total.update(envelope.decode_counts(headers.get(header, "{}")))
    return total


class TestEnvelopes:
    async def publish(
        self, nats: NatsSettings, messages: list[Message], discarded: dict[int, str], tenants: set[str]
    ) -> tuple[list[tuple[dict[str, str], bytes]], list[Message]]:
        """Publish, and return the envelopes and the tail."""

        async def work() -> tuple[list[tuple[dict[str, str], bytes]], list[Message]]:
            async with connect(nats, "test") as client:
                await ensure_streams(client.jetstream(), nats)
                rates = Rates()
                rates.set(dict.fromkeys(tenants, 1))
                log = JetStreamPublisher(
                    client.jetstream(),
                    nats,
                    "w",
                    ReceiptClock(time_slot("w")),
                    rates,
                    receive_max=10_000,
                    max_payload_bytes=client.max_payload,
                )
                await log.publish(messages, discarded)
                return await envelopes(client), await log.tail(40_000)

        return await run(work())

    async def test_count_what_was_discarded_and_mark_what_may_come_again(self, nats: NatsSettings) -> None:
        messages = [Message("sens/v1/demo/d1/telemetry", b"%d" % number, number, number) for number in range(4)]
        [(headers, body)], tail = await self.publish(nats, messages, {0: "demo", 2: "demo"}, {"demo"})
        assert headers[envelope.COUNT_HEADER] == "2"
        assert envelope.decode_counts(headers[envelope.RECEIVED_HEADER]) == {"demo": 4}
        assert envelope.decode_counts(headers[envelope.DISCARDED_HEADER]) == {"demo": 2}
        assert envelope.decode(body) == [messages[1], messages[3]]
        assert tail == [messages[1], envelope.mark(messages[2]), messages[3]]

    async def test_hold_no_message_when_all_were_discarded(self, nats: NatsSettings) -> None:
        messages = [Message("sens/v1/demo/d1/telemetry", b"{}", number, number) for number in range(1, 4)]
        [(headers, body)], tail = await self.publish(nats, messages, dict.fromkeys(range(3), "demo"), {"demo"})
        assert envelope.decode(body) == []
        assert headers[envelope.COUNT_HEADER] == "0"
        assert tail == [envelope.mark(message) for message in messages]

    async def test_are_as_many_as_the_names_of_all_tenants_need(self, nats: NatsSettings) -> None:
        """Names that somebody made up share a number; those of tenants are counted one by one."""
        tenants = {f"{'tenant-' * 8}{number}" for number in range(700)}
        made_up = {f"{'made-up-' * 7}{number}" for number in range(700)}
        topics = [f"sens/v1/{tenant}/d1/telemetry" for tenant in sorted(tenants | made_up)] * 2
        messages = [Message(topic, b"{}", number, number) for number, topic in enumerate(topics, 1)]
        discarded = {
            index: message.topic.split("/")[2]
            for index, message in enumerate(messages)
            if index >= 1400 and message.topic.split("/")[2] in tenants
        }
        found, _tail = await self.publish(nats, messages, discarded, tenants)
        received, over = counted(found, envelope.RECEIVED_HEADER), counted(found, envelope.DISCARDED_HEADER)
        assert received.total() == 2800
        assert all(received[tenant] == 2 for tenant in tenants)
        assert over == dict.fromkeys(tenants, 1)
        assert received["~"] > 500
        assert [message for _, body in found for message in envelope.decode(body)] == [
            message for index, message in enumerate(messages) if index not in discarded
        ]


class TestWorker:
    def test_discards_one_tenants_messages_over_its_rate_and_counts_them_once_through_a_kill(
        self, nats: NatsSettings, database: DatabaseSettings
    ) -> None:
        with mosquitto() as broker, running_path(broker, nats, database) as path:

            async def limited() -> None:
                async with connect(nats, "test") as client:
                    await write(client, {"noisy": rate(20), "silent": rate(0), "demo": rate(None)})

            asyncio.run(run(limited()))
            path.fetch("INSERT INTO sens.tenants (name) VALUES ('noisy')")
            sample = "sens_ingestion_messages_discarded_total"
            with Publisher(broker) as publisher:

                def load(first: int, count: int) -> None:
                    publisher.publish_all(
                        [
                            (f"sens/v1/{tenant}/d1/telemetry", b'{"n": %d}' % number)
                            for number in range(first, first + count)
                            for tenant in ("noisy", "demo")
                        ]
                    )

                def discards() -> bool:
                    load(0, 100)
                    return path.ingestion.metric(sample) > 0

                wait_until(discards, "the limit holds")
                flow = path.ingestion.get("/readyz")
                load(1000, 1000)
                path.ingestion.stop(signal.SIGKILL)
                load(2000, 500)
                path.ingestion.start()
                load(2500, 500)
                path.wait_until_idle()
                before = path.ingestion.metric(sample)
                publisher.publish("sens/v1/silent/d1/telemetry", "{}")
                wait_until(lambda: path.ingestion.metric(sample) > before, "it is discarded alone")
                path.wait_until_idle()
                assert path.ingestion.get("/readyz")[0] == 200
                sent = Counter(topic.split("/")[2] for topic, _ in publisher.acknowledged)
            assert flow[0] == 200
            assert "discards what is over the rate of noisy" in flow[1]

            async def log() -> list[tuple[dict[str, str], bytes]]:
                async with connect(nats, "test") as client:
                    return await envelopes(client)

            found = asyncio.run(run(log()))
            received, discarded = counted(found, envelope.RECEIVED_HEADER), counted(found, envelope.DISCARDED_HEADER)
            stored = Counter(
                {
                    row["name"]: row["count"]
                    for row in path.fetch_stored(
                        "SELECT tenant AS name, count(*) FROM stored_values WHERE device = 'd1' GROUP BY tenant"
                    )
                }
            )
            assert stored["demo"] == sent["demo"]
            assert received["noisy"] == sent["noisy"] == stored["noisy"] + discarded["noisy"]
            [account] = path.fetch(
                """
                SELECT sum(received)::int AS received, sum(discarded)::int AS discarded, sum(unaccounted)::int AS unaccounted
                FROM sens.conservation() c JOIN sens.tenants t ON t.id = c.tenant_id WHERE t.name = 'noisy'
                """
            )
            assert dict(account) == {"received": sent["noisy"], "discarded": discarded["noisy"], "unaccounted": 0}
            assert discarded.keys() == {"noisy", "silent"}
            assert received["silent"] == discarded["silent"] == 1
            assert [] in [envelope.decode(body) for _, body in found]
