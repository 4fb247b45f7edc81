"""Does the runs, step by step: in a worker one run at a time, the one that was left alone for longest.

A step reads messages, lets codecs decode them, and commits what they lead to together with how far the run is. So a run goes on where it was,
whichever worker takes it next.
"""

from typing import Final

import structlog

from sens_common.attempts import Attempts
from sens_common.health import Problems
from sens_payloads.frames import FrameDecoder
from sens_telemetry_worker.codec_runs.comparing import Comparisons
from sens_telemetry_worker.codec_runs.device_runs import DeviceRuns
from sens_telemetry_worker.codec_runs.ports import Readings, Runs, Stream
from sens_telemetry_worker.codec_runs.runs import (
    ChangedMeanwhileError,
    CodecVersionGoneError,
    Run,
    RunFailedError,
    RunLostError,
)
from sens_telemetry_worker.interpreting import Registry
from sens_telemetry_worker.storing import RowsRefusedError, StoreTooSlowError, StoreUnavailableError

log = structlog.get_logger()

INTERVAL_SECONDS: Final = 2.0


class CodecRunner:
    """Does the runs of all tenants."""

    def __init__(
        self, runs: Runs, readings: Readings, stream: Stream, registry: Registry, frames: FrameDecoder
    ) -> None:
        self._runs = runs
        self._stream = stream
        self._of_devices = DeviceRuns(runs, readings, stream, registry, frames)
        self._comparisons = Comparisons(runs, stream, registry, frames)

    async def keep_running(self, problems: Problems, *, interval_seconds: float = INTERVAL_SECONDS) -> None:
        """Do what there is to do, again and again."""
        attempts = Attempts(
            problems,
            "codec runs",
            "messages can't be decoded again",
            retry_on=(StoreUnavailableError, RowsRefusedError),
            interval_seconds=interval_seconds,
        )
        async for attempt in attempts:
            with attempt:
                while await self.step():
                    pass

    async def step(self) -> bool:
        """Do one step of a run; return whether there is more to do now.

        Raises:
            StoreUnavailableError: The database or NATS can't be used; the run goes on later.
        """
        try:
            run = await self._runs.take()
        except CodecVersionGoneError as error:
            log.warning("a run has ended, because a version of its codec was deleted", codec=str(error))
            return True
        if run is None:
            return False
        try:
            return await self._step(run)
        except RunLostError:
            return True
        except ChangedMeanwhileError:
            await self._runs.give_back(run)
            return True
        except RunFailedError as error:
            await self._runs.finish(run, str(error))
            return True
        except StoreTooSlowError:
            self._of_devices.take_less()
            raise

    async def _step(self, run: Run) -> bool:
        """Do one step; return whether there is more to do now."""
        if run.progress.phase == "waiting":
            return await self._wait(run)
        if await (self._comparisons if run.kind == "compare" else self._of_devices).step(run):
            await self._runs.finish(run)
            log.info("a run of a codec has ended", tenant=run.tenant, run=run.id, codec=str(run.codec))
        return True

    async def _wait(self, run: Run) -> bool:
        """Wait until all is stored that was in the stream when the run began; return whether there is more to do now."""
        progress, state = run.progress, await self._stream.state()
        if progress.stream != state.created_at:
            progress.stream, progress.until = state.created_at, state.last
        is_settled = state.settled >= progress.until
        if is_settled:
            progress.phase, progress.reached = "frames", run.first
        await self._runs.save(run)
        return is_settled
