"""Copies that a broker delivers again are recognised; new messages never are taken for copies."""

from hypothesis import given
from hypothesis import strategies as st

from sens_common.envelope import Message
from sens_mqtt_ingestion_worker.redelivery import RecentMessages, kept_messages

NOBODY: frozenset[int] = frozenset()


def message(packet_id: int, payload: bytes = b"{}", topic: str = "t") -> Message:
    return Message(topic, payload, 0, packet_id)


def resumed(*published: Message, receive_max: int = 10) -> RecentMessages:
    recent = RecentMessages(receive_max)
    recent.remember(published)
    recent.connection_opened(session_present=True)
    return recent


class TestCopies:
    def test_are_left_out_when_they_come_first(self) -> None:
        recent = resumed(message(1), message(2), message(3))
        assert recent.without_copies([message(2), message(3), message(4)], NOBODY) == [message(4)]

    def test_are_recognised_over_several_deliveries(self) -> None:
        recent = resumed(message(1), message(2))
        assert recent.without_copies([message(1)], NOBODY) == []
        assert recent.without_copies([message(2)], NOBODY) == []

    def test_are_not_looked_for_in_a_new_session(self) -> None:
        recent = RecentMessages(10)
        recent.remember([message(1)])
        recent.connection_opened(session_present=False)
        assert recent.without_copies([message(1)], NOBODY) == [message(1)]

    def test_are_not_looked_for_after_the_first_new_message(self) -> None:
        recent = resumed(message(1), message(2))
        assert recent.without_copies([message(9), message(1)], NOBODY) == [message(9), message(1)]
        assert not recent.searching

    def test_need_the_same_topic_and_payload(self) -> None:
        assert resumed(message(1, b"a")).without_copies([message(1, b"b")], NOBODY) == [message(1, b"b")]
        assert resumed(message(1, topic="a")).without_copies([message(1, topic="b")], NOBODY) == [message(1, topic="b")]

    def test_of_an_identifier_are_those_of_its_newest_message(self) -> None:
        recent = resumed(message(1, b"old"), message(1, b"new"))
        assert recent.without_copies([message(1, b"old")], NOBODY) == [message(1, b"old")]

    def test_older_than_those_kept_are_not_known(self) -> None:
        recent = resumed(*(message(number) for number in range(1, 13)), receive_max=10)
        assert recent.without_copies([message(1)], NOBODY) == [message(1)]

    def test_of_qos_0_do_not_exist(self) -> None:
        recent = resumed(message(0), message(1))
        assert recent.without_copies([message(0), message(1)], NOBODY) == [message(0)]


class TestKeptMessages:
    def test_are_more_than_receive_max_for_brokers_that_send_more(self) -> None:
        assert kept_messages(4096) > 5875

    def test_are_not_more_than_there_are_identifiers(self) -> None:
        assert kept_messages(65_535) == 65_535


class TestDupFlag:
    def test_is_not_needed(self) -> None:
        assert resumed(message(1)).without_copies([message(1)], NOBODY) == []

    def test_once_seen_makes_a_message_without_it_new(self) -> None:
        recent = resumed(message(1), message(2))
        assert recent.without_copies([message(1), message(2)], frozenset({1})) == [message(2)]


@given(
    published=st.lists(st.binary(max_size=2), min_size=1, max_size=30),
    unacknowledged=st.integers(0, 10),
    queued=st.lists(st.binary(min_size=3, max_size=4), max_size=5),
)
def test_whatever_the_broker_sends_again_is_published_once(
    published: list[bytes], unacknowledged: int, queued: list[bytes]
) -> None:
    """The broker sends the newest unacknowledged messages again, in order, then what queued up meanwhile."""
    messages = [message(number + 1, payload) for number, payload in enumerate(published)]
    again = messages[max(0, len(messages) - unacknowledged) :]
    new = [message(1000 + number, payload) for number, payload in enumerate(queued)]
    recent = resumed(*messages)
    assert recent.without_copies([*again, *new], NOBODY) == new
