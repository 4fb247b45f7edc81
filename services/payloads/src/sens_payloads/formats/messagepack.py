"""Maps and arrays in MessagePack (its specification, "Formats"), read by the rules that read JSON (`json_settings`)."""

from sens_payloads.formats import json
from sens_payloads.formats.maps import with_text_keys
from sens_payloads.formats.messagepack_values import decode
from sens_payloads.uplinks import Received, Unwrapped


class Settings(json.Settings):
    """Those of JSON."""


def unwrap(received: Received, settings: Settings) -> Unwrapped:
    """Return the uplinks of a message; see `sens_payloads.uplinks.NetworkFormat.unwrap`."""
    return settings.reader.unwrap(received, _document)


def _document(body: bytes) -> object:
    return with_text_keys(decode(body))
