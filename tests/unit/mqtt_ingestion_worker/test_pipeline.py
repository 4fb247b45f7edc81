"""The ingestion pipeline between a broker and a stream in memory."""

import asyncio
import time

from prometheus_client import REGISTRY

from sens_common.attempts import Backoff
from sens_common.envelope import Message
from sens_common.ingestion.rates import Rates
from sens_mqtt_ingestion_worker.pipeline import Delivery, Pipeline, SessionTakenError, SourceUnavailableError
from sens_mqtt_ingestion_worker.status import IngestionStatus
from support.memory import MemoryConnection, MemorySource, MemoryStream
from support.servers import eventually

AT_ONCE = Backoff(0.001, 0.001, stable_seconds=0.05)


def message(packet_id: int) -> Message:
    return Message("t", b"%d" % packet_id, 0, packet_id)


def gauge(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(f"sens_ingestion_{name}", labels) or 0


def delivery(*packet_ids: int) -> Delivery:
    return Delivery([message(packet_id) for packet_id in packet_ids], frozenset())


async def run(stream: MemoryStream, *connections: MemoryConnection, rates: Rates | None = None) -> Pipeline:
    stop = asyncio.Event()
    pipeline = Pipeline(
        MemorySource(connections, stop), stream, IngestionStatus(), rates or Rates(), receive_max=10, backoff=AT_ONCE
    )
    await pipeline.run(stop)
    return pipeline


class TestMessages:
    async def test_are_published_in_order_and_then_acknowledged(self) -> None:
        stream = MemoryStream()
        connection = MemoryConnection([delivery(1, 2), delivery(3)], session_present=False, ends=True)
        await run(stream, connection)
        assert stream.kept == connection.acknowledged == [message(1), message(2), message(3)]

    async def test_delivered_again_after_a_lost_connection_are_published_once_and_acknowledged(self) -> None:
        stream = MemoryStream()
        first = MemoryConnection([delivery(1, 2)], session_present=False, ends=True)
        second = MemoryConnection([delivery(1, 2, 3)], session_present=True, ends=True)
        await run(stream, first, second)
        assert stream.kept == [message(1), message(2), message(3)]
        assert second.acknowledged == [message(1), message(2), message(3)]

    async def test_that_repeat_earlier_ones_are_published_once_the_broker_has_sent_all_that_it_had(self) -> None:
        stream = MemoryStream([message(1), message(2)])
        late = delivery(2)._replace(caught_up=True)
        await run(stream, MemoryConnection([delivery(1), late], session_present=True, ends=True))
        assert stream.kept == [message(1), message(2), message(2)]

    async def test_published_before_a_restart_are_recognised_by_the_streams_tail(self) -> None:
        stream = MemoryStream([message(1), message(2)])
        connection = MemoryConnection([delivery(2, 3)], session_present=True, ends=True)
        await run(stream, connection)
        assert stream.kept == [message(1), message(2), message(3)]

    async def test_that_another_process_has_published_meanwhile_are_published_once(self) -> None:
        stream = MemoryStream()

        class Frozen(MemoryConnection):
            async def receive(self) -> Delivery:
                received = await super().receive()
                stream.kept += received.messages  # a successor was sent the same messages while this worker stood still
                return received

        frozen = Frozen([delivery(1, 2)], session_present=True, ends=True)
        resumed = MemoryConnection([delivery(2, 3)], session_present=True, ends=True)
        await run(stream, frozen, resumed)
        assert stream.kept == [message(1), message(2), message(3)]
        assert (frozen.acknowledged, resumed.acknowledged) == ([], [message(2), message(3)])

    async def test_of_qos_0_are_published(self) -> None:
        stream = MemoryStream()
        await run(stream, MemoryConnection([delivery(0, 0)], session_present=False, ends=True))
        assert stream.kept == [message(0), message(0)]


class TestRate:
    """A tenant's messages over its rate are acknowledged, and discarded in a way that counts and remembers them."""

    @staticmethod
    def of(tenant: str, *packet_ids: int) -> Delivery:
        return Delivery(
            [Message(f"sens/v1/{tenant}/d1/telemetry", b"%d" % number, 0, number) for number in packet_ids], frozenset()
        )

    @staticmethod
    def rates() -> Rates:
        rates = Rates(lambda: 0.0)
        rates.set({"demo": 2})
        return rates

    async def test_discards_what_is_over_it_of_that_tenant_alone(self) -> None:
        stream = MemoryStream([Message("t", b"", int(time.time() * 1e6), 99)])
        connection = MemoryConnection(
            [self.of("demo", 1, 2, 3), self.of("other", 4, 5, 6)], session_present=False, ends=True
        )
        discarded = gauge("messages_discarded_total", tenant="demo")
        await run(stream, connection, rates=self.rates())
        assert [message.packet_id for message in stream.kept] == [99, 1, 2, -3, 4, 5, 6]
        assert [message.packet_id for message in connection.acknowledged] == [1, 2, 3, 4, 5, 6]
        assert gauge("messages_discarded_total", tenant="demo") == discarded + 1

    async def test_counts_nothing_again_that_the_broker_sends_again(self) -> None:
        stream = MemoryStream([Message("t", b"", int(time.time() * 1e6), 99)])
        connection = MemoryConnection([self.of("demo", 1, 2, 3, 4)], session_present=False, ends=True)
        await run(stream, connection, rates=self.rates())
        # Killed between the stream's acknowledgement and the broker's: another process knows only what the stream has.
        again = MemoryConnection([self.of("demo", 1, 2, 3, 4), self.of("other", 5)], session_present=True, ends=True)
        discarded = gauge("messages_discarded_total", tenant="demo")
        await run(stream, again, rates=self.rates())
        assert [message.packet_id for message in stream.kept] == [99, 1, 2, -3, -4, 5]
        assert gauge("messages_discarded_total", tenant="demo") == discarded

    async def test_does_not_count_against_a_tenant_while_the_worker_was_away(self) -> None:
        stream = MemoryStream([Message("t", b"", int((time.time() - 60) * 1e6), 99)])
        await run(
            stream,
            MemoryConnection([self.of("demo", *range(1, 98))], session_present=True, ends=True),
            rates=self.rates(),
        )
        assert [message.packet_id for message in stream.kept] == [99, *range(1, 98)]

    async def test_counts_against_a_tenant_in_a_new_session_in_which_nothing_can_have_waited(self) -> None:
        stream = MemoryStream()
        await run(
            stream, MemoryConnection([self.of("demo", 1, 2, 3)], session_present=False, ends=True), rates=self.rates()
        )
        assert [message.packet_id for message in stream.kept] == [1, 2, -3]


class TestStop:
    async def test_ends_the_wait_for_messages(self) -> None:
        stop = asyncio.Event()
        connection = MemoryConnection([], session_present=False, ends=False)
        running = asyncio.create_task(
            Pipeline(MemorySource([connection], stop), MemoryStream(), IngestionStatus(), Rates(), receive_max=1).run(
                stop
            )
        )
        await asyncio.sleep(0)
        stop.set()
        await asyncio.wait_for(running, 5)


class TestProblem:
    async def test_says_why_there_is_no_connection(self) -> None:
        assert (await run(MemoryStream())).problems.problem == "there is no broker"

    async def test_of_a_session_that_another_process_uses_stays_until_a_connection_lasts(
        self,
    ) -> None:
        """Two workers take it from each other, and each is connected for a moment: that hid it."""

        class Taken(MemoryConnection):
            async def receive(self) -> Delivery:
                seen.append(pipeline.problems.problem)
                raise SessionTakenError("session taken over")

        class Lasting(MemoryConnection):
            async def receive(self) -> Delivery:
                seen.append(pipeline.problems.problem)
                await eventually(well, "the problem is over")
                seen.append(pipeline.problems.problem)
                raise SourceUnavailableError("the end")

        async def well() -> bool:
            return pipeline.problems.problem is None

        seen: list[str | None] = []
        stop = asyncio.Event()
        connections = [kind([], session_present=True, ends=True) for kind in (Taken, Taken, Lasting)]
        pipeline = Pipeline(
            MemorySource(connections, stop), MemoryStream(), IngestionStatus(), Rates(), receive_max=10, backoff=AT_ONCE
        )
        await pipeline.run(stop)
        first, second, third, fourth = seen
        assert (first, fourth) == (None, None)
        assert second == third
        assert "another process has taken over this session" in (second or "")
