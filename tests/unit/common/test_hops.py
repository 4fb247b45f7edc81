"""Which hop is the bottleneck."""

from sens_common.hops import amount, blocking_hop

HOPS = {"nats": "NATS", "stream": "the stream", "lanes": None}


class TestBottleneck:
    def test_is_the_first_hop_whose_check_fails(self) -> None:
        answers = {"stream": "no answer", "nats": "not connected to NATS", "other": "ok"}
        assert blocking_hop(HOPS, answers) == "NATS holds: not connected to NATS"

    def test_is_said_to_be_full_when_its_limit_is_reached(self) -> None:
        assert blocking_hop(HOPS, {"stream": "maximum bytes exceeded"}) == "the stream is full: maximum bytes exceeded"

    def test_is_named_by_a_check_that_speaks_of_several(self) -> None:
        assert blocking_hop(HOPS, {"lanes": "the database holds: no end"}) == "the database holds: no end"

    def test_is_none_when_all_is_well(self) -> None:
        assert blocking_hop(HOPS, {"nats": "ok", "other": "a failure that hinders nobody"}) is None


def test_an_amount_has_its_plural() -> None:
    assert (amount(1, "lane"), amount(1200, "envelope"), amount(0, "lane")) == ("1 lane", "1,200 envelopes", "0 lanes")
