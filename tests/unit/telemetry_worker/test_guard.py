"""The guard against emptying the log into the dead letters."""

from sens_telemetry_worker.guard import DeadLetterGuard


class TestShare:
    def test_below_the_limit_is_allowed(self) -> None:
        guard = DeadLetterGuard(0.5, 100)
        assert all(guard.allows(10, 5) for _ in range(100))

    def test_above_the_limit_is_refused_for_good(self) -> None:
        guard = DeadLetterGuard(0.5, 100)
        assert guard.allows(99, 99)  # too few to judge
        assert not guard.allows(1, 1)
        assert not guard.allows(1000, 0)
        assert guard.problem is not None

    def test_is_that_of_the_recent_messages(self) -> None:
        guard = DeadLetterGuard(0.5, 100)
        assert guard.allows(60, 60)
        assert guard.allows(1000, 0)
        assert guard.allows(100, 40)

    def test_of_one_switches_it_off(self) -> None:
        assert DeadLetterGuard(1, 1).allows(1000, 1000)
