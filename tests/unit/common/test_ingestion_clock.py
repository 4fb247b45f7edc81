"""Receipt times: near the clock, and never twice the same."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import REGISTRY

from sens_common.envelope import Message
from sens_common.ingestion.clock import STEP, ReceiptClock, numbered_by_device, time_slot
from support.clocks import Machine

SECOND = 1_000_000
HOUR = 3600 * SECOND


def clock_of(machine: Machine, client_id: str = "sens-0") -> ReceiptClock:
    return ReceiptClock(time_slot(client_id), wall_ns=machine.wall, steady_ns=machine.steady)


def taken(clock: ReceiptClock, count: int = 3) -> list[int]:
    first, _ = clock.next()
    times = [first + STEP * number for number in range(count)]
    clock.note_given(times[-1])
    return times


async def problem(clock: ReceiptClock) -> str | None:
    return await clock.check()


def sample(name: str) -> float:
    return REGISTRY.get_sample_value(f"sens_ingestion_clock_{name}") or 0


class TestReplicas:
    def test_never_give_the_same_time(self) -> None:
        machine = Machine()
        times = [time for number in (0, 1, 10) for time in taken(clock_of(machine, f"sens-{number}"), 24)]
        assert len(set(times)) == 72

    def test_never_give_the_same_time_when_their_clocks_are_set_back(self) -> None:
        machines = [Machine() for _ in range(8)]
        clocks = [clock_of(machine, f"sens-{number}") for number, machine in enumerate(machines)]
        times = []
        for machine, clock in zip(machines, clocks, strict=True):
            times += taken(clock, 50_000)
            machine.set(-HOUR // 2 - 40_000)
        for machine, clock in zip(machines, clocks, strict=True):
            machine.wait(HOUR // 2)
            times += taken(clock, 50_000)
        assert len(set(times)) == len(times)


class TestClockThatIsSet:
    @pytest.mark.parametrize("by", [3 * HOUR, -3 * HOUR, 24 * 365 * HOUR, -24 * 365 * HOUR])
    def test_is_followed_at_once_and_back(self, by: int) -> None:
        machine = Machine()
        clock = clock_of(machine)
        for step in (0, by, -by, 0):
            machine.set(step)
            for _ in range(20):
                machine.wait(SECOND // 10)
                assert 0 <= taken(clock)[0] - machine.now + 10 < SECOND

    def test_by_a_little_is_followed_slowly_without_a_time_given_twice(self) -> None:
        machine = Machine()
        clock = clock_of(machine)
        first = taken(clock)[-1]
        machine.set(-SECOND // 3)
        assert first < taken(clock)[0] < machine.now + SECOND // 2
        machine.wait(SECOND)
        assert taken(clock)[0] - machine.now < 100

    async def test_is_a_problem_until_it_is_set_again(self) -> None:
        machine = Machine()
        clock = clock_of(machine)
        clock.export_metrics()
        jumps = sample("jumps_total")
        assert await problem(clock) is None
        machine.set(3 * HOUR)
        machine.wait(7 * SECOND)
        taken(clock)
        machine.wait(5 * SECOND)
        assert await problem(clock) == (
            "the machine's clock was set 10,800.0 s forward 5 s ago; messages without a time get what it says: is it right?"
        )
        assert sample("off_seconds") == 3 * 3600
        machine.set(-3 * HOUR)
        assert await problem(clock) is None
        assert sample("jumps_total") == jumps + 2

    async def test_is_no_problem_any_more_when_nobody_has_set_it_for_five_minutes(self) -> None:
        machine = Machine()
        clock = clock_of(machine)
        machine.set(-3 * HOUR)
        assert "10,800.0 s back" in (await problem(clock) or "")
        machine.wait(299 * SECOND)
        assert await problem(clock)
        machine.wait(2 * SECOND)
        assert await problem(clock) is None

    def test_is_not_one_of_a_process_that_stood_still_between_two_looks(self) -> None:
        machine = Machine()
        stops = iter([3 * SECOND])

        def stopped() -> int:
            machine.wait(next(stops, 0))
            return machine.steady()

        clock = ReceiptClock(time_slot("sens-0"), wall_ns=machine.wall, steady_ns=machine.steady)
        clock._steady_ns = stopped
        jumps = sample("jumps_total")
        taken(clock)
        assert sample("jumps_total") == jumps


class TestRestart:
    def restarted(self, machine: Machine, header: str | None, newest: int) -> ReceiptClock:
        clock = clock_of(machine)
        clock.recall(header, newest)
        return clock

    async def test_goes_on_where_the_newest_message_is(self) -> None:
        machine = Machine()
        clock = clock_of(machine)
        given = taken(clock, 10_000)
        assert clock.header is None
        again = self.restarted(machine, clock.header, given[-1])
        assert taken(again)[0] == given[-1] + STEP
        assert again.header is None
        assert await problem(again) is None

    async def test_after_the_clock_was_set_back_gives_no_time_twice_and_says_so(self) -> None:
        machine = Machine()
        given = []
        clock = clock_of(machine)
        for _ in range(1000):
            machine.wait(SECOND)
            given += taken(clock, 100)
        machine.set(-500 * SECOND)
        clock = self.restarted(machine, clock.header, given[-1])
        assert "set 500." in (await problem(clock) or "")
        for _ in range(1000):
            machine.wait(SECOND)
            given += taken(clock, 100)
        assert len(set(given)) == len(given)

    async def test_knows_what_was_given_while_the_clock_was_ahead(self) -> None:
        """And does not take a moment that the clock was ahead, and is no more, for one to come."""
        machine = Machine()
        clock = clock_of(machine)
        given = taken(clock)
        machine.set(HOUR)
        given += taken(clock, 20_000)
        machine.set(-HOUR)
        given += taken(clock)
        clock = self.restarted(machine, clock.header, given[-1])
        assert await problem(clock) is None
        machine.wait(HOUR - SECOND)
        for _ in range(10):
            given += taken(clock, 20_000)
            machine.wait(SECOND // 3)
        assert len(set(given)) == len(given)

    def test_forgets_what_the_clock_did_long_ago(self) -> None:
        machine = Machine()
        clock = clock_of(machine)
        for step in (0, HOUR, -HOUR):
            machine.set(step)
            taken(clock)
        assert clock.header is not None
        machine.wait(8 * 24 * HOUR)
        taken(clock)
        assert clock.header is None

    @pytest.mark.parametrize("header", ["", "x", "[]", "[[[1,2]]]", '[[["a",2]],[]]', "[[],[],[]]"])
    def test_with_a_header_that_can_not_be_read_trusts_nothing_before_the_newest_message(self, header: str) -> None:
        machine = Machine()
        exhausted = sample("exhausted_total")
        clock = self.restarted(machine, header, machine.now + HOUR)
        assert taken(clock)
        assert sample("exhausted_total") > exhausted


class TestCrowd:
    def test_gives_messages_of_one_device_different_times_however_it_is_written(self) -> None:
        topics = ["t/a", "t/00-04-A3-0B-00-1C-05-30", "t/0004a30b001c0530", "t/00:04:a3:0b:00:1c:05:30", "t/a"]
        times = [
            message.received_at for message in numbered_by_device([Message(topic, b"", 0, 1) for topic in topics], 1000)
        ]
        assert times == [1000, 1000, 1016, 1032, 1016]


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("wait"), st.integers(0, 5 * SECOND)),
            st.tuples(st.just("set"), st.integers(-20 * SECOND, 20 * SECOND)),
            st.tuples(st.just("take"), st.integers(1, 200)),
            st.tuples(st.just("take and publish"), st.integers(1, 200)),
            st.tuples(st.just("restart"), st.just(0)),
        ),
        max_size=60,
    )
)
def test_whatever_happens_no_time_that_was_published_is_given_again(events: list[tuple[str, int]]) -> None:
    """Unless the clock says so, because a stretch is passed for the third time."""
    machine = Machine()
    clock = clock_of(machine)
    published: list[int] = []
    header: str | None = None
    under_way: list[int] = []
    exhausted = sample("exhausted_total")
    for event, number in events:
        match event:
            case "wait":
                machine.wait(number)
            case "set":
                machine.set(number)
            case "restart":
                clock = clock_of(machine)
                clock.recall(header, published[-1] if published else 0)
                under_way = []
            case _:
                times = taken(clock, number)
                assert -100 < times[0] - machine.now < SECOND
                under_way += times
        if event == "take and publish":
            published += under_way
            under_way = []
            header = clock.header
    if sample("exhausted_total") == exhausted:
        assert len(set(published)) == len(published)
        assert all(time % STEP in {0, STEP // 2} for time in published)
        assert all(first != second for first, second in itertools.pairwise(published))
