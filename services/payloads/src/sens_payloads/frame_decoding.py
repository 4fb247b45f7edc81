"""Decodes frames with whatever codec their device's profile names."""

from collections.abc import Sequence

from sens_common.dead_letters import Reason
from sens_common.errors import RejectedMessageError, UnavailableError
from sens_payloads.codecs import cayenne_lpp
from sens_payloads.frames import Fields, Frame, FrameDecoder
from sens_payloads.profiles import Codec, CodecVersion


class Codecs:
    """The codecs that are built in, and the tenants' own, as `frames.FrameDecoder`."""

    def __init__(self, javascript: FrameDecoder | None = None) -> None:
        """Take what decodes with the tenants' own codecs; without it they can't be used."""
        self._javascript = javascript or _NoJavascript()

    async def decode(
        self, tenant_id: int, codec: Codec, frames: Sequence[Frame]
    ) -> list[Fields | RejectedMessageError]:
        """See `frames.FrameDecoder.decode`."""
        if isinstance(codec, CodecVersion):
            try:
                return await self._javascript.decode(tenant_id, codec, frames)
            except UnavailableError as unavailable:
                error = RejectedMessageError(
                    Reason.NO_CODEC, f"codec {codec} can't run here: {unavailable}; then replay"
                )
                return [error for _ in frames]
        return _decode_cayenne_lpp(frames)


class _NoJavascript:
    """Runs nothing."""

    async def decode(
        self, _tenant_id: int, _codec: Codec, _frames: Sequence[Frame]
    ) -> list[Fields | RejectedMessageError]:
        """See `frames.FrameDecoder.decode`.

        Raises:
            UnavailableError: Always.
        """
        raise UnavailableError("nothing runs JavaScript")


def _decode_cayenne_lpp(frames: Sequence[Frame]) -> list[Fields | RejectedMessageError]:
    alike = cayenne_lpp.decode_alike([frame.payload for frame in frames])
    if alike is not None:
        return list(alike)
    decoded: list[Fields | RejectedMessageError] = []
    for frame in frames:
        try:
            decoded.append(cayenne_lpp.decode(frame.payload, frame.f_port))
        except RejectedMessageError as error:
            decoded.append(error)
    return decoded
