"""The steps of decoding the messages of a device again: kept ones first, then those that the stream alone has, then what neither covers."""

import time
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from sens_common.control import device_hash
from sens_common.dead_letters import Reason
from sens_common.envelope import Message
from sens_payloads.frames import FrameDecoder
from sens_telemetry_worker.codec_runs.decoding import DeviceDecoder, times_of
from sens_telemetry_worker.codec_runs.judging import Metric, Values
from sens_telemetry_worker.codec_runs.ports import Readings, Runs, Stream
from sens_telemetry_worker.codec_runs.runs import (
    ChangedMeanwhileError,
    DecodedFrame,
    Run,
    RunFailedError,
    StreamMessage,
)
from sens_telemetry_worker.codec_runs.senders import sender_of, senders_of
from sens_telemetry_worker.codec_runs.step_size import StepSize
from sens_telemetry_worker.interpreting import Registry
from sens_telemetry_worker.tenants import Device, MetricKey, NewMetrics, Refusal, SourceOfTenant, Tenant
from sens_telemetry_worker.topic_resolving import KnownNames

MOST_READINGS: Final = 2000
"""Readings of one step; fewer where they take long."""
STREAM_ENVELOPES: Final = 64
"""Envelopes that one step reads; fewer where they take long."""
COVERAGE_READINGS: Final = 5000
"""Readings of which one step looks whether a message was found for them."""
DAY_MICROSECONDS: Final = 86_400_000_000
FIRST_ENVELOPES: Final = 4
_FIRST_READINGS: Final = 200


class _Known(NamedTuple):
    """What a step knows of names."""

    names: KnownNames
    device: Device

    def senders(self) -> dict[int, SourceOfTenant]:
        """Return the sources of the device's tenant that can be used, by their ids."""
        return senders_of(self.names, self.device.tenant)


class DeviceRuns:
    """Runs of devices."""

    def __init__(
        self, runs: Runs, readings: Readings, stream: Stream, registry: Registry, frames: FrameDecoder
    ) -> None:
        self._runs = runs
        self._readings = readings
        self._stream = stream
        self._registry = registry
        self._frames = frames
        self._most = StepSize(_FIRST_READINGS, MOST_READINGS)
        self._envelopes = StepSize(FIRST_ENVELOPES, STREAM_ENVELOPES)

    async def step(self, run: Run) -> bool:
        """Do one step; return whether the run is at its end.

        Raises:
            RunFailedError: It can't be finished.
            RunLostError: It is not ours any more.
            ChangedMeanwhileError: Do the step again.
        """
        known = await self._known(run)
        if run.progress.phase == "frames":
            await self._decode_kept(run, known)
        elif run.progress.phase == "stream":
            await self._decode_stream(run, known)
        elif run.progress.reached < run.past:
            await self._readings.coverage(run, known.device, COVERAGE_READINGS)
        else:
            return True
        return False

    def take_less(self) -> None:
        """Take fewer readings in a step: the database did not finish in time."""
        self._most.take_less()
        self._envelopes.take_less()

    async def _known(self, run: Run) -> _Known:
        """Return what is known of names.

        Raises:
            RunFailedError: The device is gone.
        """
        names = await self._registry.known_names({run.tenant})
        tenant = names.tenants.get(run.tenant)
        if tenant is None or run.device is None:
            raise RunFailedError(f"tenant {run.tenant} is gone")
        key = tenant.id, run.device
        registered = await self._registry.register_devices([(tenant, run.device)], {key})
        if key not in registered.ids:
            raise RunFailedError(f"device {run.device} was deleted, moved or renamed")
        erased_before = names.erasures.get((tenant.id, device_hash(run.device)), 0)
        return _Known(names, Device(registered.ids[key], run.device, tenant, erased_before))

    async def _decode_kept(self, run: Run, known: _Known) -> None:
        """Decode kept messages of the next times; behind the last ones, go on with the stream."""
        started = time.monotonic()
        window = await self._runs.window(run, known.device.id, run.progress.reached, self._most.count)
        senders = known.senders()
        there = [
            (each, each.message, senders[each.source_id])
            for each in window.frames
            if each.message is not None
            and each.source_id in senders
            and each.message.received_at >= known.device.erased_before
        ]
        values = await self._decode(run, known, [message for _, message, _ in there], [sender for *_, sender in there])
        by_origin = {each.origin: said for (each, _, _), said in zip(there, values, strict=True)}
        decoded = [
            DecodedFrame(
                each.ts,
                each.origin,
                0 if each.message is None else each.message.received_at,
                _at(by_origin.get(each.origin, _UNUSABLE), each.ts),
            )
            for each in window.frames
        ]
        run.progress.reached = window.past
        if window.past >= run.past:
            await self._begin_stream(run)
        decoded = await self._registered(known, run, decoded)
        await self._readings.step(run, known.device, decoded, known.names.generation, are_kept=True)
        self._most.adapt(time.monotonic() - started)

    async def _begin_stream(self, run: Run) -> None:
        state = await self._stream.state()
        run.progress.phase, run.progress.reached = "stream", run.first
        if state.created_at != run.progress.stream:  # it was made again
            run.progress.phase = "coverage"
            return
        run.progress.sequence = await self._stream.first_since(run.first - DAY_MICROSECONDS, state)

    async def _decode_stream(self, run: Run, known: _Known) -> None:
        """Decode messages of the next envelopes that were not kept; behind the last one, look what was not covered.

        Raises:
            ChangedMeanwhileError: They have more messages of the device than a step takes; do it again with fewer.
        """
        started, progress = time.monotonic(), run.progress
        envelopes = 1 if progress.index else self._envelopes.count
        past = min(progress.sequence + envelopes, progress.until + 1)
        found = (
            await self._stream.messages(progress.sequence, past, progress.stream) if progress.sequence < past else []
        )
        found = found[progress.index :]
        wanted = await self._not_kept(run, known, found)
        left = wanted[self._most.count :]
        if left and past > progress.sequence + 1:
            self._envelopes.take_less(2)
            raise ChangedMeanwhileError
        wanted = wanted[: self._most.count]
        messages = [each.message for each, _, _ in wanted]
        senders = [sender for *_, sender in wanted]
        values = await self._decode(run, known, messages, senders)
        decoder = DeviceDecoder(self._frames, known.device.tenant.id, known.device.name)
        former = [await decoder.decode(messages, senders, each) for each in run.candidates] if messages else []
        decoded = [
            DecodedFrame(
                ts,
                each.origin,
                each.message.received_at,
                _at(values[index], ts),
                tuple(said for of_codec in former if not isinstance(said := _at(of_codec[index], ts), Refusal)),
            )
            for index, (each, times, _) in enumerate(wanted)
            for ts in times
        ]
        decoded = await self._registered(known, run, decoded)
        if left:
            progress.index += next(index for index, each in enumerate(found) if each is left[0][0])
        else:
            progress.sequence, progress.index = past, 0
        if progress.sequence > progress.until:
            progress.phase = "coverage"
        await self._readings.step(run, known.device, decoded, known.names.generation, are_kept=False)
        seconds = time.monotonic() - started
        self._envelopes.adapt(seconds)
        self._most.adapt(seconds)

    async def _not_kept(
        self, run: Run, known: _Known, found: Sequence[StreamMessage]
    ) -> list[tuple[StreamMessage, list[int], SourceOfTenant]]:
        """Return the messages of the device that were neither kept nor became dead letters, with the times of their readings in the range, and their sources."""
        senders = known.senders()
        own = [
            (each, sender)
            for each in found
            if each.message.received_at >= known.device.erased_before
            and (sender := sender_of(each.message.topic, run.tenant, senders)) is not None
        ]
        times = times_of([each.message for each, _ in own], known.device.name, [sender for _, sender in own])
        pairs = [
            (each, ts, sender)
            for (each, sender), of_message in zip(own, times, strict=True)
            for ts in of_message
            if run.first <= ts < run.past
        ]
        if not pairs:
            return []
        is_new = await self._runs.not_kept(known.device.id, [(each, ts) for each, ts, _ in pairs])
        wanted: dict[int, tuple[StreamMessage, list[int], SourceOfTenant]] = {}
        for (each, ts, sender), new in zip(pairs, is_new, strict=True):
            if new:
                wanted.setdefault(id(each), (each, [], sender))[1].append(ts)
        return list(wanted.values())

    async def _decode(
        self, run: Run, known: _Known, messages: Sequence[Message], senders: Sequence[SourceOfTenant]
    ) -> list[Mapping[int, Values] | Refusal]:
        if not messages:
            return []
        decoder = DeviceDecoder(self._frames, known.device.tenant.id, known.device.name)
        return await decoder.decode(messages, senders, run.codec)

    async def _registered(self, known: _Known, run: Run, decoded: Sequence[DecodedFrame]) -> list[DecodedFrame]:
        """Register metrics that are new; what has one that the tenant's limits leave no room for is refused."""
        if run.kind != "redecode":
            return list(decoded)
        tenant = known.device.tenant
        wanted = list(dict.fromkeys(new for each in decoded if (new := _new_metrics(each, tenant))))
        if not wanted:
            return list(decoded)
        registered = await self._registry.register_metrics([NewMetrics(tenant, each) for each in wanted])
        for (_, name, kind), metric_id in registered.ids.items():
            tenant.metric_ids[kind][name] = metric_id
        return [
            each
            if (refusal := _first_refusal(each, tenant, registered.refusals)) is None
            else each._replace(values=refusal)
            for each in decoded
        ]


_UNUSABLE: Final = Refusal(Reason.UNKNOWN_SOURCE, "its source is gone or can't be used, or its payload is gone")
_NO_READING: Final = Refusal(
    Reason.INVALID_METRIC, "as its source reads it now, it has no reading of this time any more"
)


def _at(said: Mapping[int, Values] | Refusal, ts: int) -> Values | Refusal:
    """Return what a message says of a time."""
    return said if isinstance(said, Refusal) else said.get(ts, _NO_READING)


def _new_metrics(each: DecodedFrame, tenant: Tenant) -> frozenset[Metric]:
    return frozenset() if isinstance(each.values, Refusal) else tenant.unknown(each.values)


def _first_refusal(each: DecodedFrame, tenant: Tenant, refusals: Mapping[MetricKey, Refusal]) -> Refusal | None:
    metrics = () if isinstance(each.values, Refusal) else sorted(each.values)
    return next((refusals[key] for name, kind in metrics if (key := (tenant.id, name, kind)) in refusals), None)
