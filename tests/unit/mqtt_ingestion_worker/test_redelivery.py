"""Copies that a broker delivers again are recognised; new messages never are taken for copies."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sens_common.envelope import Message, mark
from sens_mqtt_ingestion_worker.redelivery import RecentMessages, kept_message_count

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


class TestMarks:
    """They stand in the log for messages that were discarded; with none, these would end the search for copies, and be counted again."""

    @pytest.mark.parametrize("restarted", [True, False])
    def test_are_recognised_like_messages(self, *, restarted: bool) -> None:
        discarded = message(2, b"over the rate")
        recent = resumed(message(1), mark(discarded) if restarted else discarded, message(3))
        assert recent.without_copies([message(1), discarded, message(3), message(4)], NOBODY) == [message(4)]

    def test_are_not_those_of_other_messages(self) -> None:
        recent = resumed(mark(message(2, b"over the rate")))
        assert recent.without_copies([message(2, b"other")], NOBODY) == [message(2, b"other")]
        recent = resumed(mark(message(2, b"over the rate")))
        assert recent.without_copies([message(2, b"over the rate", "other")], NOBODY) != []

    def test_of_qos_0_do_not_exist(self) -> None:
        assert resumed(mark(message(0))).without_copies([message(0)], NOBODY) == [message(0)]


class TestKeptMessages:
    def test_are_more_than_receive_max_for_brokers_that_send_more(self) -> None:
        assert kept_message_count(4096) > 5875

    def test_are_not_more_than_there_are_identifiers(self) -> None:
        assert kept_message_count(65_535) == 65_535


class TestDupFlag:
    def test_is_not_needed(self) -> None:
        assert resumed(message(1)).without_copies([message(1)], NOBODY) == []

    def test_is_not_needed_in_messages_that_follow_copies_in_the_log(self) -> None:
        """As from a broker that was killed: what was unacknowledged when it saved its sessions, then what was queued."""
        recent = resumed(*(message(number) for number in range(1, 7)))
        assert recent.without_copies([message(2), message(3), message(4), message(9)], frozenset({2})) == [message(9)]

    def test_is_needed_in_messages_that_do_not_follow_the_copies_in_the_log(self) -> None:
        """As from a broker that was not killed and gives identifiers again as soon as they are free."""
        recent = resumed(message(1), message(2))
        assert recent.without_copies([message(2), message(1)], NOBODY) == [message(1)]
        recent = resumed(message(1), message(2))
        assert recent.without_copies([message(2), message(1)], frozenset({2, 1})) == []

    def test_is_needed_once_the_broker_has_sent_all_that_it_had(self) -> None:
        """As from a broker that was killed: it gives new messages identifiers that others had after it saved its sessions."""
        recent = resumed(*(message(number) for number in range(1, 7)))
        assert recent.without_copies([message(2)], NOBODY, caught_up=False) == []
        assert recent.without_copies([message(3)], frozenset({3}), caught_up=True) == []
        assert recent.without_copies([message(4)], NOBODY, caught_up=True) == [message(4)]

    def test_alone_does_not_make_a_copy(self) -> None:
        recent = resumed(message(1, b"a"))
        assert recent.without_copies([message(1, b"b")], frozenset({1})) == [message(1, b"b")]
        recent = resumed(message(1))
        assert recent.without_copies([message(2)], frozenset({2})) == [message(2)]


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


@given(
    saved=st.integers(0, 20),
    unacknowledged=st.integers(0, 10),
    queued=st.integers(0, 10),
    taken_over=st.integers(0, 10),
    flags=st.booleans(),
)
def test_whatever_a_killed_broker_sends_from_an_old_session_is_published_once(
    saved: int, unacknowledged: int, queued: int, taken_over: int, *, flags: bool
) -> None:
    """It saved so many messages as acknowledged, unacknowledged and queued; all were published since, and some more."""
    published = [
        message(number, b"%d" % number) for number in range(1, saved + unacknowledged + queued + taken_over + 1)
    ]
    again = published[saved : saved + unacknowledged + queued]
    # Identifiers go on where they were when it saved.
    first = saved + unacknowledged + queued + 1
    new = [message(number, b"new %d" % number) for number in range(first, first + 5)]
    recent = resumed(*published, receive_max=100)
    flagged = frozenset(copy.packet_id for copy in again[:unacknowledged]) if flags else NOBODY
    assert recent.without_copies([*again, *new], flagged) == new
