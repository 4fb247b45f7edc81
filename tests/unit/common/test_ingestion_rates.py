"""Tenants' messages a second."""

from collections import Counter
from collections.abc import Mapping

from hypothesis import given
from hypothesis import strategies as st

from sens_common.envelope import Message
from sens_common.ingestion.rates import Rates
from support.clocks import Clock


def rates_of(limits: Mapping[str, int | None]) -> tuple[Rates, Clock]:
    clock = Clock()
    rates = Rates(clock)
    rates.set(limits)
    return rates, clock


def messages(tenant: str, count: int) -> list[Message]:
    return [Message(f"sens/v1/{tenant}/d1/telemetry", b"", number, number) for number in range(1, count + 1)]


def over(rates: Rates, tenant: str, count: int) -> int:
    return len(rates.over(messages(tenant, count)))


class TestOver:
    def test_is_nothing_without_limits(self) -> None:
        assert Rates().over(messages("demo", 100_000)) == {}
        rates, _ = rates_of({"demo": None})
        assert over(rates, "demo", 100_000) == 0

    def test_is_what_exceeds_a_second_at_once_and_then_the_rate(self) -> None:
        rates, clock = rates_of({"demo": 100})
        assert over(rates, "demo", 150) == 50
        assert over(rates, "demo", 1) == 1
        clock.now += 0.5
        assert over(rates, "demo", 60) == 10
        clock.now += 3600
        assert over(rates, "demo", 101) == 1

    def test_are_the_last_messages_of_that_tenant_alone(self) -> None:
        rates, _ = rates_of({"demo": 2, "other": 2, "unlimited": None})
        mixed = [
            Message(f"sens/v1/{tenant}/d1/telemetry", b"", number, 0)
            for number, tenant in enumerate(
                ["demo", "unlimited", "demo", "other", "demo", "unlimited", "other", "demo"]
            )
        ]
        assert rates.over([*mixed, Message("x", b"", 9, 0)]) == {4: "demo", 7: "demo"}

    def test_is_everything_at_a_rate_of_0(self) -> None:
        rates, clock = rates_of({"demo": 0})
        clock.now += 10
        assert over(rates, "demo", 3) == 3

    @given(st.lists(st.tuples(st.floats(0, 5), st.integers(0, 300)), max_size=30))
    def test_never_lets_more_through_than_the_rate_and_a_second(self, deliveries: list[tuple[float, int]]) -> None:
        rates, clock = rates_of({"demo": 50})
        began, through = clock.now, 0
        for seconds, count in deliveries:
            clock.now += seconds
            through += count - over(rates, "demo", count)
        assert through <= 50 * (clock.now - began) + 50


class TestSet:
    def test_changes_a_rate_at_once_and_forgets_what_is_gone(self) -> None:
        rates, clock = rates_of({"demo": 100, "other": 1})
        assert over(rates, "demo", 100) == 0
        rates.set({"demo": 10, "new": None})
        assert over(rates, "demo", 10) == 10
        clock.now += 5
        assert over(rates, "demo", 20) == 10
        assert over(rates, "other", 20) == 0
        assert rates.tenants == {"demo", "new"}

    def test_gives_nobody_another_second_by_saying_the_same_again(self) -> None:
        rates, _ = rates_of({"demo": 100})
        assert over(rates, "demo", 100) == 0
        rates.set({"demo": 100})
        assert over(rates, "demo", 1) == 1


class TestWasAway:
    def test_lets_through_what_waited_meanwhile(self) -> None:
        """The tenant kept to its rate; the worker was restarted, or the stream took nothing."""
        rates, clock = rates_of({"demo": 100})
        clock.now += 600
        rates.was_away(600)
        assert sum(over(rates, "demo", 1000) for _ in range(60)) == 0
        assert over(rates, "demo", 200) == 100

    def test_ends_when_the_worker_has_taken_everything(self) -> None:
        rates, clock = rates_of({"demo": 100})
        clock.now += 600
        rates.was_away(600)
        assert over(rates, "demo", 1000) == 0
        rates.was_idle()
        assert over(rates, "demo", 1000) == 1000

    def test_holds_for_each_tenant_by_itself(self) -> None:
        rates, _ = rates_of({"demo": 10, "other": 20})
        rates.was_away(9)
        result = Counter(rates.over(messages("demo", 1000) + messages("other", 1000)).values())
        assert result == {"demo": 900, "other": 800}
