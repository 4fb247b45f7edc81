"""What a decoder makes of a payload: see `sens_common.formats`."""

from sens_common.formats import EXACT_BELOW, MAX_TEXT_CHARACTERS, Format, Reading, Value, is_plain_text

__all__ = ["EXACT_BELOW", "MAX_TEXT_CHARACTERS", "Format", "Reading", "Value", "is_plain_text"]
