"""Messages that sources brought: unwrapped, decoded and named, then gathered by their metrics like all others.

A message may hold uplinks of several devices and times. It is stored as a whole or not at all, and what carries no measurements by its nature
is neither stored nor a dead letter.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple, NoReturn

from sens_common.envelope import Message
from sens_common.errors import RejectedMessageError
from sens_payloads.frames import Fields, Frame, FrameDecoder
from sens_payloads.profiles import Codec, Profile
from sens_payloads.uplinks import Uplink
from sens_telemetry_worker.batch import Rejection, UndecidedMessages
from sens_telemetry_worker.birth_reading import BirthReader, Sent
from sens_telemetry_worker.births import BirthsOfBatch
from sens_telemetry_worker.decoding import DecodedMessages, check_age
from sens_telemetry_worker.source_opening import OpenedUplinks, open_messages, received_of
from sens_telemetry_worker.tenants import ERASED, Device, DeviceKey, KeptMessage, Refusal, SourceOfTenant, UplinkReading
from sens_telemetry_worker.topic_resolving import ERASED_BEFORE, TopicResolver
from sens_telemetry_worker.uplink_gathering import gather

_NO_IMPORTS: Final[Mapping[int, int]] = {}


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
        imported: Mapping[int, int] = _NO_IMPORTS,
    ) -> SourceMessages:
        """Unwrap, decode and name the messages whose topics lead to a source.

        Args:
            messages: All messages of a batch.
            senders: The sources by topic.
            undecided: The same messages with their places in the stream; without them no births explain any.
            imported: How far back lines of imports may lie, in microseconds, by their indexes.

        Raises:
            StoreUnavailableError: The database can't be asked for devices.
        """
        births = await self._births_of(messages, senders, undecided)
        rejections = {index: Rejection(index, *refusal) for index, refusal in births.refused.items()}
        opened, without, names = open_messages(messages, senders, births, rejections)
        await self._decode_frames(opened, messages, rejections)
        named = _named(opened, rejections)
        if named is not opened:
            without |= set(opened.owners) - set(named.owners)
        keys = named.device_keys()
        devices = await self._topics.named_devices(dict(zip(keys, named.senders, strict=True))) if keys else {}
        readings = _readings(named, keys, devices, messages, rejections, imported=imported)
        for index, rejection in rejections.items():
            if rejection.reason == ERASED:  # nothing of the device is kept, its births neither
                births.noted.pop(index, None)
        shapes, single = gather(readings)
        decoded = DecodedMessages(shapes, single, list(rejections.values()))
        kept = _kept(readings, dict(zip(opened.owners, opened.senders, strict=True)))
        return SourceMessages(
            decoded, frozenset(without - rejections.keys()), readings, births.device_names | names, births, kept
        )

    async def _births_of(
        self, messages: Sequence[Message], senders: Mapping[str, SourceOfTenant], undecided: UndecidedMessages | None
    ) -> BirthsOfBatch:
        if self._births is None or undecided is None:
            return BirthsOfBatch()
        with_births = {topic for topic, sender in senders.items() if sender.source.has_births}
        if not with_births:
            return BirthsOfBatch()
        sent = [
            Sent(index, senders[message.topic], received_of(message))
            for index, message in enumerate(messages)
            if message.topic in with_births
        ]
        return await self._births.read(sent, undecided)

    async def _decode_frames(
        self, opened: OpenedUplinks, messages: Sequence[Message], rejections: dict[int, Rejection]
    ) -> None:
        """Let the codecs decode the bytes of uplinks, those of a tenant and codec together; no tenant waits for another one's."""
        by_tenant: dict[int, dict[Codec, list[int]]] = {}
        for (tenant_id, profile), positions in _framed(opened).items():
            if (codec := profile.codec) is not None:
                by_tenant.setdefault(tenant_id, {}).setdefault(codec, []).extend(positions)
        if not by_tenant:
            return

        async def of_tenant(tenant_id: int, by_codec: Mapping[Codec, list[int]]) -> None:
            for codec, positions in by_codec.items():
                positions.sort()  # as the messages came, whatever the profiles
                wanted = [_frame(opened.uplinks[at], messages[opened.owners[at]]) for at in positions]
                results = await self._frames.decode(tenant_id, codec, wanted)
                _take(opened, positions, results, rejections)

        if len(by_tenant) == 1:
            [(tenant_id, by_codec)] = by_tenant.items()
            await of_tenant(tenant_id, by_codec)
            return
        async with asyncio.TaskGroup() as tasks:
            for tenant_id, by_codec in by_tenant.items():
                tasks.create_task(of_tenant(tenant_id, by_codec), name=f"decode frames of tenant {tenant_id}")


def _framed(opened: OpenedUplinks) -> dict[tuple[int, Profile], list[int]]:
    """Return the positions of uplinks whose bytes a codec decodes, by tenant and profile."""
    found: dict[tuple[int, Profile], list[int]] = {}
    if not any(profile is not None and profile.codec is not None for profile in set(opened.profiles)):
        return found
    columns = zip(opened.senders, opened.profiles, opened.uplinks, strict=True)
    for position, (sender, profile, uplink) in enumerate(columns):
        if profile is not None and profile.codec is not None and uplink.frame:
            key = sender.tenant.id, profile
            if (positions := found.get(key)) is None:
                positions = found[key] = []
            positions.append(position)
    return found


def _take(
    opened: OpenedUplinks,
    positions: Sequence[int],
    results: Sequence[Fields | RejectedMessageError],
    rejections: dict[int, Rejection],
) -> None:
    values = opened.values
    for position, result in zip(positions, results, strict=True):
        if type(result) is not dict and isinstance(result, RejectedMessageError):
            index = opened.owners[position]
            rejections.setdefault(index, Rejection(index, result.reason, result.detail))
        else:
            values[position] = result


def _frame(uplink: Uplink, message: Message) -> Frame:
    measured_at = message.received_at if uplink.measured_at is None else uplink.measured_at
    return Frame(uplink.frame or b"", uplink.f_port, measured_at)


def _named(opened: OpenedUplinks, rejections: dict[int, Rejection]) -> OpenedUplinks:
    """Return the uplinks that have values; note the messages that are refused."""
    chosen: list[int] = []
    columns = zip(opened.owners, opened.senders, opened.profiles, opened.values, strict=True)
    for position, (owner, sender, profile, fields) in enumerate(columns):
        source = sender.source
        if fields and not source.with_radio and (profile is None or not profile.metrics):
            chosen.append(position)  # nothing is added or named otherwise
            continue
        if owner in rejections:
            continue
        try:
            values = source.metrics(opened.uplinks[position], fields, profile)
        except RejectedMessageError as error:
            rejections[owner] = Rejection(owner, error.reason, error.detail)
            continue
        if values:
            opened.values[position] = values
            chosen.append(position)
    if rejections:
        chosen = [position for position in chosen if opened.owners[position] not in rejections]
    return opened.only(chosen)


def _readings(
    named: OpenedUplinks,
    keys: Sequence[DeviceKey],
    devices: Mapping[DeviceKey, Device | Refusal],
    messages: Sequence[Message],
    rejections: dict[int, Rejection],
    *,
    imported: Mapping[int, int],
) -> list[UplinkReading]:
    """Return what can be stored; a message of which something can't is refused."""
    readings: list[UplinkReading] = []
    for owner, key, uplink, values in zip(named.owners, keys, named.uplinks, named.values, strict=True):
        device, received_at = devices[key], messages[owner].received_at
        measured_at = received_at if uplink.measured_at is None else uplink.measured_at
        try:
            if (
                not isinstance(device, Device)
                or device.erased_before > received_at
                or device.tenant.refusal is not None
            ):
                _refuse(device, received_at)
            if received_at - measured_at > device.tenant.late_microseconds:
                check_age(device.tenant, measured_at, received_at, import_late=imported.get(owner, 0))
        except RejectedMessageError as error:
            rejections.setdefault(owner, Rejection(owner, error.reason, error.detail))
            continue
        readings.append(UplinkReading(owner, device, measured_at, values, uplink.historical))
    return readings


def _refuse(device: Device | Refusal, received_at: int) -> NoReturn:
    """Say why a message of a device can't be stored: it is not known, was erased since, or nothing more of its tenant is stored.

    Raises:
        RejectedMessageError: Always.
    """
    if isinstance(device, Refusal):
        raise RejectedMessageError(*device)
    if device.erased_before > received_at or device.tenant.refusal is None:
        raise RejectedMessageError(*ERASED_BEFORE)
    raise RejectedMessageError(*device.tenant.refusal)


def _kept(readings: Iterable[UplinkReading], senders: Mapping[int, SourceOfTenant]) -> dict[int, KeptMessage]:
    """Return what is to be kept with the readings of messages, by their indexes."""
    kept: dict[int, KeptMessage] = {}
    keeping = {index: sender for index, sender in senders.items() if sender.keep_days is not None}
    if not keeping:
        return kept
    for reading in readings:
        sender = keeping.get(reading.message_index)
        if sender is not None and sender.keep_days is not None:
            of_message = kept.setdefault(reading.message_index, KeptMessage(sender.id, sender.keep_days, {}))
            profile = sender.profile(reading.device.name)
            codec = None if profile is None or profile.codec is None else str(profile.codec)
            of_message.codecs[reading.device.id] = codec
    return kept
