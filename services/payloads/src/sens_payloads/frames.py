"""Frames of devices, and the contract of what decodes them."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from msgspec import Struct

from sens_common.errors import RejectedMessageError
from sens_common.formats import Value
from sens_payloads.profiles import Codec

type Fields = Mapping[str, Value | int]
"""Values by the names of fields, as `sens_payloads.fields` allows them."""


class Frame(Struct, frozen=True, gc=False):
    """The bytes of a device.

    Attributes:
        payload: As it sent them.
        f_port: LoRaWAN port, 0 where none is named.
        measured_at: Microseconds since the epoch.
    """

    payload: bytes
    f_port: int
    measured_at: int


class FrameDecoder(Protocol):
    """What decodes frames with codecs."""

    async def decode(
        self, tenant_id: int, codec: Codec, frames: Sequence[Frame]
    ) -> list[Fields | RejectedMessageError]:
        """Return what each frame holds, or why it can't be decoded.

        Args:
            tenant_id: Whose codec it is: no tenant waits for another one's.
            codec: The same for all frames.
            frames: At least one.
        """
