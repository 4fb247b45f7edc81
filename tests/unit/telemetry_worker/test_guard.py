"""The guard against emptying the log into the dead letters."""

from sens_telemetry_worker.guard import DeadLetterGuard


def batch(guard: DeadLetterGuard, messages: int, rejected: int, *, devices: int = 10) -> bool:
    """Offer a batch whose devices take turns; the first messages are the rejected ones."""
    topics = [f"d{number % devices}" for number in range(messages)]
    return guard.allows(topics, topics[:rejected])


class TestShare:
    def test_below_the_limit_is_allowed(self) -> None:
        guard = DeadLetterGuard(0.5, 100)
        assert all(batch(guard, 10, 5) for _ in range(100))

    def test_above_the_limit_is_refused_for_good(self) -> None:
        guard = DeadLetterGuard(0.5, 100)
        assert batch(guard, 99, 99)  # too few to judge
        assert not batch(guard, 1, 1)
        assert not batch(guard, 1000, 0)
        assert guard.problem is not None

    def test_is_that_of_the_recent_messages(self) -> None:
        guard = DeadLetterGuard(0.5, 100)
        assert batch(guard, 60, 60)
        assert batch(guard, 1000, 0)
        assert batch(guard, 100, 40)

    def test_of_one_switches_it_off(self) -> None:
        assert batch(DeadLetterGuard(1, 1), 1000, 1000)


class TestDevices:
    def test_one_broken_sensor_does_not_stop_the_others(self) -> None:
        guard = DeadLetterGuard(0.5, 100)
        for _ in range(100):
            assert guard.allows(["bad"] * 99 + ["good", "fine"], ["bad"] * 99)

    def test_a_single_sensor_is_all_there_is(self) -> None:
        assert not DeadLetterGuard(0.5, 100).allows(["only"] * 100, ["only"] * 100)
