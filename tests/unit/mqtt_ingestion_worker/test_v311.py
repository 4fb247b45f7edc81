"""The bytes of MQTT 3.1.1: those of the standard's examples, and whatever else comes."""

import mqtt5
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sens_mqtt_ingestion_worker.mqtt import v311


def read_all(data: bytes) -> list[mqtt5.Packet]:
    packets = []
    while data:
        packet, size = v311.read(memoryview(data))
        packets.append(packet)
        data = data[size:]
    return packets


class TestWhatIsSent:
    def test_is_as_the_standard_has_it(self) -> None:
        connect = v311.connect("c", "u", b"p", 30, clean=False)
        assert connect == b"\x10\x13\x00\x04MQTT\x04\xc0\x00\x1e\x00\x01c\x00\x01u\x00\x01p"
        assert v311.connect("c", None, None, 30, clean=True)[9] == 0x02
        assert v311.subscribe(10, ["a/b", "c/d"]) == b"\x82\x0e\x00\x0a\x00\x03a/b\x01\x00\x03c/d\x01"
        assert v311.unsubscribe(10, ["a/b", "c/d"]) == b"\xa2\x0c\x00\x0a\x00\x03a/b\x00\x03c/d"

    def test_has_lengths_of_several_bytes(self) -> None:
        packet = v311.subscribe(1, ["x" * 200])
        assert packet[:3] == b"\x82\xcd\x01"


class TestWhatComes:
    def test_is_read(self) -> None:
        granted = mqtt5.SubAckReasonCode
        connack, suback, unsuback, publish, at_most_once, ping = read_all(
            b"\x20\x02\x01\x00"
            b"\x90\x04\x00\x01\x01\x80"
            b"\xb0\x02\x00\x02"
            b"\x3b\x08\x00\x03a/b\x00\x0a!"
            b"\x30\x05\x00\x01a12"
            b"\xd0\x00"
        )
        assert isinstance(connack, mqtt5.ConnAckPacket)
        assert (connack.session_present, connack.reason_code) == (True, mqtt5.ConnAckReasonCode.SUCCESS)
        assert isinstance(suback, mqtt5.SubAckPacket)
        assert suback.reason_codes == [granted.GRANTED_QOS_AT_LEAST_ONCE, granted.UNSPECIFIED_ERROR]
        assert isinstance(unsuback, mqtt5.UnsubAckPacket)
        assert isinstance(publish, mqtt5.PublishPacket)
        assert (publish.topic, publish.payload, publish.packet_id) == ("a/b", b"!", 10)
        assert (publish.duplicate, publish.retain) == (True, True)
        assert isinstance(at_most_once, mqtt5.PublishPacket)
        assert (at_most_once.payload, at_most_once.packet_id) == (b"12", None)
        assert isinstance(ping, mqtt5.PingRespPacket)

    def test_refuses_users_by_name(self) -> None:
        (connack,) = read_all(b"\x20\x02\x00\x04")
        assert isinstance(connack, mqtt5.ConnAckPacket)
        assert connack.reason_code == mqtt5.ConnAckReasonCode.BAD_USER_NAME_OR_PASSWORD

    @pytest.mark.parametrize(
        "data",
        [
            b"\x20\x02\x00\x09",
            b"\x90\x02\x00\x01",
            b"\x90\x03\x00\x01\x07",
            b"\x34\x07\x00\x03a/b\x00\x01",
            b"\x32\x05\x00\x03a/b",
            b"\x32\x07\x00\x03a/b\x00\x00",
            b"\x30\x02\x00\x00",
            b"\x30\x00",
            b"\x30\x03\x00\x01\x00",
            b"\x30\x03\x00\x01\xff",
            b"\x82\x00",
            b"\x30\xff\xff\xff\xff\x01",
        ],
    )
    def test_that_is_malformed_is_refused(self, data: bytes) -> None:
        with pytest.raises(ValueError, match=r"."):
            v311.read(memoryview(data))

    @given(st.binary(max_size=200))
    def test_of_any_kind_is_read_refused_or_not_complete(self, data: bytes) -> None:
        try:
            _, size = v311.read(memoryview(data))
        except (IndexError, ValueError):
            return
        assert 2 <= size <= len(data)
