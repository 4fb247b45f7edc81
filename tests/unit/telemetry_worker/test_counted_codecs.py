"""What tenants' codecs do becomes metrics."""

from collections.abc import Sequence

import pytest
from prometheus_client import REGISTRY

from sens_common.dead_letters import Reason
from sens_common.errors import RejectedMessageError, UnavailableError
from sens_payloads.frames import Fields, Frame
from sens_payloads.profiles import Codec, CodecVersion
from sens_telemetry_worker.counted_codecs import CountedCodecs, note_end

CODEC = CodecVersion("mine", 1, b"", "")
ANSWERS: dict[bytes, Fields | RejectedMessageError] = {
    b"good": {"a": 1},
    b"fails": RejectedMessageError(Reason.CODEC_ERROR, "line 1"),
    b"endless": RejectedMessageError(Reason.CODEC_LIMIT, "too long"),
    b"long": RejectedMessageError(Reason.TOO_LARGE, "a text"),
}


class Answering:
    """Answers by the frames; is not there for a frame without bytes."""

    async def decode(
        self, _tenant_id: int, _codec: Codec, frames: Sequence[Frame]
    ) -> list[Fields | RejectedMessageError]:
        if not frames[0].payload:
            raise UnavailableError("nothing runs here")
        return [ANSWERS[frame.payload] for frame in frames]


def counted(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(f"sens_telemetry_codec_{name}", labels) or 0.0


class TestCountedCodecs:
    async def test_count_frames_by_outcome_and_give_what_they_got(self) -> None:
        outcomes = ("decoded", "error", "limit", "refused", "unavailable")
        before = {outcome: counted("frames_total", outcome=outcome) for outcome in outcomes}
        batches = counted("seconds_count")
        payloads = (b"good", b"fails", b"good", b"endless", b"long")

        found = await CountedCodecs(Answering()).decode(1, CODEC, [Frame(payload, 1, 0) for payload in payloads])
        with pytest.raises(UnavailableError):
            await CountedCodecs(Answering()).decode(1, CODEC, [Frame(b"", 1, 0)] * 3)

        assert found == [ANSWERS[payload] for payload in payloads]
        more = {outcome: counted("frames_total", outcome=outcome) - before[outcome] for outcome in outcomes}
        assert more == {"decoded": 2, "error": 1, "limit": 1, "refused": 1, "unavailable": 3}
        assert counted("seconds_count") == batches + 1

    def test_count_why_processes_end(self) -> None:
        before = counted("processes_ended_total", outcome="fault")

        note_end("fault")

        assert counted("processes_ended_total", outcome="fault") == before + 1
