"""The MQTT session's bytes, without a network."""

import asyncio
import itertools

import mqtt5
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sens_common.envelope import Message
from sens_common.ingestion.clock import STEP, ReceiptClock, time_slot
from sens_mqtt_ingestion_worker.mqtt import MqttConnection
from sens_mqtt_ingestion_worker.pipeline import SessionTakenError, SourceUnavailableError
from sens_mqtt_ingestion_worker.settings import MqttSettings
from support.clocks import Machine


class RecordingTransport(asyncio.Transport):
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.reading = True
        self.closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = True

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True


def opened(receive_max: int = 100) -> tuple[MqttConnection, RecordingTransport]:
    connection = MqttConnection(MqttSettings(receive_max=receive_max), 1_000_000, ReceiptClock(time_slot("w")))
    transport = RecordingTransport()
    connection.connection_made(transport)
    return connection, transport


def publish(topic: str, payload: bytes, packet_id: int | None, *, duplicate: bool = False) -> bytes:
    qos = mqtt5.QoS.AT_LEAST_ONCE if packet_id else mqtt5.QoS.AT_MOST_ONCE
    return mqtt5.PublishPacket(topic, payload, qos=qos, packet_id=packet_id, duplicate=duplicate).write()


async def received(connection: MqttConnection) -> list[Message]:
    return (await connection.receive()).messages


@given(
    payloads=st.lists(st.tuples(st.binary(max_size=300), st.integers(0, 65_535)), min_size=1, max_size=20),
    cuts=st.lists(st.integers(1, 400), max_size=40),
)
def test_messages_are_the_same_however_the_bytes_are_cut(payloads: list[tuple[bytes, int]], cuts: list[int]) -> None:
    data = b"".join(publish("t", payload, packet_id or None) for payload, packet_id in payloads)
    connection, _ = opened()
    for cut in cuts:
        connection.data_received(data[:cut])
        data = data[cut:]
    connection.data_received(data)
    messages = asyncio.run(received(connection))
    assert [(message.payload, message.packet_id) for message in messages] == payloads
    times = [message.received_at for message in messages]
    assert all(later > earlier for earlier, later in itertools.pairwise(times))


@given(st.binary(max_size=200))
def test_any_bytes_end_the_connection_or_wait_for_more(data: bytes) -> None:
    connection, _ = opened()
    connection.data_received(data)


class TestAcknowledge:
    def test_writes_one_puback_for_each_message_of_qos_1(self) -> None:
        connection, transport = opened()
        connection.acknowledge([Message("t", b"", 0, 1), Message("t", b"", 0, 0), Message("t", b"", 0, 513)])
        assert transport.written == b"\x40\x02\x00\x01\x40\x02\x02\x01"
        assert transport.written == mqtt5.PubAckPacket(1).write() + mqtt5.PubAckPacket(513).write()

    def test_does_nothing_when_the_connection_has_ended(self) -> None:
        connection, transport = opened()
        connection.connection_lost(None)
        connection.acknowledge([Message("t", b"", 0, 1)])
        assert transport.written == b""


class TestEnd:
    async def test_keeps_what_came_with_qos_0_and_forgets_what_comes_again(self) -> None:
        connection, _ = opened()
        connection.data_received(publish("t", b"zero", None) + publish("t", b"one", 1))
        connection.connection_lost(ConnectionResetError("reset"))
        assert [message.payload for message in await received(connection)] == [b"zero"]
        with pytest.raises(SourceUnavailableError, match="reset"):
            await received(connection)

    async def test_by_the_broker_says_its_reason(self) -> None:
        connection, _ = opened()
        connection.data_received(
            mqtt5.DisconnectPacket(reason_code=mqtt5.DisconnectReasonCode.SESSION_TAKEN_OVER).write()
        )
        with pytest.raises(SessionTakenError, match="session taken over"):
            await received(connection)


class TestWordsOfTheBroker:
    async def test_are_shortened_and_have_nothing_that_a_terminal_obeys(self) -> None:
        connection, _ = opened()
        said = mqtt5.DisconnectPacket(
            reason_code=mqtt5.DisconnectReasonCode.SERVER_BUSY, reason_str="\x1b[31mred" + "x" * 10_000
        )
        connection.data_received(said.write())
        with pytest.raises(SourceUnavailableError, match=r"ended the connection:  \[31mredx+$") as raised:
            await received(connection)
        assert len(str(raised.value)) < 300


class TestSubAck:
    @pytest.mark.parametrize(("packet_id", "codes"), [(1, 2), (7, 1)])
    async def test_that_answers_another_subscription_ends_the_connection(self, packet_id: int, codes: int) -> None:
        connection, transport = opened()
        granted = mqtt5.SubAckReasonCode.GRANTED_QOS_AT_LEAST_ONCE
        connection.data_received(mqtt5.SubAckPacket(packet_id, [granted] * codes).write())
        assert transport.closed
        with pytest.raises(SourceUnavailableError, match="answers no subscription") as raised:
            await received(connection)
        assert raised.value.reason == "protocol_error"


class TestBackpressure:
    async def test_pauses_reading_while_too_many_messages_wait(self) -> None:
        connection, transport = opened(receive_max=2)
        connection.data_received(b"".join(publish("t", b"x", None) for _ in range(5)))
        assert not transport.reading
        assert len(await received(connection)) == 5
        assert transport.reading

    async def test_pauses_reading_while_too_many_bytes_wait(self) -> None:
        connection, transport = opened()
        for packet_id in range(1, 81):
            connection.data_received(publish("t", bytes(900_000), packet_id))
        paused = not transport.reading
        assert paused
        assert len(await received(connection)) == 80
        assert transport.reading

    async def test_gives_up_a_packet_that_is_larger_than_allowed(self) -> None:
        connection, transport = opened()
        packet = publish("t", bytes(3_000_000), 1)
        for start in range(0, len(packet), 250_000):
            connection.data_received(packet[start : start + 250_000])
            if transport.closed:
                break
        assert transport.closed
        assert start < 1_500_000
        with pytest.raises(SourceUnavailableError, match="more than 1,000,000 bytes"):
            await received(connection)


class TestIncompletePacket:
    async def test_is_read_again_only_when_it_is_complete(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A broker that sends single bytes of a large packet costs no more than one that sends it at once."""
        reads: list[int] = []
        read = mqtt5.read

        def counted(view: memoryview) -> tuple[mqtt5.Packet, int]:
            reads.append(len(view))
            return read(view)

        monkeypatch.setattr(mqtt5, "read", counted)
        connection, _ = opened()
        packet = publish("t", bytes(5_000), 1)
        for byte in packet:
            connection.data_received(bytes([byte]))
        assert [len(message.payload) for message in await received(connection)] == [5_000]
        assert reads[-1] == len(packet)
        assert len(reads) <= 5

    async def test_that_is_too_large_is_refused_by_its_length(self) -> None:
        connection, transport = opened()
        connection.data_received(publish("t", bytes(3_000_000), 1)[:10])
        assert transport.closed
        with pytest.raises(SourceUnavailableError, match="more than 1,000,000 bytes"):
            await received(connection)


class TestGathering:
    """After a large delivery the next one waits for more messages, so that there are fewer envelopes."""

    @staticmethod
    def feed(connection: MqttConnection, count: int) -> None:
        connection.data_received(b"".join(publish("t", b"x", packet_id) for packet_id in range(1, count + 1)))

    @staticmethod
    def received_at_once(connection: MqttConnection) -> int:
        """Return the number of messages that are received without waiting."""
        receiving = connection.receive()
        with pytest.raises(StopIteration) as returned:
            receiving.send(None)
        return len(returned.value.value.messages)

    async def test_waits_after_a_large_delivery(self) -> None:
        connection, _ = opened(receive_max=400)

        self.feed(connection, 50)
        assert self.received_at_once(connection) == 50
        self.feed(connection, 60)
        receiving = asyncio.create_task(connection.receive())
        await asyncio.sleep(0)
        self.feed(connection, 60)
        assert len((await receiving).messages) == 120

    def test_does_not_wait_after_a_small_delivery(self) -> None:
        connection, _ = opened(receive_max=400)
        for _ in range(3):
            self.feed(connection, 49)
            assert self.received_at_once(connection) == 49

    async def test_does_not_wait_for_what_the_brokers_own_limit_holds_back(self) -> None:
        connection, _ = opened(receive_max=400)
        for _ in range(3):
            self.feed(connection, 60)
            assert len(await received(connection)) == 60
        self.feed(connection, 60)
        assert self.received_at_once(connection) == 60
        self.feed(connection, 61)
        assert len(await received(connection)) == 61
        self.feed(connection, 60)
        with pytest.raises(SourceUnavailableError):
            await self.end_while_gathering(connection)

    @staticmethod
    async def end_while_gathering(connection: MqttConnection) -> None:
        receiving = asyncio.create_task(connection.receive())
        await asyncio.sleep(0)
        assert not receiving.done()
        connection.connection_lost(None)
        await receiving


class TestReceiptTime:
    async def test_of_a_message_that_follows_another_at_once_is_a_step_later(self) -> None:
        connection, _ = opened()
        connection.data_received(publish("t", b"a", 1) + publish("t", b"b", 2))
        first, second = await received(connection)
        assert second.received_at == first.received_at + STEP

    async def test_follows_a_clock_that_is_set_for_a_moment(self) -> None:
        """Three hours forward for one message, then right again: the messages after it were written three hours ahead."""
        machine = Machine()
        connection = MqttConnection(
            MqttSettings(), 1_000_000, ReceiptClock(time_slot("w"), wall_ns=machine.wall, steady_ns=machine.steady)
        )
        off = []
        for by in (0, 10_800_000_000, -10_800_000_000, 0):
            machine.set(by)
            machine.wait(1000)
            connection.data_received(publish("t", b"x", 1))
            off.append((await received(connection))[0].received_at - machine.now)
        assert max(map(abs, off)) < 1_000_000

    async def test_does_not_run_ahead_of_the_clock_however_fast_messages_come(self) -> None:
        machine = Machine()
        connection = MqttConnection(
            MqttSettings(), 1_000_000, ReceiptClock(time_slot("w"), wall_ns=machine.wall, steady_ns=machine.steady)
        )
        times: dict[str, list[int]] = {}
        for _ in range(100):
            machine.wait(10_000)  # 200,000 messages a second
            connection.data_received(b"".join(publish(f"device-{number % 500}", b"x", None) for number in range(2000)))
            for message in await received(connection):
                times.setdefault(message.topic, []).append(message.received_at)
                assert -1_000_000 < message.received_at - machine.now < 1_000_000
        assert all(len(set(of_device)) == len(of_device) == 400 for of_device in times.values())


class TestCaughtUp:
    """A broker that answers a ping has sent before what it had for the session."""

    PING = mqtt5.PingReqPacket().write()
    ANSWER = mqtt5.PingRespPacket().write()

    async def next_is_caught_up(self, connection: MqttConnection) -> bool:
        connection.data_received(publish("t", b"next", 99))
        return (await connection.receive()).caught_up

    async def test_is_a_broker_that_answers_and_sends_nothing_before(self) -> None:
        connection, transport = opened()
        connection.probe_caught_up()
        assert transport.written == self.PING
        connection.data_received(self.ANSWER)
        connection.probe_caught_up()
        assert transport.written == self.PING
        assert await self.next_is_caught_up(connection)

    async def test_is_not_one_that_has_not_answered(self) -> None:
        connection, _ = opened()
        connection.probe_caught_up()
        assert not await self.next_is_caught_up(connection)

    @pytest.mark.parametrize("taken", [True, False])
    async def test_is_not_one_that_sends_something_before_it_answers(self, *, taken: bool) -> None:
        connection, _ = opened()
        connection.probe_caught_up()
        connection.data_received(publish("t", b"x", 1))
        if taken:
            await received(connection)
            connection.probe_caught_up()
        connection.data_received(self.ANSWER)
        assert not await self.next_is_caught_up(connection)

    def test_is_asked_only_when_all_that_came_is_taken(self) -> None:
        connection, transport = opened()
        connection.data_received(publish("t", b"x", 1))
        connection.probe_caught_up()
        assert transport.written == b""


class TestDupFlag:
    async def test_is_handed_on(self) -> None:
        connection, _ = opened()
        connection.data_received(publish("t", b"x", 7, duplicate=True))
        assert (await connection.receive()).flagged == {7}
