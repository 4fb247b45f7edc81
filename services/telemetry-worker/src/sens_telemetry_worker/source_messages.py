"""Messages that sources brought: unwrapped, decoded and named, then gathered by their metrics like all others.

A message may hold uplinks of several devices and times. It is stored as a whole or not at all, and what carries no measurements by its nature
is neither stored nor a dead letter.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from sens_common.envelope import Message
from sens_common.errors import RejectedMessageError
from sens_common.formats import KINDS, Measurement, MetricKind, Value
from sens_common.topics import SOURCES
from sens_payloads.frames import Frame, FrameDecoder
from sens_payloads.profiles import Codec, Profile
from sens_payloads.uplinks import Received, Uplink, WithoutMeasurements, query_of
from sens_telemetry_worker.batch import Rejection, UndecidedMessages
from sens_telemetry_worker.birth_reading import BirthReader, Sent
from sens_telemetry_worker.births import BirthsOfBatch
from sens_telemetry_worker.decoding import DecodedMessage, DecodedMessages, check_age
from sens_telemetry_worker.shapes import GatheredMessages, Shape
from sens_telemetry_worker.tenants import ERASED, Device, DeviceKey, KeptMessage, Refusal, SourceOfTenant, UplinkReading
from sens_telemetry_worker.topic_resolving import ERASED_BEFORE, TopicResolver


@dataclass(slots=True)
class _Opened:
    """The uplinks of a message, until one of them is refused."""

    index: int
    message: Message
    sender: SourceOfTenant
    uplinks: list[Uplink]
    profiles: list[Profile | None] = field(default_factory=list)
    fields: list[Mapping[str, Value | int]] = field(default_factory=list)


class SourceMessages(NamedTuple):
    """What the sources' messages of a batch lead to.

    Attributes:
        decoded: Their values; a message may be in several shapes and single messages, also one that is refused.
        without_measurements: Indexes of those that carry none by their nature.
        readings: What was gathered, in the order of the messages.
        device_names: The devices of messages that name one alone, by the messages' indexes.
        births: What births have to do with them.
        kept: Those whose sources keep them, by the messages' indexes.
    """

    decoded: DecodedMessages
    without_measurements: frozenset[int]
    readings: Sequence[UplinkReading]
    device_names: Mapping[int, str]
    births: BirthsOfBatch
    kept: Mapping[int, KeptMessage]


class SourceReader:
    """Reads messages of sources."""

    def __init__(self, topics: TopicResolver, frames: FrameDecoder, births: BirthReader | None = None) -> None:
        self._topics = topics
        self._frames = frames
        self._births = births

    async def read(
        self,
        messages: Sequence[Message],
        senders: Mapping[str, SourceOfTenant],
        undecided: UndecidedMessages | None = None,
    ) -> SourceMessages:
        """Unwrap, decode and name the messages whose topics lead to a source.

        Args:
            messages: All messages of a batch.
            senders: The sources by topic.
            undecided: The same messages with their places in the stream; without them no births explain any.

        Raises:
            StoreUnavailableError: The database can't be asked for devices.
        """
        without: set[int] = set()
        sent = [
            Sent(index, senders[message.topic], _received(message))
            for index, message in enumerate(messages)
            if message.topic in senders
        ]
        births = await self._births_of(sent, undecided)
        rejections = {index: Rejection(index, *refusal) for index, refusal in births.refused.items()}
        opened = _open(messages, sent, births, rejections, without)
        await self._decode_frames(opened, rejections)
        named = list(_name(opened, rejections, without))
        wanted = {(each.sender.tenant.id, uplink.device): each.sender for each, uplink, _ in named}
        devices = await self._topics.named_devices(wanted) if wanted else {}
        readings = list(_readings(named, devices, rejections))
        for index, rejection in rejections.items():
            if rejection.reason == ERASED:  # nothing of the device is kept, its births neither
                births.noted.pop(index, None)
        shapes, single = _gather(readings)
        decoded = DecodedMessages(shapes, single, list(rejections.values()))
        names = births.device_names | {
            each.index: each.uplinks[0].device for each in opened if _is_of_one_device(each.uplinks)
        }
        kept = _kept(readings, {each.index: each.sender for each in opened if each.sender.keep_days is not None})
        return SourceMessages(decoded, frozenset(without - rejections.keys()), readings, names, births, kept)

    async def _births_of(self, sent: Sequence[Sent], undecided: UndecidedMessages | None) -> BirthsOfBatch:
        with_births = [each for each in sent if each.sender.source.has_births]
        if self._births is None or undecided is None or not with_births:
            return BirthsOfBatch()
        return await self._births.read(with_births, undecided)

    async def _decode_frames(self, opened: Sequence[_Opened], rejections: dict[int, Rejection]) -> None:
        """Let the codecs decode the bytes of uplinks, those of a tenant and codec together."""
        wanted: dict[tuple[int, Codec], list[tuple[_Opened, int]]] = {}
        for each in opened:
            for position, (uplink, profile) in enumerate(zip(each.uplinks, each.profiles, strict=True)):
                if profile is not None and profile.codec is not None and uplink.frame:
                    wanted.setdefault((each.sender.tenant.id, profile.codec), []).append((each, position))
        for (tenant_id, codec), of_codec in wanted.items():
            frames = [_frame(each, position) for each, position in of_codec]
            results = await self._frames.decode(tenant_id, codec, frames)
            for (each, position), result in zip(of_codec, results, strict=True):
                if isinstance(result, RejectedMessageError):
                    rejections.setdefault(each.index, Rejection(each.index, result.reason, result.detail))
                else:
                    each.fields[position] = result


def _is_of_one_device(uplinks: Sequence[Uplink]) -> bool:
    first = uplinks[0].device
    return len(uplinks) == 1 or all(uplink.device == first for uplink in uplinks)


def _frame(each: _Opened, position: int) -> Frame:
    uplink = each.uplinks[position]
    measured_at = each.message.received_at if uplink.measured_at is None else uplink.measured_at
    return Frame(uplink.frame or b"", uplink.f_port, measured_at)


def _received(message: Message) -> Received:
    topic, query = SOURCES.message_address(message.topic)
    return Received(message.payload, message.received_at, topic, query_of(query))


def _open(
    messages: Sequence[Message],
    sent: Iterable[Sent],
    births: BirthsOfBatch,
    rejections: dict[int, Rejection],
    without: set[int],
) -> list[_Opened]:
    """Unwrap messages."""
    opened: list[_Opened] = []
    for index, sender, received in sent:
        if index in rejections:
            continue
        try:
            unwrapped = sender.source.unwrap(received, births.of(index))
        except RejectedMessageError as error:
            rejections[index] = Rejection(index, error.reason, error.detail)
            continue
        if isinstance(unwrapped, WithoutMeasurements):
            without.add(index)
            continue
        each = _Opened(index, messages[index], sender, unwrapped)
        for uplink in unwrapped:
            each.profiles.append(sender.profile(uplink.device))
            each.fields.append(uplink.fields or {})
        opened.append(each)
    return opened


type _Named = tuple[_Opened, Uplink, Mapping[str, Value | int]]
"""An uplink of a message, and its values by the names of their metrics."""


def _name(opened: Iterable[_Opened], rejections: dict[int, Rejection], without: set[int]) -> Iterable[_Named]:
    """Yield the uplinks that have values; note the messages that have none, and those that are refused."""
    for each in opened:
        if each.index in rejections:
            continue
        named: list[_Named] = []
        try:
            for uplink, profile, fields in zip(each.uplinks, each.profiles, each.fields, strict=True):
                values = each.sender.source.metrics(uplink, fields, profile)
                if values:
                    named.append((each, uplink, values))
        except RejectedMessageError as error:
            rejections[each.index] = Rejection(each.index, error.reason, error.detail)
            continue
        if not named:
            without.add(each.index)
        yield from named


def _readings(
    named: Iterable[_Named], devices: Mapping[DeviceKey, Device | Refusal], rejections: dict[int, Rejection]
) -> Iterator[UplinkReading]:
    """Yield what can be stored; a message of which something can't is refused."""
    for each, uplink, values in named:
        message, tenant = each.message, each.sender.tenant
        measured_at = message.received_at if uplink.measured_at is None else uplink.measured_at
        try:
            device = _usable(devices[tenant.id, uplink.device], message)
            check_age(tenant, measured_at, message.received_at)
        except RejectedMessageError as error:
            rejections.setdefault(each.index, Rejection(each.index, error.reason, error.detail))
            continue
        yield UplinkReading(each.index, device, measured_at, values, uplink.historical)


def _gather(readings: Sequence[UplinkReading]) -> tuple[list[Shape], list[DecodedMessage]]:
    """Gather readings with the same names and kinds of value; return the others one by one."""
    gathered: dict[tuple[int, tuple[str, ...], tuple[MetricKind | None, ...]], GatheredMessages] = {}
    typed: dict[tuple[int, tuple[str, ...], tuple[type, ...]], GatheredMessages] = {}
    for position, (_, device, measured_at, values, _) in enumerate(readings):
        tenant = device.tenant
        types = (tenant.id, tuple(values), tuple(map(type, values.values())))
        alike = typed.get(types)
        if alike is None:
            kinds = tuple(map(KINDS.get, types[2]))
            alike = typed[types] = gathered.setdefault(
                (tenant.id, types[1], kinds), GatheredMessages(tenant, types[1], kinds)
            )
        alike.message_indexes.append(position)
        alike.device_ids.append(device.id)
        alike.times.append(measured_at)
        alike.values.extend(values.values())
    owners = np.array([reading.message_index for reading in readings], np.int32)
    shapes: list[Shape] = []
    single: list[DecodedMessage] = []
    for messages in gathered.values():
        shape, others = messages.decoded()
        if shape is not None:
            shapes.append(shape._replace(message_index=owners[shape.message_index]))
        single += [_single(readings[position]) for position in others]
    return shapes, single


def _kept(readings: Iterable[UplinkReading], senders: Mapping[int, SourceOfTenant]) -> dict[int, KeptMessage]:
    """Return what is to be kept with the readings of messages, by their indexes."""
    kept: dict[int, KeptMessage] = {}
    if not senders:
        return kept
    for reading in readings:
        sender = senders.get(reading.message_index)
        if sender is not None and sender.keep_days is not None:
            of_message = kept.setdefault(reading.message_index, KeptMessage(sender.id, sender.keep_days, {}))
            profile = sender.profile(reading.device.name)
            codec = None if profile is None or profile.codec is None else str(profile.codec)
            of_message.codecs[reading.device.id] = codec
    return kept


def _usable(device: Device | Refusal, message: Message) -> Device:
    """Return a device for which a message can be stored.

    Raises:
        RejectedMessageError: It is not known, was erased since, or nothing more of its tenant is stored.
    """
    if isinstance(device, Refusal):
        raise RejectedMessageError(*device)
    if message.received_at < device.erased_before:
        raise RejectedMessageError(*ERASED_BEFORE)
    if device.tenant.refusal is not None:
        raise RejectedMessageError(*device.tenant.refusal)
    return device


def _single(reading: UplinkReading) -> DecodedMessage:
    """Return a reading as a message that was decoded by itself."""
    measurements = [
        Measurement(name, reading.measured_at, float(value) if type(value) is int else value)
        for name, value in reading.values.items()
    ]
    return DecodedMessage(reading.message_index, reading.device, measurements)
