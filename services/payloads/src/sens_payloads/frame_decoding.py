"""Decodes frames with whatever codec their device's profile names."""

from collections.abc import Sequence

from sens_common.dead_letters import Reason
from sens_common.errors import RejectedMessageError
from sens_payloads.codecs import cayenne_lpp
from sens_payloads.frames import Fields, Frame, FrameDecoder
from sens_payloads.profiles import Codec, CodecVersion


class Codecs:
    """The codecs that are built in, and the tenants' own, as `frames.FrameDecoder`."""

    def __init__(self, javascript: FrameDecoder | None = None) -> None:
        """Take what decodes with the tenants' own codecs; without it they can't be used."""
        self._javascript = javascript

    async def decode(
        self, tenant_id: int, codec: Codec, frames: Sequence[Frame]
    ) -> list[Fields | RejectedMessageError]:
        """See `frames.FrameDecoder.decode`."""
        if isinstance(codec, CodecVersion):
            if self._javascript is None:
                error = RejectedMessageError(Reason.NO_CODEC, f"codec {codec} can't run here: nothing runs JavaScript")
                return [error for _ in frames]
            return await self._javascript.decode(tenant_id, codec, frames)
        return [_decode_cayenne_lpp(frame) for frame in frames]


def _decode_cayenne_lpp(frame: Frame) -> Fields | RejectedMessageError:
    try:
        return cayenne_lpp.decode(frame.payload, frame.f_port)
    except RejectedMessageError as error:
        return error
