from sens_payloads.codecs.sandbox.budget import CAPACITY_SECONDS, REFILL_RATIO, RESUME_SECONDS, WasteBudget

BAD, WORSE, GOOD = b"b" * 32, b"w" * 32, b"g" * 32


class TestWasteBudget:
    def test_lets_a_codec_run_while_little_is_wasted(self) -> None:
        budget = WasteBudget(0.0)
        budget.charge(BAD, CAPACITY_SECONDS - 0.1, 0.0)

        assert budget.pause(BAD, 0.0) == 0

    def test_pauses_those_that_emptied_it_until_it_has_filled_a_little(self) -> None:
        budget = WasteBudget(0.0)
        budget.charge(BAD, CAPACITY_SECONDS / 2, 0.0)
        budget.charge(WORSE, CAPACITY_SECONDS / 2, 0.0)
        resumes = RESUME_SECONDS / REFILL_RATIO

        assert budget.pause(BAD, 0.0) == budget.pause(WORSE, 0.0) == resumes
        assert budget.pause(GOOD, 0.0) == 0
        assert budget.pause(BAD, resumes / 2) == resumes / 2
        assert budget.pause(BAD, resumes) == 0

    def test_never_lets_more_be_wasted_than_its_share(self) -> None:
        budget, wasted, now = WasteBudget(0.0), 0.0, 0.0
        for _ in range(100_000):
            now += 0.1
            if budget.pause(BAD, now) == 0:
                budget.charge(BAD, 0.1, now)
                wasted += 0.1

        assert wasted <= CAPACITY_SECONDS + REFILL_RATIO * now + 0.1

    def test_forgives_after_a_while(self) -> None:
        budget = WasteBudget(0.0)
        budget.charge(BAD, 100.0, 0.0)

        assert budget.has_offended(BAD)
        assert not budget.has_offended(GOOD)
        assert not budget.is_full(2 * CAPACITY_SECONDS / REFILL_RATIO - 1)
        assert budget.is_full(2 * CAPACITY_SECONDS / REFILL_RATIO)
        assert budget.pause(BAD, 2 * CAPACITY_SECONDS / REFILL_RATIO) == 0
        assert not budget.has_offended(BAD)

    def test_remembers_a_bounded_number_of_codecs(self) -> None:
        budget = WasteBudget(0.0)
        for n in range(1000):
            budget.charge(n.to_bytes(32), 1.0, 0.0)

        assert len(budget._offenders) == 64
        assert budget.pause((999).to_bytes(32), 0.0) > 0
