"""What messages of a format cost to be decoded and made rows, by the code of the telemetry worker, in this process and its children alone.

The parts of the worker are its own: envelopes' messages go into its `Interpreter`, rows come out. Tenants, devices and metrics are known, as they
are in a worker that has run for a while; no broker, stream or database takes part.
"""

import asyncio
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from hashlib import sha256
from typing import Final

import psutil

from sens_common.envelope import Message
from sens_common.topics import NATIVE_PATTERN, SOURCES
from sens_payloads.codecs.javascript import JavascriptCodecs
from sens_payloads.codecs.sandbox.sandboxes import Sandbox
from sens_payloads.formats import format_settings, network_format
from sens_payloads.frame_decoding import Codecs
from sens_payloads.profiles import Codec, CodecVersion, Profile
from sens_payloads.sources import Source
from sens_telemetry_worker.decoders import decoder
from sens_telemetry_worker.interpreting import Interpreter
from sens_telemetry_worker.tenants import (
    DeviceKey,
    MetricKey,
    NewMetrics,
    RegisteredDevices,
    RegisteredMetrics,
    SourceOfTenant,
    Tenant,
)
from sens_telemetry_worker.topic_resolving import KnownNames
from tools.bench.format_figures import Decoding
from tools.bench.formats import FORMATS, JAVASCRIPT, NATIVE, ForeignFormat, Sent
from tools.bench.load import Shape, payload
from tools.stack.path import StackError

_BATCH_MESSAGES: Final = 2000
_BATCHES: Final = 5
"""Of one measurement."""
_DEVICES: Final = 1000
_TENANT: Final = "bench"


def compare(name: str, rounds: int) -> list[Decoding]:
    """Return what a message of a format costs, and one of SENS' own, measured in turn.

    Args:
        name: Of the format, among `FORMATS`.
        rounds: How often.

    Raises:
        StackError: Not every message became rows.
    """
    return asyncio.run(_compare(name, rounds))


async def _compare(name: str, rounds: int) -> list[Decoding]:
    async with Sandbox() as sandbox:
        measured = _Measured(sandbox)
        for each in (NATIVE, name):  # devices, metrics and codecs are known from then on
            await measured.microseconds(each)
        found = []
        for turn in range(rounds):
            order = (NATIVE, name) if turn % 2 else (name, NATIVE)
            costs = {each: await measured.microseconds(each) for each in order}
            found.append(Decoding(_BATCH_MESSAGES * _BATCHES, costs[name], costs[NATIVE]))
        return found


class _Measured:
    """An interpreter as the worker's, and the clock of CPU time beside it."""

    def __init__(self, sandbox: Sandbox) -> None:
        registry = _Registry()
        self._interpreter = Interpreter(registry, decoder("native"), Codecs(JavascriptCodecs(sandbox)))
        self._number = 0
        self._process = psutil.Process()

    async def microseconds(self, name: str) -> float:
        """Return the CPU time of a message, of this process and its children."""
        batches = [self._messages(name) for _ in range(_BATCHES)]
        before = self._cpu_seconds()
        values = 0
        for batch in batches:
            interpreted = await self._interpreter.interpret(batch)
            values += sum(len(group.device_id) for group in interpreted.rows.groups)
            if interpreted.rejections:
                raise StackError(f"{name}: {interpreted.rejections[0].detail}")
        used = self._cpu_seconds() - before
        if values != _BATCH_MESSAGES * _BATCHES:
            raise StackError(f"{name}: {_BATCH_MESSAGES * _BATCHES:,} messages gave {values:,} readings")
        return used / values * 1e6

    def _messages(self, name: str) -> list[Message]:
        """Return messages that no other batch has; each has a time of its own."""
        received_at = time.time_ns() // 1000
        found = []
        for _ in range(_BATCH_MESSAGES):
            self._number += 1
            sent = Sent(self._number, self._number % _DEVICES, received_at // 1000 - 10_000_000 + self._number)
            found.append(Message(*_addressed(name, sent), received_at))
        return found

    def _cpu_seconds(self) -> float:
        children = (each.cpu_times() for each in self._process.children())
        return time.process_time() + sum(times.user + times.system for times in children)


def _addressed(name: str, sent: Sent) -> tuple[str, bytes]:
    if name == NATIVE:
        body = payload(Shape(0, tenant=_TENANT), sent.number, sent.milliseconds)
        return NATIVE_PATTERN.topic(_TENANT, f"device-{sent.device:07d}"), body
    each = FORMATS[name]
    return SOURCES.topic(_TENANT, name, each.topic_of(sent)), each.body(sent)


class _Registry:
    """A tenant with a source of each format, as the database would know them; devices and metrics get ids as they come."""

    def __init__(self) -> None:
        tenant = Tenant(1, _TENANT)
        self._known = KnownNames(1, {_TENANT: tenant})
        self._known.sources = {
            (_TENANT, name): SourceOfTenant(tenant, _source(name, each), {}) for name, each in FORMATS.items()
        }
        self._devices: dict[DeviceKey, int] = {}
        self._metrics: dict[MetricKey, int] = {}

    async def known_names(
        self, _tenants: Collection[str] = (), _sources: Collection[tuple[str, str]] = ()
    ) -> KnownNames:
        return self._known

    async def register_devices(
        self, wanted: Iterable[tuple[Tenant, str]], _known_only: Collection[DeviceKey] = ()
    ) -> RegisteredDevices:
        for tenant, name in wanted:
            self._devices.setdefault((tenant.id, name), len(self._devices) + 1)
        return RegisteredDevices(self._devices, {})

    async def note_sources(self, named: Mapping[int, str]) -> None:
        """Note nothing: nobody asks for it."""

    async def register_metrics(self, wanted: Sequence[NewMetrics]) -> RegisteredMetrics:
        for tenant, metrics in wanted:
            for name, kind in sorted(metrics):
                self._metrics.setdefault((tenant.id, name, kind), len(self._metrics) + 1)
        return RegisteredMetrics(self._metrics, {})


def _source(name: str, each: ForeignFormat) -> Source:
    codec: Codec | None
    if each.codec == "javascript":
        codec = CodecVersion(name, 1, sha256(JAVASCRIPT.encode()).digest(), JAVASCRIPT)
    else:
        codec = each.codec
    profile = None if codec is None else Profile(name, codec)
    return Source(name, network_format(each.format), format_settings(each.format, {}), default_profile=profile, id=1)
