"""The steps of comparing two versions of a codec over messages: kept ones first, then those that the stream alone has, then dead letters."""

import time
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from sens_common.errors import RejectedMessageError
from sens_payloads.frames import Fields, Frame, FrameDecoder
from sens_payloads.profiles import CodecVersion
from sens_telemetry_worker.codec_runs.decoding import measured_at, unwrap
from sens_telemetry_worker.codec_runs.device_runs import DAY_MICROSECONDS, FIRST_ENVELOPES, STREAM_ENVELOPES
from sens_telemetry_worker.codec_runs.judging import Difference, differences, stored_values
from sens_telemetry_worker.codec_runs.ports import Runs, Stream
from sens_telemetry_worker.codec_runs.report import Report
from sens_telemetry_worker.codec_runs.runs import Run, RunFailedError, StreamMessage
from sens_telemetry_worker.codec_runs.senders import sender_of, senders_of
from sens_telemetry_worker.codec_runs.step_size import StepSize
from sens_telemetry_worker.interpreting import Registry
from sens_telemetry_worker.tenants import Refusal, SourceOfTenant

MOST_MESSAGES: Final = 500
"""Messages of one step."""


class _Framed(NamedTuple):
    """The bytes of a device in a message."""

    message: StreamMessage
    device: str
    frame: Frame


class Comparisons:
    """Runs that compare."""

    def __init__(self, runs: Runs, stream: Stream, registry: Registry, frames: FrameDecoder) -> None:
        self._runs = runs
        self._stream = stream
        self._registry = registry
        self._frames = frames
        self._envelopes = StepSize(FIRST_ENVELOPES, STREAM_ENVELOPES)

    async def step(self, run: Run) -> bool:
        """Do one step; return whether the run is at its end; raises as `device_runs.DeviceRuns.step`."""
        senders = await self._senders(run)
        if run.progress.phase == "frames":
            await self._compare_kept(run, senders)
        elif run.progress.phase == "stream":
            await self._compare_stream(run, senders)
        elif run.progress.letter_id >= 0:
            await self._compare_letters(run, senders)
        else:
            return True
        await self._runs.save(run)
        return False

    async def _senders(self, run: Run) -> dict[int, SourceOfTenant]:
        names = await self._registry.known_names({run.tenant})
        tenant = names.tenants.get(run.tenant)
        if tenant is None:
            raise RunFailedError(f"tenant {run.tenant} is gone")
        found = senders_of(names, tenant)
        return {id_: each for id_, each in found.items() if run.source in {None, each.source.name}}

    async def _compare_kept(self, run: Run, senders: Mapping[int, SourceOfTenant]) -> None:
        progress = run.progress
        source_id = next((id_ for id_ in senders if id_ >= progress.source_id), None)
        if source_id is None:
            await self._begin_stream(run)
            return
        if source_id != progress.source_id:
            progress.source_id, progress.reached = source_id, run.first
        found, progress.reached = await self._runs.kept_of_source(run, source_id, progress.reached, MOST_MESSAGES)
        await self._compare(run, [(each, senders[source_id]) for each in found])
        if progress.reached >= run.past:
            progress.source_id, progress.reached = source_id + 1, run.first

    async def _begin_stream(self, run: Run) -> None:
        progress, state = run.progress, await self._stream.state()
        progress.phase = "stream"
        if state.created_at != progress.stream:  # it was made again
            progress.phase = "letters"
            return
        progress.sequence = progress.first_sequence = await self._stream.first_since(
            run.first - DAY_MICROSECONDS, state
        )

    async def _compare_stream(self, run: Run, senders: Mapping[int, SourceOfTenant]) -> None:
        started, progress = time.monotonic(), run.progress
        past = min(progress.sequence + self._envelopes.count, progress.until + 1)
        found = (
            await self._stream.messages(progress.sequence, past, progress.stream) if progress.sequence < past else []
        )
        own = [
            (each, sender)
            for each in found
            if run.first <= each.message.received_at < run.past
            and (sender := sender_of(each.message.topic, run.tenant, senders)) is not None
        ]
        is_new = await self._runs.not_kept_of_sources([(each, sender.id) for each, sender in own]) if own else []
        await self._compare(run, [each for each, new in zip(own, is_new, strict=True) if new])
        progress.sequence = past
        if past > progress.until:
            progress.phase = "letters"
        self._envelopes.adapt(time.monotonic() - started)

    async def _compare_letters(self, run: Run, senders: Mapping[int, SourceOfTenant]) -> None:
        found, after = await self._runs.letters(run, MOST_MESSAGES)
        own = [
            (each, sender)
            for each in found
            if (sender := sender_of(each.message.topic, run.tenant, senders)) is not None
        ]
        await self._compare(run, own)
        run.progress.letter_id = -1 if after is None else after

    async def _compare(self, run: Run, messages: Sequence[tuple[StreamMessage, SourceOfTenant]]) -> None:
        """Compare what both versions make of the bytes of devices whose profile names the codec."""
        framed = [found for each, sender in messages for found in _framed(each, sender, run.codec)]
        if not framed or run.other is None:
            return
        frames = [each.frame for each in framed]
        before = await self._frames.decode(run.tenant_id, run.other, frames)
        after = await self._frames.decode(run.tenant_id, run.codec, frames)
        for each, was, becomes in zip(framed, before, after, strict=True):
            _report(run.report, each, was, becomes)


def _framed(each: StreamMessage, sender: SourceOfTenant, codec: CodecVersion) -> list[_Framed]:
    unwrapped = unwrap(each.message, sender)
    found: list[_Framed] = []
    for uplink in [] if isinstance(unwrapped, Refusal) else unwrapped:
        profile = sender.profile(uplink.device)
        named = None if profile is None else profile.codec
        if uplink.frame and isinstance(named, CodecVersion) and named.name == codec.name:
            frame = Frame(uplink.frame, uplink.f_port, measured_at(uplink, each.message))
            found.append(_Framed(each, uplink.device, frame))
    return found


def _report(
    report: Report, each: _Framed, before: Fields | RejectedMessageError, after: Fields | RejectedMessageError
) -> None:
    counts, time = report.counts, each.frame.measured_at
    counts.messages += 1
    failure = after if isinstance(after, RejectedMessageError) else before
    if isinstance(failure, RejectedMessageError):
        if not isinstance(before, RejectedMessageError):
            counts.failing_after += 1
        elif not isinstance(after, RejectedMessageError):
            counts.failing_before += 1
        else:
            counts.failed += 1
        received_at = each.message.message.received_at
        report.add_error(time, received_at, each.message.origin, Refusal(str(failure.reason), failure.detail))
        return
    assert not isinstance(before, RejectedMessageError)  # noqa: S101 - for the type checker
    assert not isinstance(after, RejectedMessageError)  # noqa: S101 - for the type checker
    found: list[Difference] = differences(stored_values(before), stored_values(after))
    for difference in found:
        report.add_difference(time, difference, each.device)
    if found:
        counts.changed += 1
    else:
        counts.unchanged += 1
