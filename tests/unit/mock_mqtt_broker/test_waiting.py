"""What waits for a subscriber."""

import pytest

from sens_mock_mqtt_broker.messages import ApplicationMessage
from sens_mock_mqtt_broker.waiting import WaitingMessages, owner


def message(tenant: str, size: int) -> ApplicationMessage:
    topic = f"sens/v1/{tenant}/device/telemetry".encode()
    return ApplicationMessage(len(topic).to_bytes(2) + topic, b"x" * size, 1)


def fill(*messages: ApplicationMessage) -> WaitingMessages:
    waiting = WaitingMessages()
    for each in messages:
        waiting.append((each, 2))
    return waiting


def drained(waiting: WaitingMessages) -> list[ApplicationMessage]:
    return [waiting.pop()[0] for _ in range(len(waiting))]


class TestWaiting:
    def test_comes_in_its_order(self) -> None:
        first, second, third = (message("a", size) for size in (1, 2, 3))
        waiting = fill(second, third)
        waiting.prepend((first, 2))
        assert waiting.first == (first, 2)
        assert drained(waiting) == [first, second, third]
        assert waiting.bytes == 0

    def test_loses_the_oldest_of_whoever_fills_it(self) -> None:
        quiet = message("quiet", 100)
        flood = [message("flood", 1000) for _ in range(10)]
        waiting = fill(quiet, *flood)
        assert waiting.shrink(waiting.bytes - 1500) == 2
        assert drained(waiting) == [quiet, *flood[2:]]

    def test_loses_no_more_than_it_has_to(self) -> None:
        waiting = fill(*(message("a", 100) for _ in range(5)), *(message("b", 90) for _ in range(5)))
        assert waiting.shrink(waiting.bytes) == 0
        assert waiting.shrink(waiting.bytes - 1) == 1
        assert waiting.shrink(0) == 9


@pytest.mark.parametrize(("topic", "whose"), [("sens/v1/a/d/telemetry", b"sens/v1/a"), ("x", b"x"), ("a/b", b"a/b")])
def test_the_owner_is_what_the_topic_begins_with(topic: str, whose: bytes) -> None:
    assert owner(len(topic).to_bytes(2) + topic.encode()) == whose
