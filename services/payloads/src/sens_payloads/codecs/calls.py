"""The nouns of codecs in JavaScript: a call, and what it gives. A version is a `profiles.CodecVersion`."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from sens_common.errors import RejectedMessageError
from sens_common.formats import Value

MAX_SOURCE_BYTES: Final = 262_144
"""Of a codec, as UTF-8."""
MAX_FRAME_BYTES: Final = 16_384
"""Of what a device sent at once; LoRaWAN's largest frame has 242 (RP002-1.0.4, section 2)."""
MAX_VALUES: Final = 1000
"""Values of one result."""
MAX_NAME_CHARACTERS: Final = 200

_NO_VARIABLES: Final[Mapping[str, str]] = MappingProxyType({})


class Call(NamedTuple):
    """One frame of a device, to be decoded.

    Attributes:
        frame: The bytes.
        f_port: LoRaWAN port, 0 where none is named.
        received_at: Microseconds since the epoch; it is the codec's clock, too.
        variables: Of the device, by name; `input.variables` of the codec.
    """

    frame: bytes
    f_port: int = 0
    received_at: int = 0
    variables: Mapping[str, str] = _NO_VARIABLES


class Decoded(NamedTuple):
    """What a codec made of one call.

    Attributes:
        fields: Values by name, members of objects joined with a dot, array elements by their index; at least one.
        warnings: What the codec warned of, and which values were left out as no number is infinite or none at all.
    """

    fields: dict[str, Value | int]
    warnings: tuple[str, ...] = ()


type Outcome = Decoded | RejectedMessageError
"""What became of a call; the error's reason is `codec_error`, `codec_limit`, or what the values can't be stored for."""
