"""Packets out of a stream of bytes."""

import itertools

import mqtt5
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sens_mock_mqtt_broker.mqtt import SessionEndedError, _split

STREAM = b"".join(
    (
        mqtt5.ConnAckPacket().write(),
        mqtt5.PubAckPacket(1).write(),
        mqtt5.PingRespPacket().write(),
        mqtt5.PubAckPacket(65_535).write(),
    )
)
WHOLE = [type(packet) for packet in _split(STREAM)[0]]


class TestSplit:
    @given(st.lists(st.integers(0, len(STREAM)), max_size=8))
    def test_packets_come_out_whole_however_the_stream_is_cut(self, cuts: list[int]) -> None:
        bounds = [0, *sorted(cuts), len(STREAM)]
        packets: list[mqtt5.Packet] = []
        rest = b""
        for begin, end in itertools.pairwise(bounds):
            some, rest = _split(rest + STREAM[begin:end])
            packets += some
        assert rest == b""
        assert [type(packet) for packet in packets] == WHOLE
        assert [packet.packet_id for packet in packets if isinstance(packet, mqtt5.PubAckPacket)] == [1, 65_535]

    @given(st.binary(max_size=64))
    def test_any_bytes_are_packets_or_the_sessions_end(self, data: bytes) -> None:
        try:
            packets, rest = _split(data)
        except SessionEndedError:
            return
        assert packets or rest == data

    def test_a_malformed_packet_ends_the_session(self) -> None:
        with pytest.raises(SessionEndedError, match="malformed"):
            _split(b"\x00\x00")
