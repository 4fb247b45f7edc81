"""When the fleet's messages are taken."""

from sens_mock_mqtt_broker.fleet import Fleet, FleetMessage
from sens_mock_mqtt_broker.mqtt import Answers
from sens_mock_mqtt_broker.publisher import BEHIND_MICROSECONDS, Publisher
from sens_mock_mqtt_broker.series import SECOND

START = 1_767_225_600 * SECOND


class Clock:
    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> int:
        return self.now


def publisher(clock: Clock, rate: float = 10.0) -> Publisher:
    fleet = Fleet.create(seed=1, tenant="demo", devices=10, rate=rate, malformed_share=0, start=START)
    return Publisher(fleet, "127.0.0.1", 1, clock=clock)


def expected(first: int, last: int, start: int = START) -> list[FleetMessage]:
    fleet = Fleet.create(seed=1, tenant="demo", devices=10, rate=10.0, malformed_share=0, start=start)
    return [message for number in range(first, last) if (message := fleet.message(number)) is not None]


class TestSchedule:
    def test_takes_what_is_due_and_no_more(self) -> None:
        clock = Clock()
        source = publisher(clock)
        assert source._take(500) == expected(0, 1)
        clock.now += SECOND
        assert source._take(500) == expected(1, 11)
        assert source._take(500) == []

    def test_takes_no_more_than_there_is_room_for_and_the_rest_later(self) -> None:
        clock = Clock()
        source = publisher(clock)
        clock.now += SECOND
        assert source._take(3) == expected(0, 3)
        assert source._take(500) == expected(3, 11)

    def test_what_was_not_acknowledged_goes_first(self) -> None:
        source = publisher(Clock())
        lost = [FleetMessage("topic", b"lost")]
        source._again = list(lost)
        assert source._take(500) == lost + expected(0, 1)

    def test_a_schedule_far_behind_starts_anew(self) -> None:
        clock = Clock()
        source = publisher(clock)
        clock.now += BEHIND_MICROSECONDS + SECOND
        assert source._take(500) == expected(0, 1, start=clock.now)

    def test_a_clock_that_was_set_back_starts_the_schedule_anew(self) -> None:
        clock = Clock()
        source = publisher(clock)
        clock.now -= 3600 * SECOND
        assert source._take(500) == expected(0, 1, start=clock.now)

    def test_a_slow_schedule_is_not_mistaken_for_a_clock_that_was_set_back(self) -> None:
        clock = Clock()
        source = publisher(clock, rate=0.001)
        source._take(500)
        clock.now += SECOND
        assert source._take(500) == []
        clock.now = START + 1000 * SECOND
        assert len(source._take(500)) == 1


class TestPause:
    def test_is_short_at_high_rates_and_bounded_at_low_ones(self) -> None:
        for rate, pause in ((20_000.0, 0.005), (0.001, 10.0), (10.0, 0.1)):
            source = publisher(Clock(), rate)
            source._take(1)
            assert source._pause() == pause


class TestReaders:
    """Whether anybody reads, as far as the broker's acknowledgements say."""

    @staticmethod
    def with_readers() -> Publisher:
        source = publisher(Clock())
        source._has_readers = True
        return source

    def test_are_gone_when_a_whole_round_of_sensors_comes_back_unread(self) -> None:
        source = self.with_readers()
        unread = expected(0, 10)
        for message in unread[:-1]:
            source._look_for_readers(Answers(0, [message]))
        before = source._has_readers
        source._look_for_readers(Answers(0, unread[-1:]))
        assert (before, source._has_readers) == (True, False)
        assert source._take(500) == [*unread, *expected(0, 1)]

    def test_of_some_sensors_are_enough(self) -> None:
        source = self.with_readers()
        for message in expected(0, 100):
            source._look_for_readers(Answers(1, [message]))
        assert source._has_readers
        assert source._take(500) == expected(0, 1)
