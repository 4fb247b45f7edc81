"""Decodes messages of sources with a codec that is given, whatever their devices' profiles name."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from sens_common.envelope import Message
from sens_common.errors import RejectedMessageError
from sens_common.topics import SOURCES
from sens_payloads.frames import Fields, Frame, FrameDecoder
from sens_payloads.profiles import Codec, CodecVersion, Profile
from sens_payloads.uplinks import Received, Uplink, WithoutMeasurements, query_of
from sens_telemetry_worker.codec_runs.judging import Values, stored_values
from sens_telemetry_worker.tenants import Refusal, SourceOfTenant

type Unwrapped = list[Uplink] | Refusal


class _Wanted(NamedTuple):
    """A frame to be decoded: of which message, and which uplink of it."""

    message_index: int
    uplink_index: int


def unwrap(message: Message, sender: SourceOfTenant) -> Unwrapped:
    """Return the uplinks of a message, none where it carries no measurements by its nature; or why it can't be unwrapped."""
    topic, query = SOURCES.message_address(message.topic)
    try:
        unwrapped = sender.source.unwrap(Received(message.payload, message.received_at, topic, query_of(query)))
    except RejectedMessageError as error:
        return Refusal(error.reason, error.detail)
    return [] if isinstance(unwrapped, WithoutMeasurements) else unwrapped


def measured_at(uplink: Uplink, message: Message) -> int:
    """Return the time of an uplink's reading, microseconds since the epoch."""
    return message.received_at if uplink.measured_at is None else uplink.measured_at


class DeviceDecoder:
    """Decodes what messages say of one device.

    What a codec has to decode is unchanged where an uplink has no bytes: its values are the network's own.
    """

    def __init__(self, frames: FrameDecoder, tenant_id: int, device: str) -> None:
        self._frames = frames
        self._tenant_id = tenant_id
        self._device = device

    async def decode(
        self, messages: Sequence[Message], senders: Sequence[SourceOfTenant], codec: CodecVersion
    ) -> list[Mapping[int, Values] | Refusal]:
        """Return, for each message, its values by the times of their readings, microseconds since the epoch; or why it is refused as a whole.

        Args:
            messages: Of sources.
            senders: Their sources.
            codec: What decodes the device's bytes.
        """
        unwrapped = [unwrap(message, sender) for message, sender in zip(messages, senders, strict=True)]
        own = [
            each if isinstance(each, Refusal) else [uplink for uplink in each if uplink.device == self._device]
            for each in unwrapped
        ]
        profiles = [_with_codec(sender.profile(self._device), codec) for sender in senders]
        decoded = await self._decode_frames(messages, own, codec)
        return [
            each
            if isinstance(each, Refusal)
            else _named(messages[index], each, senders[index], profiles[index], decoded.get(index, {}))
            for index, each in enumerate(own)
        ]

    async def _decode_frames(
        self, messages: Sequence[Message], own: Sequence[Unwrapped], codec: Codec
    ) -> dict[int, dict[int, Fields | RejectedMessageError]]:
        """Return what the codec makes of uplinks, by the indexes of their messages and their own."""
        wanted: list[_Wanted] = []
        frames: list[Frame] = []
        for index, uplinks in enumerate(own):
            for position, uplink in enumerate(uplinks if not isinstance(uplinks, Refusal) else ()):
                if uplink.frame:
                    wanted.append(_Wanted(index, position))
                    frames.append(Frame(uplink.frame, uplink.f_port, measured_at(uplink, messages[index])))
        found: dict[int, dict[int, Fields | RejectedMessageError]] = {}
        if frames:
            results = await self._frames.decode(self._tenant_id, codec, frames)
            for each, result in zip(wanted, results, strict=True):
                found.setdefault(each.message_index, {})[each.uplink_index] = result
        return found


def times_of(messages: Sequence[Message], device: str, senders: Sequence[SourceOfTenant]) -> list[Collection[int]]:
    """Return the times of a device's uplinks in messages; none where a message can't be unwrapped."""
    found: list[Collection[int]] = []
    for message, sender in zip(messages, senders, strict=True):
        unwrapped = unwrap(message, sender)
        uplinks = [] if isinstance(unwrapped, Refusal) else unwrapped
        found.append({measured_at(uplink, message) for uplink in uplinks if uplink.device == device})
    return found


def _with_codec(profile: Profile | None, codec: Codec) -> Profile:
    return Profile("", codec) if profile is None else replace(profile, codec=codec)


def _named(
    message: Message,
    uplinks: Sequence[Uplink],
    sender: SourceOfTenant,
    profile: Profile,
    decoded: Mapping[int, Fields | RejectedMessageError],
) -> Mapping[int, Values] | Refusal:
    """Return a message's values by time. One that says two things of a metric and time is refused, as where it is stored."""
    values: dict[int, Values] = {}
    for position, uplink in enumerate(uplinks):
        fields = decoded.get(position, uplink.fields or {})
        if isinstance(fields, RejectedMessageError):
            return Refusal(fields.reason, fields.detail)
        try:
            named = stored_values(sender.source.metrics(uplink, fields, profile))
        except RejectedMessageError as error:
            return Refusal(error.reason, error.detail)
        before = values.get(measured_at(uplink, message), {})
        conflict = next((metric for metric, value in named.items() if before.get(metric, value) != value), None)
        if conflict is not None:
            return Refusal("conflicting_value", f"it says two things of {conflict[0]} at one time")
        values[measured_at(uplink, message)] = {**before, **named}
    return values
