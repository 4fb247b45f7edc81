"""Which birth explains a message, by positions in the stream."""

from hypothesis import given
from hypothesis import strategies as st

from sens_common.dead_letters import Origin
from sens_payloads.formats.sparkplug_history import EDGE_NODE, Announcement, History


def at(number: int) -> Origin:
    return Origin(1, number, 0)


def node_birth(number: int, session: int | None = None, *, follows_forgotten: bool = False) -> Announcement:
    return Announcement(at(number), EDGE_NODE, True, session, follows_forgotten)


def node_death(number: int, session: int | None = None) -> Announcement:
    return Announcement(at(number), EDGE_NODE, False, session)


def birth(number: int, device: str = "d", *, follows_forgotten: bool = False) -> Announcement:
    return Announcement(at(number), device, True, None, follows_forgotten)


def death(number: int, device: str = "d") -> Announcement:
    return Announcement(at(number), device, False)


def explaining(number: int, *announcements: Announcement, device: str = "d") -> int | None:
    found = History(announcements).explaining(device, at(number))
    return None if found is None else found.position.sequence


class TestBefore:
    def test_the_last_birth_counts(self) -> None:
        assert explaining(5, birth(1), birth(3), birth(7)) == 3

    def test_another_devices_births_do_not_count(self) -> None:
        assert explaining(5, birth(1), birth(3, "other"), death(4, "other")) == 1

    def test_an_edge_nodes_birth_makes_those_of_its_devices_void(self) -> None:
        assert explaining(5, birth(1), node_birth(3)) is None
        assert explaining(5, birth(1), node_birth(3), device=EDGE_NODE) == 3

    def test_a_death_ends_the_session(self) -> None:
        assert explaining(5, birth(1), death(3)) is None
        assert explaining(5, birth(1), node_death(3)) is None
        assert explaining(5, node_birth(1, 7), node_death(3, 7), device=EDGE_NODE) is None

    def test_a_late_death_of_an_earlier_session_ends_nothing(self) -> None:
        assert explaining(5, node_birth(1, 8), birth(2), node_death(3, 7)) == 2

    def test_positions_in_several_streams_and_envelopes_are_in_order(self) -> None:
        history = History(
            [birth(1), Announcement(Origin(1, 1, 2), "d", True), Announcement(Origin(0, 9, 0), "d", True)]
        )

        found = [history.explaining("d", position) for position in (Origin(1, 1, 1), Origin(1, 1, 3), Origin(1, 0, 0))]

        assert [each and each.position for each in found] == [Origin(1, 1, 0), Origin(1, 1, 2), Origin(0, 9, 0)]


class TestAfter:
    def test_the_first_birth_counts_where_none_is_before(self) -> None:
        assert explaining(1, birth(3), birth(5)) == 3

    def test_an_edge_node_that_is_born_again_goes_on_with_its_session(self) -> None:
        assert explaining(1, node_birth(2), birth(3)) == 3
        assert explaining(2, node_birth(1), node_birth(3), birth(4)) == 4

    def test_not_after_a_death(self) -> None:
        assert explaining(1, node_death(2), node_birth(3), birth(4)) is None
        assert explaining(1, death(2), birth(3)) is None


class TestForgotten:
    def test_what_may_have_been_announced_explains_nothing(self) -> None:
        assert explaining(2, birth(3, follows_forgotten=True)) is None
        assert explaining(5, birth(1), node_birth(7, follows_forgotten=True)) is None
        assert explaining(5, birth(3, follows_forgotten=True)) == 3

    def test_a_birth_that_a_forgotten_one_may_have_made_void_explains_nothing(self) -> None:
        assert explaining(9, birth(1), node_death(7), birth(8), device="d") == 8
        assert explaining(9, birth(1), node_birth(12, follows_forgotten=True)) is None


announcements = st.lists(
    st.tuples(st.sampled_from(["", "d", "e"]), st.booleans(), st.sampled_from([None, 1, 2])), max_size=8
).map(
    lambda drawn: [
        Announcement(at(2 * number + 1), device, is_birth, session if not device else None)
        for number, (device, is_birth, session) in enumerate(drawn)
    ]
)


class TestAnyHistory:
    @given(announcements, st.integers(0, 8), st.randoms())
    def test_does_not_depend_on_the_order_in_which_it_is_learned(
        self, known: list[Announcement], number: int, random: object
    ) -> None:
        shuffled = known.copy()
        random.shuffle(shuffled)  # type: ignore[attr-defined] # random.Random

        found = History(known).explaining("d", at(2 * number))

        assert History(shuffled[:3]).with_others(shuffled).explaining("d", at(2 * number)) == found
        assert found is None or (found.is_birth and found.device == "d")

    @given(announcements, st.integers(0, 8))
    def test_what_comes_after_a_birth_that_explains_changes_nothing(
        self, known: list[Announcement], number: int
    ) -> None:
        position = at(2 * number)
        before = [each for each in known if each.position < position]

        found = History(before).explaining("d", position)

        if found is not None:
            assert History(known).explaining("d", position) == found
