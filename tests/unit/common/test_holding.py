"""Words for which hop holds."""

from sens_common.holding import amount, holder

HOPS = {"nats": "NATS", "log": "the log", "lanes": None}


class TestHolder:
    def test_is_the_first_hop_whose_check_fails(self) -> None:
        answers = {"log": "no answer", "nats": "not connected to NATS", "other": "ok"}
        assert holder(HOPS, answers) == "NATS holds: not connected to NATS"

    def test_is_said_to_be_full_when_its_limit_is_reached(self) -> None:
        assert holder(HOPS, {"log": "maximum bytes exceeded"}) == "the log is full: maximum bytes exceeded"

    def test_is_named_by_a_check_that_speaks_of_several(self) -> None:
        assert holder(HOPS, {"lanes": "the database holds: no end"}) == "the database holds: no end"

    def test_is_none_when_all_is_well(self) -> None:
        assert holder(HOPS, {"nats": "ok", "other": "a failure that holds nothing"}) is None


def test_an_amount_has_its_plural() -> None:
    assert (amount(1, "lane"), amount(1200, "envelope"), amount(0, "lane")) == ("1 lane", "1,200 envelopes", "0 lanes")
