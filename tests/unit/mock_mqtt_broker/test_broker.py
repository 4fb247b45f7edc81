"""The broker's rules, played by clients without sockets. Sections are those of MQTT 5.0."""

import asyncio

import mqtt5
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import Counter

from sens_mock_mqtt_broker import metrics
from sens_mock_mqtt_broker.broker import Broker
from sens_mock_mqtt_broker.sent import packet
from sens_mock_mqtt_broker.settings import BrokerSettings
from support.mqtt_clients import AT_LEAST_ONCE, Client, decoded, with_broker

HOSTILE = bytes.fromhex("2003000000")
"""CONNACK, from a client."""


async def connected(broker: Broker, name: str = "", **options: object) -> Client:
    client = Client(broker)
    assert (await client.connect(name, **options)).reason_code is mqtt5.ConnAckReasonCode.SUCCESS
    return client


def count(counter: Counter) -> float:
    (sample,) = (each for metric in counter.collect() for each in metric.samples if each.name.endswith("_total"))
    return sample.value


def payloads(messages: list[mqtt5.PublishPacket]) -> list[bytes]:
    return [message.payload for message in messages]


class TestVersions:
    @pytest.mark.parametrize(
        ("level", "answer"),
        [(3, "20020001"), (4, "20020000"), (6, "2003008400")],
        ids=["too old", "3.1.1", "not invented yet"],
    )
    async def test_a_client_gets_the_answer_that_it_understands(self, level: int, answer: str) -> None:
        broker = Broker(BrokerSettings())
        client = Client(broker)
        got = await client.say(b"\x10\x0d\x00\x04MQTT" + bytes([level]) + b"\x02\x00\x0a\x00\x01x")
        assert got.hex() == answer
        assert client.wire.closed == (level != 4)

    async def test_a_client_without_a_name_gets_one(self) -> None:
        broker = Broker(BrokerSettings())
        answer = await Client(broker).connect("")
        assert answer.assigned_client_id
        assert answer.assigned_client_id != (await Client(broker).connect("")).assigned_client_id

    async def test_a_kept_session_of_311_needs_a_name(self) -> None:
        broker = Broker(BrokerSettings())
        assert await Client(broker).say(b"\x10\x0c\x00\x04MQTT\x04\x00\x00\x0a\x00\x00") == b"\x20\x02\x00\x02"


class TestHostileClients:
    async def test_a_connack_from_a_client_hurts_nobody_else(self) -> None:
        broker = Broker(BrokerSettings())
        hostile = await connected(broker, "hostile")
        (answer,) = decoded(await hostile.say(HOSTILE))
        assert isinstance(answer, mqtt5.DisconnectPacket)
        assert hostile.wire.closed
        await connected(broker, "hostile")
        await connected(broker, "other")

    @settings(max_examples=100)
    @given(st.lists(st.binary(max_size=40), max_size=6), st.booleans())
    def test_whatever_bytes_come_the_others_are_served(self, chunks: list[bytes], says_connect: bool) -> None:
        async def scenario(broker: Broker) -> None:
            reader = await connected(broker, "reader")
            await reader.subscribe("a/+")
            hostile = Client(broker)
            if says_connect:
                await hostile.connect("hostile")
            for chunk in chunks:
                if not hostile.wire.closed:
                    await hostile.say(chunk)
            await hostile.vanish()
            await reader.heard()
            await (await connected(broker)).publish("a/b", b"still here")
            assert payloads(await reader.messages()) == [b"still here"]

        before = _faults()
        with_broker(scenario)
        assert _faults() == before, "no packet surprises the broker"

    @settings(max_examples=100)
    @given(st.data())
    def test_a_packet_that_is_nearly_right_surprises_nobody(self, data: st.DataObject) -> None:
        filters = [mqtt5.TopicFilter("$share/g/a/#"), mqtt5.TopicFilter("+/b")]
        will = mqtt5.Will("a/b", payload=b"x", will_delay_interval=1, message_expiry_interval=2)
        kinds: list[mqtt5.Packet] = [
            mqtt5.ConnectPacket("one", will=will, username="u", password=b"p", session_expiry_interval=5),
            mqtt5.PublishPacket("a/b", b"x", qos=mqtt5.QoS.EXACTLY_ONCE, packet_id=1, message_expiry_interval=3),
            mqtt5.PublishPacket("a/b", b"x", user_properties=[("a", "b")], response_topic="c", topic_alias=1),
            mqtt5.SubscribePacket(1, filters, user_properties=[("a", "b")]),
            mqtt5.UnsubscribePacket(1, ["a", "b/#"]),
            mqtt5.PubRecPacket(1, reason_code=mqtt5.PubRecReasonCode.QUOTA_EXCEEDED, reason_str="x"),
            mqtt5.PubRelPacket(1),
            mqtt5.DisconnectPacket(session_expiry_interval=1),
        ]
        right = data.draw(st.sampled_from(kinds))
        spoiled = bytearray(right.write())
        for index, value in data.draw(
            st.lists(st.tuples(st.integers(0, len(spoiled) - 1), st.integers(0, 255)), max_size=3)
        ):
            spoiled[index] = value

        async def scenario(broker: Broker) -> None:
            client = Client(broker)
            if not isinstance(right, mqtt5.ConnectPacket):
                await client.connect("one")
            await client.say(bytes(spoiled))
            await client.vanish()
            await connected(broker, "one")

        before = _faults()
        with_broker(scenario)
        assert _faults() == before, "no packet surprises the broker"

    async def test_a_packet_that_is_too_large_ends_its_connection(self) -> None:
        broker = Broker(BrokerSettings())
        client = await connected(broker)
        (answer,) = decoded(await client.say(b"\x30\xff\xff\xff\x7f"))
        assert isinstance(answer, mqtt5.DisconnectPacket)
        assert answer.reason_code is mqtt5.DisconnectReasonCode.PACKET_TOO_LARGE

    async def test_half_packets_are_kept_up_to_a_bound(self) -> None:
        broker = Broker(BrokerSettings())
        clients = [await connected(broker) for _ in range(70)]
        for client in clients:
            await client.say(b"\x30\x80\x80\x40")  # the first bytes of a megabyte
        assert sum(not client.wire.closed for client in clients) == 63
        assert broker.unfinished_bytes < 64 << 20
        for client in clients:
            await client.vanish()
        assert broker.unfinished_bytes == 0

    async def test_connections_without_connect_keep_nobody_out(self) -> None:
        broker = Broker(BrokerSettings(max_connections=2))
        idle = [Client(broker) for _ in range(10)]
        await asyncio.sleep(0)
        assert sum(not client.wire.closed for client in idle) <= 4
        await connected(broker, "honest")

    async def test_one_address_does_not_keep_others_out(self) -> None:
        broker = Broker(BrokerSettings(max_connections=4))
        many = [await connected(broker) for _ in range(4)]
        same = await Client(broker).connect("fifth")
        assert same.reason_code is mqtt5.ConnAckReasonCode.SERVER_BUSY
        other = Client(broker, address="198.51.100.7")
        assert (await other.connect("other")).reason_code is mqtt5.ConnAckReasonCode.SUCCESS
        await asyncio.sleep(0)
        assert sum(client.wire.closed for client in many) == 1

    async def test_sessions_of_clients_that_are_away_are_bounded(self) -> None:
        broker = Broker(BrokerSettings(max_connections=5))
        for number in range(30):
            await (await connected(broker, f"gone-{number}", session_expiry_interval=600)).vanish()
        assert not (await Client(broker).connect("gone-0", clean_start=False)).session_present
        assert (await Client(broker).connect("gone-29", clean_start=False)).session_present


def _faults() -> float:
    return count(metrics.ENDED.labels("unspecified"))


class TestMessages:
    async def test_nobody_reads_the_topic(self) -> None:
        before = count(metrics.WITHOUT_SUBSCRIBER)
        broker = Broker(BrokerSettings())
        reader = await connected(broker, "reader", session_expiry_interval=60)
        await reader.subscribe("sens/v1/+/+/telemetry")
        publisher = await connected(broker)
        assert await publisher.publish("sens/v1/demo/one/telemetry") == 0
        assert await publisher.publish("sens/v1/demo/meter-2") == 0x10
        assert await publisher.publish("tele/x/SENSOR") == 0x10
        assert await publisher.publish("tele/x/SENSOR") == 0x10
        assert await publisher.publish("kept", retain=True) == 0x10
        assert broker.unread.sentence() == (
            "3 messages were published to topics that nobody reads,"
            " most recently tele/x/SENSOR (2), sens/v1/demo/meter-2 (1)"
        )
        await reader.vanish()  # its session reads on
        assert await publisher.publish("sens/v1/demo/one/telemetry") == 0
        assert count(metrics.WITHOUT_SUBSCRIBER) == before + 3

    @pytest.mark.parametrize(
        ("topic_filter", "topic", "reads"),
        [
            ("a/+/c", "a/b/c", True),
            ("a/#", "a", True),
            ("a/#", "a/b/c", True),
            ("#", "a/b", True),
            ("+", "/a", False),
            ("+/+", "/a", True),
            ("a/+", "a", False),
            ("#", "$internal/a", False),
            ("+/a", "$internal/a", False),
            ("$internal/#", "$internal/a", True),
            ("$share/g/a/+", "a/b", True),
        ],
    )
    async def test_filters_match_as_the_standard_says(self, topic_filter: str, topic: str, reads: bool) -> None:
        broker = Broker(BrokerSettings())
        reader = await connected(broker)
        assert await reader.subscribe(topic_filter) == [1]
        await (await connected(broker)).publish(topic)
        assert bool(await reader.messages()) is reads

    @pytest.mark.parametrize("text", ["a/#/b", "a+", "#a", "$share/g", "$share//a", "$share/+/a", "a/" * 200])
    async def test_a_filter_that_is_none_is_refused_alone(self, text: str) -> None:
        broker = Broker(BrokerSettings())
        client = await connected(broker)
        body = b"\0\1\0" + len(text).to_bytes(2) + text.encode() + b"\1\0\1b\1"
        (answer,) = decoded(await client.say(packet(0x82, body)))
        assert isinstance(answer, mqtt5.SubAckPacket)
        assert [int(code) for code in answer.reason_codes] == [0x8F, 1]

    async def test_filters_that_overlap_bring_a_message_once(self) -> None:
        broker = Broker(BrokerSettings())
        reader = await connected(broker)
        await reader.subscribe("a/#", "a/+")
        await (await connected(broker)).publish("a/b")
        assert len(await reader.messages()) == 1

    async def test_the_quality_of_service_is_the_lower_one(self) -> None:
        broker = Broker(BrokerSettings())
        reader, publisher = await connected(broker), await connected(broker)
        await reader.subscribe("a")
        await reader.subscribe("b", max_qos=mqtt5.QoS.AT_MOST_ONCE)
        await publisher.say(mqtt5.PublishPacket("a", b"").write())
        await publisher.publish("a")
        await publisher.publish("b")
        assert [int(message.qos) for message in await reader.messages()] == [0, 1, 0]

    async def test_exactly_once_takes_four_packets_in_both_directions(self) -> None:
        broker = Broker(BrokerSettings())
        reader, publisher = await connected(broker), await connected(broker)
        await reader.subscribe("a", max_qos=mqtt5.QoS.EXACTLY_ONCE)
        first = mqtt5.PublishPacket("a", b"x", qos=mqtt5.QoS.EXACTLY_ONCE, packet_id=9).write()
        assert await publisher.say(first) == await publisher.say(first) == mqtt5.PubRecPacket(9).write()
        assert await publisher.say(mqtt5.PubRelPacket(9).write()) == mqtt5.PubCompPacket(9).write()
        (message,) = await reader.messages()
        packet_id = message.packet_id or 0
        assert await reader.say(mqtt5.PubRecPacket(packet_id).write()) == mqtt5.PubRelPacket(packet_id).write()
        assert await reader.say(mqtt5.PubCompPacket(packet_id).write()) == b""

    async def test_properties_arrive_and_a_message_may_expire(self) -> None:
        broker = Broker(BrokerSettings())
        reader, publisher = await connected(broker, "r", session_expiry_interval=9), await connected(broker)
        await reader.subscribe("a")
        await publisher.publish("a", content_type="text", user_properties=[("k", "v")], message_expiry_interval=60)
        (message,) = await reader.messages()
        assert (message.content_type, message.user_properties) == ("text", [("k", "v")])
        assert message.message_expiry_interval == 60
        await reader.acknowledge(message)
        await reader.vanish()
        await publisher.publish("a", message_expiry_interval=0)
        await publisher.publish("a", b"later")
        again = Client(broker)
        again.connection.data_received(mqtt5.ConnectPacket("r").write())
        assert payloads(await again.messages()) == [b"later"]

    async def test_retained_messages_reach_who_subscribes_later(self) -> None:
        broker = Broker(BrokerSettings())
        publisher = await connected(broker)
        await publisher.publish("a/b", b"kept", retain=True)
        await publisher.publish("a/c", b"gone", retain=True)
        await publisher.publish("a/c", b"", retain=True)
        reader = await connected(broker)
        subscribe = mqtt5.SubscribePacket(1, [mqtt5.TopicFilter("a/+", max_qos=AT_LEAST_ONCE)])
        _suback, message = decoded(await reader.say(subscribe.write()))
        assert isinstance(message, mqtt5.PublishPacket)
        assert (message.payload, message.retain) == (b"kept", True)

    async def test_a_client_may_be_spared_its_own_messages(self) -> None:
        broker = Broker(BrokerSettings())
        one = await connected(broker)
        await one.subscribe("a", no_local=True)
        await one.publish("a")
        assert await one.messages() == []

    @pytest.mark.parametrize(("says_goodbye", "published"), [(False, 1), (True, 0)])
    async def test_a_will_is_for_those_who_go_without_a_word(self, says_goodbye: bool, published: int) -> None:
        broker = Broker(BrokerSettings())
        reader = await connected(broker)
        await reader.subscribe("gone")
        mortal = await connected(broker, "mortal", will=mqtt5.Will("gone", payload=b"m"))
        if says_goodbye:
            await mortal.say(mqtt5.DisconnectPacket().write())
        await mortal.vanish()
        assert len(await reader.messages()) == published


class TestSessions:
    async def test_what_was_not_acknowledged_comes_again_and_is_marked(self) -> None:
        broker = Broker(BrokerSettings())
        reader, publisher = await connected(broker, "r", session_expiry_interval=60), await connected(broker)
        await reader.subscribe("$share/sens/a")
        for number in range(4):
            await publisher.publish("a", b"%d" % number)
        first, *_ = await reader.messages()
        await reader.acknowledge(first)
        await reader.vanish()
        await publisher.publish("a", b"4")
        again = Client(broker)
        again.connection.data_received(mqtt5.ConnectPacket("r", session_expiry_interval=60).write())
        answer, *messages = await again.packets()
        assert isinstance(answer, mqtt5.ConnAckPacket)
        assert answer.session_present
        assert [(m.payload, m.duplicate) for m in messages if isinstance(m, mqtt5.PublishPacket)] == [
            (b"1", True),
            (b"2", True),
            (b"3", True),
            (b"4", False),
        ]

    async def test_no_more_is_under_way_than_the_client_takes(self) -> None:
        broker = Broker(BrokerSettings())
        reader = await connected(broker, "r", receive_max=2)
        await reader.subscribe("a")
        publisher = await connected(broker)
        for number in range(5):
            await publisher.publish("a", b"%d" % number)
        first = await reader.messages()
        assert payloads(first) == [b"0", b"1"]
        reader.connection.data_received(mqtt5.PubAckPacket(first[0].packet_id or 0).write())
        assert payloads(await reader.messages()) == [b"2"]

    async def test_a_buffer_that_is_full_loses_its_oldest_messages_and_they_are_counted(self) -> None:
        before = count(metrics.DROPPED)
        broker = Broker(BrokerSettings(buffer_bytes=1 << 20))
        reader = await connected(broker, "r", session_expiry_interval=60)
        await reader.subscribe("a")
        await reader.vanish()
        publisher = await connected(broker)
        for number in range(20):
            await publisher.publish("a", b"%d" % number + bytes(100_000))
        again = Client(broker)
        again.connection.data_received(mqtt5.ConnectPacket("r").write())
        got = []
        while messages := await again.messages():
            got += [message.payload.rstrip(b"\0") for message in messages]
            again.connection.data_received(
                b"".join(mqtt5.PubAckPacket(message.packet_id or 0).write() for message in messages)
            )
        assert got == [b"%d" % number for number in range(10, 20)]
        assert count(metrics.DROPPED) == before + 10

    async def test_a_client_that_does_not_read_is_sent_no_more(self) -> None:
        broker = Broker(BrokerSettings())
        reader = await connected(broker, "r")
        await reader.subscribe("a")
        reader.wire.is_full = True
        publisher = await connected(broker)
        for _ in range(50):
            await publisher.publish("a", bytes(100_000))
        assert len(reader.wire.written) < 1_000_000
        reader.wire.is_full = False
        reader.connection.resume_writing()
        assert len(await reader.messages()) >= 1

    async def test_a_second_client_of_the_same_name_takes_the_session_over(self) -> None:
        broker = Broker(BrokerSettings())
        first = await connected(broker, "same", session_expiry_interval=60)
        await first.subscribe("a")
        second = Client(broker)
        assert (await second.connect("same", clean_start=False)).session_present
        (answer,) = await first.packets()
        assert isinstance(answer, mqtt5.DisconnectPacket)
        assert answer.reason_code is mqtt5.DisconnectReasonCode.SESSION_TAKEN_OVER
        await (await connected(broker)).publish("a")
        assert len(await second.messages()) == 1

    async def test_a_session_ends_with_its_connection_unless_it_is_to_be_kept(self) -> None:
        broker = Broker(BrokerSettings())
        await (await connected(broker, "short")).vanish()
        assert not (await Client(broker).connect("short", clean_start=False)).session_present
        await (await connected(broker, "kept", session_expiry_interval=60)).vanish()
        assert not (await Client(broker).connect("kept", clean_start=True)).session_present

    async def test_unsubscribing_says_what_was_there(self) -> None:
        broker = Broker(BrokerSettings())
        client = await connected(broker)
        await client.subscribe("a", "$share/g/a")
        (answer,) = decoded(await client.say(mqtt5.UnsubscribePacket(7, ["a", "never", "$share/g/a"]).write()))
        assert isinstance(answer, mqtt5.UnsubAckPacket)
        assert [int(code) for code in answer.reason_codes] == [0, 0x11, 0]
        assert await client.publish("a") == 0x10

    async def test_the_members_of_a_share_take_turns_and_who_is_away_gets_nothing(self) -> None:
        broker = Broker(BrokerSettings())
        members = [await connected(broker, f"m{number}", session_expiry_interval=60) for number in range(3)]
        for member in members:
            await member.subscribe("$share/g/a")
        publisher = await connected(broker)
        for _ in range(6):
            await publisher.publish("a")
        assert [len(await member.messages()) for member in members] == [2, 2, 2]
        await members[0].vanish()
        for _ in range(6):
            await publisher.publish("a")
        assert sum([len(await member.messages()) for member in members[1:]]) == 6


class TestSettings:
    async def test_the_largest_packet_is_announced(self) -> None:
        broker = Broker(BrokerSettings())
        answer = await Client(broker).connect("one")
        assert answer.max_packet_size == BrokerSettings().max_packet_bytes
        assert not answer.subscription_id_available
