"""Does the runs, step by step: in a worker one run at a time, the one that was left alone for longest.

A step reads messages, lets codecs decode them, and commits what they lead to together with how far the run is. So a run goes on where it was,
whichever worker takes it next.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple, Protocol

import structlog

from sens_common.attempts import Attempts
from sens_common.control import device_hash
from sens_common.dead_letters import Reason
from sens_common.envelope import Message
from sens_common.health import Problems
from sens_common.topics import SOURCES
from sens_payloads.frames import FrameDecoder
from sens_telemetry_worker.codec_runs.decoding import DeviceDecoder, times_of
from sens_telemetry_worker.codec_runs.judging import Metric, Values
from sens_telemetry_worker.codec_runs.runs import (
    ChangedMeanwhileError,
    CodecVersionGoneError,
    DecodedFrame,
    Run,
    RunFailedError,
    RunLostError,
    StreamMessage,
    StreamState,
    Window,
)
from sens_telemetry_worker.interpreting import Registry
from sens_telemetry_worker.storing import RowsRefusedError, StoreTooSlowError, StoreUnavailableError
from sens_telemetry_worker.tenants import Device, MetricKey, NewMetrics, Refusal, SourceOfTenant, Tenant
from sens_telemetry_worker.topic_resolving import KnownNames

log = structlog.get_logger()

INTERVAL_SECONDS: Final = 2.0
MOST_READINGS: Final = 2000
"""Readings of one step; fewer where they take long."""
STREAM_ENVELOPES: Final = 64
"""Envelopes that one step reads."""
COVERAGE_READINGS: Final = 5000
"""Readings of which one step looks whether a message was found for them."""
_SLOW_SECONDS: Final = 0.5
_QUICK_SECONDS: Final = 0.1
_FIRST_READINGS: Final = 200
_DAY_MICROSECONDS: Final = 86_400_000_000


class Runs(Protocol):
    """The runs of all tenants. Each method raises `storing.StoreUnavailableError` when the database can't be asked."""

    async def take(self) -> Run | None:
        """Take the run that was left alone for longest; None when there is none that nobody is at; raise `CodecVersionGoneError`."""

    async def give_back(self, run: Run) -> None:
        """Let the run be taken again at once, without having done anything of it."""

    async def save(self, run: Run) -> None:
        """Keep how far a run is, without anything else; raise `RunLostError`."""

    async def finish(self, run: Run, failure: str | None = None) -> None:
        """End a run; `failure` says why it could not be finished."""

    async def window(self, run: Run, device_id: int, first: int, most: int) -> Window:
        """Return the next kept messages of a device; raise `RunFailedError`."""

    async def not_kept(self, device_id: int, messages: Sequence[tuple[StreamMessage, int]]) -> list[bool]:
        """Tell for each message and time of a reading whether it is not among the kept ones."""


class Readings(Protocol):
    """The readings of devices."""

    async def step(
        self, run: Run, device: Device, decoded: Sequence[DecodedFrame], generation: int, *, are_kept: bool
    ) -> None:
        """Judge what messages say, store it unless it is a dry run, and keep how far the run is; raise `RunLostError`, `ChangedMeanwhileError`."""

    async def coverage(self, run: Run, device: Device, most: int) -> None:
        """Count the readings that no message was found for, of the next ones; raise `RunLostError`."""


class Stream(Protocol):
    """The stream, read by sequence. Each method raises `storing.StoreUnavailableError` when NATS can't be asked."""

    async def state(self) -> StreamState:
        """Return what it has."""

    async def first_since(self, at: int, state: StreamState) -> int:
        """Return the first sequence that was stored at a time or later, microseconds since the epoch."""

    async def messages(self, first: int, past: int, created_at: int) -> list[StreamMessage]:
        """Return the messages of the envelopes from a sequence on and before another; those that are gone are left out."""


class _Known(NamedTuple):
    """What a step knows of names."""

    names: KnownNames
    device: Device

    def senders(self) -> dict[int, SourceOfTenant]:
        """Return the sources of the device's tenant that can be used, by their ids."""
        found = self.names.sources.values()
        return {
            each.id: each for each in found if isinstance(each, SourceOfTenant) and each.tenant is self.device.tenant
        }


class CodecRunner:
    """Does the runs of devices; comparisons are done by another part."""

    def __init__(
        self, runs: Runs, readings: Readings, stream: Stream, registry: Registry, frames: FrameDecoder
    ) -> None:
        self._runs = runs
        self._readings = readings
        self._stream = stream
        self._registry = registry
        self._frames = frames
        self._most = _FIRST_READINGS

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
        """Do one step of a run; return whether there is more to do now."""
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
            self._most = max(1, self._most // 4)
            raise

    async def _step(self, run: Run) -> bool:
        """Do one step; return whether there is more to do now."""
        known = await self._known(run)
        progress = run.progress
        if progress.phase == "waiting":
            return await self._wait(run)
        if progress.phase == "frames":
            await self._decode_kept(run, known)
        elif progress.phase == "stream":
            await self._decode_stream(run, known)
        elif progress.reached < run.past:
            await self._readings.coverage(run, known.device, COVERAGE_READINGS)
        else:
            await self._runs.finish(run)
            log.info("a run of a codec has ended", tenant=run.tenant, run=run.id, codec=str(run.codec))
        return True

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

    async def _decode_kept(self, run: Run, known: _Known) -> None:
        """Decode kept messages of the next times; behind the last ones, go on with the stream."""
        started = time.monotonic()
        window = await self._runs.window(run, known.device.id, run.progress.reached, self._most)
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
        self._adapt(time.monotonic() - started)

    async def _begin_stream(self, run: Run) -> None:
        state = await self._stream.state()
        run.progress.phase, run.progress.reached = "stream", run.first
        if state.created_at != run.progress.stream:  # it was made again
            run.progress.phase = "coverage"
            return
        run.progress.sequence = await self._stream.first_since(run.first - _DAY_MICROSECONDS, state)

    async def _decode_stream(self, run: Run, known: _Known) -> None:
        """Decode messages of the next envelopes that were not kept; behind the last one, look what was not covered."""
        progress = run.progress
        past = min(progress.sequence + STREAM_ENVELOPES, progress.until + 1)
        found = (
            await self._stream.messages(progress.sequence, past, progress.stream) if progress.sequence < past else []
        )
        wanted = await self._not_kept(run, known, found)
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
        progress.sequence = past
        decoded = await self._registered(known, run, decoded)
        if past > progress.until:
            progress.phase = "coverage"
        await self._readings.step(run, known.device, decoded, known.names.generation, are_kept=False)

    async def _not_kept(
        self, run: Run, known: _Known, found: Sequence[StreamMessage]
    ) -> list[tuple[StreamMessage, list[int], SourceOfTenant]]:
        """Return the messages of the device that were not kept, with the times of their readings in the range, and their sources."""
        own, beginning = [], f"{SOURCES.root}{run.tenant}/"
        sources = {each.source.name: each for each in known.senders().values()}
        for each in found:
            if not each.message.topic.startswith(beginning) or each.message.received_at < known.device.erased_before:
                continue
            route = SOURCES.route(each.message.topic)
            sender = sources.get(route.source or "") if route is not None else None
            if sender is not None:
                own.append((each, sender))
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

    def _adapt(self, seconds: float) -> None:
        if seconds > _SLOW_SECONDS:
            self._most = max(1, self._most // 2)
        elif seconds < _QUICK_SECONDS:
            self._most = min(MOST_READINGS, self._most * 2)


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
