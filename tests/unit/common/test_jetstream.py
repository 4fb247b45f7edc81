"""Streams that an operator made."""

import pytest
from nats.js.api import DiscardPolicy, RetentionPolicy, StreamConfig

from sens_common.jetstream import discarding

SAFE = StreamConfig(name="TELEMETRY", retention=RetentionPolicy.LIMITS, discard=DiscardPolicy.NEW, max_bytes=1 << 30)


class TestDiscarding:
    def test_is_not_what_a_stream_does_that_refuses(self) -> None:
        assert discarding(SAFE) is None
        assert discarding(SAFE.evolve(max_msgs_per_subject=1, discard_new_per_subject=True)) is None

    @pytest.mark.parametrize(
        ("changed", "what"),
        [
            ({"discard": DiscardPolicy.OLD}, "discards old messages when it is full"),
            ({"max_age": 3600}, "removes messages after 3600 s"),
            ({"max_msgs_per_subject": 100}, "discards old messages of a subject"),
            ({"retention": RetentionPolicy.INTEREST}, "has retention interest"),
        ],
    )
    def test_is_told_with_its_remedy(self, changed: dict[str, object], what: str) -> None:
        problem = discarding(SAFE.evolve(**changed))
        assert problem is not None
        assert problem.startswith(f"stream TELEMETRY {what}, stored in the database or not: ")
