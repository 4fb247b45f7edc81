"""The name of a device, from texts that were not written for SENS."""

import re
import unicodedata
from functools import lru_cache
from typing import Final, Literal

from sens_common.dead_letters import Reason
from sens_common.errors import RejectedMessageError
from sens_common.names import DEVICE_RULE, device_name, shown

type OtherCharacters = Literal["refuse", "replace"]
"""What becomes of a name with characters that a device's name can't have.

`replace`: letters lose their accents, and each run of other characters becomes one underscore: ``Küche / Lampe`` is ``Kuche_Lampe``. Two
devices whose names differ in nothing else become one.
"""

_OTHER: Final = re.compile(r"[^A-Za-z0-9._-]+")


def canonical_device(text: str, other_characters: OtherCharacters, reason: Reason = Reason.MALFORMED_PAYLOAD) -> str:
    """Return a device's canonical name (`sens_common.names.device_name`).

    Args:
        text: As received.
        other_characters: What becomes of a name that is not allowed.
        reason: Of the error.

    Raises:
        RejectedMessageError: The text names none.
    """
    name = _canonical(text, other_characters) if len(text) <= _LONGEST else None
    if name is None:
        raise RejectedMessageError(reason, f"{shown(text)} can't be the name of a device: {DEVICE_RULE}")
    return name


_LONGEST: Final = 1024


@lru_cache(maxsize=4096)
def _canonical(text: str, other_characters: OtherCharacters) -> str | None:
    name = device_name(text)
    if name is not None or other_characters == "refuse":
        return name
    decomposed = unicodedata.normalize("NFKD", text)
    without_accents = "".join(character for character in decomposed if not unicodedata.combining(character))
    return device_name(_OTHER.sub("_", without_accents).strip("_").lstrip("._-"))
