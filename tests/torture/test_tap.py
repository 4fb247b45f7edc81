"""What the fault proxy reads of MQTT 5 is what another implementation has written."""

import itertools

import mqtt5
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tools.stack.tap import Packets, Publish, Tap
from tools.torture.load import Record
from tools.torture.messages import NativeMessages


def publish(packet_id: int, payload: bytes = b"{}", topic: str = "t") -> bytes:
    return mqtt5.PublishPacket(
        topic,
        payload,
        qos=mqtt5.QoS.AT_LEAST_ONCE if packet_id else mqtt5.QoS.AT_MOST_ONCE,
        packet_id=packet_id or None,
        message_expiry_interval=60,
        content_type="application/json",
        user_properties=[("key", "v" * 200)],
    ).write()


def puback(packet_id: int, *reason: int) -> bytes:
    return bytes([0x40, 2 + len(reason)]) + packet_id.to_bytes(2) + bytes(reason)


@given(
    sent=st.lists(
        st.tuples(st.text("abc/é", min_size=1), st.integers(1, 65_535), st.binary(max_size=300)),
        min_size=1,
        max_size=10,
        unique_by=lambda packet: packet[1],
    ),
    cuts=st.lists(st.integers(1, 200), max_size=30),
)
def test_messages_are_read_however_the_bytes_are_cut(sent: list[tuple[str, int, bytes]], cuts: list[int]) -> None:
    data = b"".join(
        publish(packet_id, payload, topic) + mqtt5.PingRespPacket().write() for topic, packet_id, payload in sent
    )
    read: list[Publish] = []
    with Tap(read.append).session() as session:
        for start, end in itertools.pairwise(itertools.accumulate([0, *cuts, len(data)])):
            session.to_client(data[start:end])
        session.from_client(b"".join(puback(packet_id) for _, packet_id, _ in sent))
    assert read == [Publish(*packet) for packet in sent]


@given(st.lists(st.binary(max_size=50), max_size=5))
def test_any_bytes_are_read_or_reported(parts: list[bytes]) -> None:
    tap = Tap(lambda _: None)
    with tap.session() as session:
        for part in parts:
            session.to_client(part)
            session.from_client(part)


class TestAcknowledgement:
    def test_is_of_what_was_sent_over_the_same_connection(self) -> None:
        read: list[Publish] = []
        tap = Tap(read.append)
        with tap.session() as first, tap.session() as second:
            first.to_client(publish(1))
            second.from_client(puback(1))
        assert read == []
        assert tap.problems == ["packet identifier 1 was acknowledged and had not been sent"]

    def test_of_an_identifier_that_is_used_again_is_of_the_newest_message(self) -> None:
        read: list[Publish] = []
        with Tap(read.append).session() as session:
            for payload in (b"first", b"second"):
                session.to_client(publish(7, payload))
                session.from_client(puback(7))
        assert [packet.payload for packet in read] == [b"first", b"second"]

    @pytest.mark.parametrize(("reason", "accepted"), [((), True), ((0,), True), ((0x10, 0), True), ((0x80, 0), False)])
    def test_with_a_reason_code_that_refuses_is_none(self, reason: tuple[int, ...], *, accepted: bool) -> None:
        read: list[Publish] = []
        tap = Tap(read.append)
        with tap.session() as session:
            session.to_client(publish(1))
            session.from_client(puback(1, *reason))
        assert (len(read), tap.problems) == (int(accepted), [])

    def test_is_waited_for_while_the_connection_is_open(self) -> None:
        tap = Tap(lambda _: None)
        with tap.session() as session:
            session.to_client(publish(0) + publish(1))
            assert tap.unacknowledged == 1
        assert tap.unacknowledged == 0


class TestSubscription:
    def test_counts_once_it_is_confirmed(self) -> None:
        tap = Tap(lambda _: None)
        with tap.session() as session:
            session.to_client(mqtt5.ConnAckPacket().write())
            assert tap.subscribed == 0
            session.to_client(mqtt5.SubAckPacket(1, [mqtt5.SubAckReasonCode.GRANTED_QOS_AT_LEAST_ONCE]).write())
            assert tap.subscribed == 1
        assert tap.subscribed == 0


class TestMalformed:
    def test_packets_are_reported(self) -> None:
        tap = Tap(lambda _: None)
        with tap.session() as session:
            session.to_client(b"\x32\xff\xff\xff\xff\x01")
            session.from_client(b"\x40\x01\x01")
        assert tap.problems == ["an integer of more than four bytes", "a malformed PUBACK: b'\\x01'"]

    def test_packet_waits_for_its_end(self) -> None:
        packets = Packets()
        assert list(packets.of(b"\x40\x02\x00")) == []
        assert list(packets.of(b"\x01\xd0")) == [(0x40, b"\x00\x01")]
        assert list(packets.of(b"\x00")) == [(0xD0, b"")]


class TestRecord:
    """What has to be stored after the broker was killed."""

    def test_owes_what_the_broker_acknowledged_unless_it_was_killed_since(self) -> None:
        record = Record(NativeMessages())
        numbers = [record.take().number for _ in range(3)]
        for number in numbers:
            record.acknowledged(number)
        assert record.owed().tolist() == [False, True, True, True]
        sent = NativeMessages().message(2)
        record.taken_over(Publish(sent.topic, 9, sent.payload))
        record.broker_was_killed()
        record.acknowledged(record.take().number)
        assert record.owed().tolist() == [False, False, True, False, True]

    def test_owes_what_the_platform_took_over_although_the_publisher_does_not_know(self) -> None:
        record = Record(NativeMessages())
        sent = record.take()
        record.uncertain([sent.number])
        assert record.owed().tolist() == [False, False]
        record.taken_over(Publish("other", 1, sent.payload))
        record.taken_over(Publish(sent.topic, 1, b'{"n": 1, "more": 2}'))
        assert record.owed().tolist() == [False, False]
        record.taken_over(Publish(sent.topic, 1, sent.payload))
        assert record.owed().tolist() == [False, True]
