"""Payload formats: pure functions from bytes to measurements, behind one explicit mapping."""

from collections.abc import Mapping
from typing import Final

from sens_common.errors import SettingsError
from sens_telemetry_worker.decoders import native
from sens_telemetry_worker.decoders.columns import ColumnFormat

DECODERS: Final[Mapping[str, ColumnFormat]] = {
    "native": native,
}
"""Every payload format by the name that settings use."""


def decoder(name: str) -> ColumnFormat:
    """Return the decoder of a payload format.

    Raises:
        SettingsError: No format has the name.
    """
    try:
        return DECODERS[name]
    except KeyError:
        raise SettingsError(
            f"there is no decoder {name!r:.80}; the decoders are: {', '.join(sorted(DECODERS))}"
        ) from None
