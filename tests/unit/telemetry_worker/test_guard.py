"""The guard against emptying the stream into the dead letters."""

from collections.abc import Mapping

from sens_common.dead_letters import Reason
from sens_telemetry_worker.guard import (
    QUIET_SECONDS,
    TRIAL_SECONDS,
    WINDOW_SECONDS,
    DeadLetterGuard,
    TopicCounts,
    Verdict,
    count_by_topic,
    is_guarded_reason,
)
from support.clocks import Clock


def some(message_count: int, rejected_count: int, *, devices: int = 10) -> TopicCounts:
    """Return messages whose devices take turns; the first messages are the rejected ones."""
    topics = [f"d{number % devices}" for number in range(message_count)]
    return count_by_topic(topics, topics[:rejected_count], dict.fromkeys(topics, "any"))["any"]


def guard_of(*quiet: str, **tenants: TopicCounts) -> tuple[DeadLetterGuard, Clock]:
    """Return a guard that allows half and judges from 100 messages on, after one batch; the quiet tenants stored within the last day."""
    clock = Clock()
    guard = DeadLetterGuard(0.5, 100, clock)
    guard.expect(quiet)
    guard.note(tenants)
    return guard, clock


def settled(guard: DeadLetterGuard, batch: Mapping[str, TopicCounts]) -> bool:
    guard.note(batch)
    return guard.decide() is Verdict.STORE


class TestOneTenant:
    def test_stops_nobody_however_much_of_it_is_rejected(self) -> None:
        guard, _ = guard_of(hostile=some(2000, 2000))
        assert guard.decide() is Verdict.STORE
        assert guard.conspicuous() == 1
        assert guard.rejects_everything()

    def test_with_few_messages_is_not_conspicuous(self) -> None:
        guard, _ = guard_of(new=some(99, 99))
        assert guard.conspicuous() == 0

    def test_is_judged_by_its_recent_messages(self) -> None:
        guard, _ = guard_of(repaired=some(100, 100))
        assert settled(guard, {"repaired": some(100, 50)})
        assert guard.conspicuous() == 0

    def test_with_one_broken_device_among_several_is_not_rejected(self) -> None:
        topics = ["bad"] * 990 + ["good", "fine"]
        guard, _ = guard_of(**count_by_topic(topics, topics[:990], dict.fromkeys(topics, "a")))
        assert not guard.rejects_everything()


class TestSeveralTenants:
    def test_that_are_all_rejected_stop_the_worker(self) -> None:
        guard, _ = guard_of(one=some(60, 60), other=some(60, 31))
        assert guard.decide() is Verdict.HALT
        assert guard.is_halting

    def test_do_not_stop_it_with_too_few_messages_to_judge(self) -> None:
        guard, _ = guard_of(one=some(60, 60), other=some(39, 39))
        assert guard.decide() is Verdict.STORE

    def test_do_not_stop_a_quiet_one_whose_messages_pass(self) -> None:
        guard, clock = guard_of(quiet=some(1, 0))
        for _ in range(100):
            assert settled(guard, {"hostile": some(1000, 1000), "hostile-too": some(1000, 1000)})
        clock.now += WINDOW_SECONDS - 1
        assert settled(guard, {"hostile": some(1000, 1000), "hostile-too": some(1000, 1000)})
        assert guard.conspicuous() == 2

    def test_do_not_stop_one_that_comes_in_the_same_batch(self) -> None:
        guard, _ = guard_of(hostile=some(900, 900), too=some(900, 900), third=some(1, 0))
        assert guard.decide() is Verdict.STORE

    def test_do_not_stop_one_that_was_quiet_for_hours(self) -> None:
        guard, clock = guard_of(passing=some(1000, 0), one=some(100, 100), other=some(100, 100))
        clock.now += QUIET_SECONDS - 1
        assert settled(guard, {"one": some(100, 100), "other": some(100, 100)})
        clock.now += 2
        assert not settled(guard, {"one": some(100, 100), "other": some(100, 100)})

    def test_do_not_stop_one_that_was_quiet_since_the_worker_started(self) -> None:
        guard, _ = guard_of("quiet", "one", one=some(100, 100), other=some(100, 100))
        assert guard.decide() is Verdict.STORE

    def test_stop_the_worker_when_the_quiet_one_is_rejected_too(self) -> None:
        guard, clock = guard_of("quiet", one=some(100, 100), other=some(100, 100))
        assert not settled(guard, {"quiet": some(1, 1)})
        clock.now += WINDOW_SECONDS + 1
        assert guard.decide() is Verdict.STORE  # nobody is active

    def test_do_not_stop_it_before_it_is_known_who_is_quiet(self) -> None:
        guard = DeadLetterGuard(0.5, 100)
        assert settled(guard, {"one": some(100, 100), "other": some(100, 100)})
        guard.expect([])
        assert guard.decide() is Verdict.HALT

    def test_of_which_all_are_rejected_stop_nothing_when_the_guard_is_off(self) -> None:
        guard = DeadLetterGuard(1, 1)
        assert settled(guard, {"one": some(1000, 1000), "other": some(1000, 1000)})
        assert guard.conspicuous() == 0


class TestStoppedWorker:
    def test_tries_one_batch_a_minute(self) -> None:
        guard, clock = guard_of(one=some(100, 100), other=some(100, 100))
        assert guard.decide() is Verdict.HALT
        assert guard.decide() is Verdict.HALT
        clock.now += TRIAL_SECONDS
        assert guard.decide() is Verdict.STORE
        assert guard.decide() is Verdict.HALT
        assert guard.is_halting

    def test_goes_on_once_a_tenants_messages_pass(self) -> None:
        guard, _ = guard_of(one=some(100, 100), other=some(100, 100))
        assert guard.decide() is Verdict.HALT
        assert settled(guard, {"third": some(1, 0)})
        assert not guard.is_halting

    def test_goes_on_once_it_has_nothing_to_judge_by(self) -> None:
        guard, clock = guard_of(one=some(100, 100), other=some(100, 100))
        assert guard.decide() is Verdict.HALT
        clock.now += WINDOW_SECONDS + 1
        assert guard.decide() is Verdict.STORE


def test_reasons_that_lie_with_the_sender_do_not_count() -> None:
    assert not any(map(is_guarded_reason, (Reason.INVALID_TOPIC, Reason.UNKNOWN_TENANT, Reason.LIMIT_REACHED)))
    assert is_guarded_reason(Reason.MALFORMED_PAYLOAD)
