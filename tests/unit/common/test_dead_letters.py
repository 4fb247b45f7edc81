import pytest
from hypothesis import given
from hypothesis import strategies as st

from sens_common import envelope
from sens_common.dead_letters import Origin

POSITIONS = st.lists(st.tuples(st.integers(0, 10**18 - 1), st.integers(0, 10**9 - 1)), min_size=1, max_size=5)


class TestOrigins:
    @given(st.integers(0, 2**59), POSITIONS)
    def test_of_a_replay_come_back_from_its_header(self, stream: int, positions: list[tuple[int, int]]) -> None:
        origins = [Origin(stream, *position) for position in positions]
        assert envelope.decode_origins(envelope.encode_origins(origins)) == origins

    def test_of_an_example_are_the_documented_text(self) -> None:
        assert envelope.encode_origins([Origin(0x5F0, 17, 3), Origin(0x5F0, 18, 0)]) == "5f0:17-3,18-0"

    def test_of_the_version_before_are_read(self) -> None:
        assert envelope.decode_origins("5f0:17") == [Origin(0x5F0, 17, 0)]

    @pytest.mark.parametrize("header", ["", "5f0", "5f0:", "g:1-2", "5f0:1-2,", "5f0:1-2 ", "5f0:\uff11-2"])
    def test_that_nobody_wrote_are_refused(self, header: str) -> None:
        with pytest.raises(ValueError, match="not the origins"):
            envelope.decode_origins(header)
