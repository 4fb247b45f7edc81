"""Counts what tenants' codecs do, as they do it."""

import time
from collections.abc import Sequence

from sens_common.dead_letters import Reason
from sens_common.errors import RejectedMessageError, UnavailableError
from sens_payloads.codecs.sandbox.sandboxes import Ending
from sens_payloads.frames import Fields, Frame, FrameDecoder
from sens_payloads.profiles import Codec
from sens_telemetry_worker import metrics

_OUTCOMES = {Reason.CODEC_ERROR: "error", Reason.CODEC_LIMIT: "limit"}


class CountedCodecs:
    """What decodes frames, as `frames.FrameDecoder`; its outcomes and its time become metrics."""

    def __init__(self, codecs: FrameDecoder) -> None:
        self._codecs = codecs

    async def decode(
        self, tenant_id: int, codec: Codec, frames: Sequence[Frame]
    ) -> list[Fields | RejectedMessageError]:
        """See `frames.FrameDecoder.decode`; raises as what it wraps."""
        started = time.perf_counter()
        try:
            results = await self._codecs.decode(tenant_id, codec, frames)
        except UnavailableError:
            metrics.CODEC_FRAMES.labels("unavailable").inc(len(frames))
            raise
        metrics.CODEC_SECONDS.observe(time.perf_counter() - started)
        refused = 0
        for result in results:
            if isinstance(result, RejectedMessageError):
                refused += 1
                metrics.CODEC_FRAMES.labels(_outcome(result)).inc()
        if refused < len(results):
            metrics.CODEC_FRAMES.labels("decoded").inc(len(results) - refused)
        return results


def _outcome(error: RejectedMessageError) -> str:
    return next((word for reason, word in _OUTCOMES.items() if error.reason == reason), "refused")


def note_end(ending: Ending) -> None:
    """Count a process that has run codecs and ends."""
    metrics.CODEC_PROCESSES_ENDED.labels(ending).inc()
