"""Names that other programs see: streams, subjects, tenants and devices; topics are in `topics`."""

import re
from typing import Final

TELEMETRY_STREAM: Final = "TELEMETRY"
TELEMETRY_SUBJECT: Final = "sens.telemetry"
"""Envelopes are published below this subject: ``sens.telemetry.<publisher>``, one publisher per MQTT session."""

REPLAY_PUBLISHER: Final = "replay"
"""Publisher token of messages that come back from the dead letters; no MQTT session has this name."""

DEAD_LETTERS_STREAM: Final = "DEAD_LETTERS"
"""The stream of dead letters of versions before 0.2. Its messages are moved into the database once."""

CONTROL_STREAM: Final = "CONTROL"
"""The stream of what must outlive a restore of the database: erasures (`control`)."""

CONTROL_SUBJECT: Final = "sens.control"
"""Its messages are published below this subject: ``sens.control.erasure``."""

TELEMETRY_CONSUMER: Final = "telemetry-worker"
"""The durable pull consumer that all telemetry workers share."""

SESSIONS_BUCKET: Final = "INGESTION_SESSIONS"
"""JetStream key-value bucket in which the ingestion workers keep what their MQTT sessions are subscribed to."""

LIVE_SUBJECT: Final = "sens.live"
"""Newly stored readings: ``sens.live.<tenant token>``, core NATS, no storage."""

LIVE_INTEREST_SUBJECT: Final = "sens.live_interest"
"""A reader of live data publishes the tenant's name here every few seconds; data that nobody reads are not published."""

UNROUTED: Final = "~"
"""Stands for topics that name no valid tenant. It can't be a tenant's name."""

TENANT_PATTERN: Final = r"[a-z0-9][a-z0-9._-]{0,62}"
"""Regular expression of tenants' names."""

DEVICE_PATTERN: Final = r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}"
"""Regular expression of devices' names that are not an EUI."""

TENANT_RULE: Final = "1 to 63 lower-case letters (a to z), digits, dots, underscores and hyphens, of which the first is a letter or a digit"
"""What a tenant's name may be, for people."""
DEVICE_RULE: Final = (
    "1 to 63 letters (A to Z, a to z), digits, dots, underscores and hyphens, of which the first is a letter or a digit"
)
"""What a device's name may be, for people; an EUI may have colons too."""

_TENANT = re.compile(TENANT_PATTERN)
_DEVICE = re.compile(DEVICE_PATTERN)
_EUI = re.compile(r"(?:[0-9A-Fa-f]{2}([-:]?))(?:[0-9A-Fa-f]{2}\1){4,6}[0-9A-Fa-f]{2}")
_SHOWN_CHARACTERS: Final = 80


def is_tenant_name(text: str) -> bool:
    """Tell whether the text is a valid name of a tenant."""
    return _TENANT.fullmatch(text) is not None


def device_name(text: str) -> str | None:
    """Return the canonical name of a device, or None when the text names none.

    A device is an EUI-48 or EUI-64 as IEEE writes them, pairs of hexadecimal digits in either case, joined by nothing, ``-`` or ``:``,
    or else a name (`DEVICE_PATTERN`). An EUI's canonical form is its digits in lower case, so that all spellings are one device (IEEE,
    "Guidelines for Use of Extended Unique Identifier (EUI)"). A name stays as it is: ``Kitchen`` and ``kitchen`` are two devices.
    """
    match = _EUI.fullmatch(text)
    if match is not None:
        digits = fold_eui(text)
        if len(digits) in {12, 16}:
            return digits
    return text if _DEVICE.fullmatch(text) else None


def fold_eui(text: str) -> str:
    """Return a text in which all spellings of an EUI are one; other texts may become the same, too."""
    return text.lower().replace("-", "").replace(":", "")


def shown(text: str) -> str:
    """Return a text from outside in quotes, shortened, with escapes for what can't be seen."""
    return repr(text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}…")


def subject_token(name: str) -> str:
    """Return a tenant's or client's name as one NATS subject token.

    A subject's tokens are separated by ``.``, and ``*`` and ``>`` are wildcards (NATS documentation, "Subject-Based Messaging"),
    so every character outside ``[A-Za-z0-9_-]`` is percent-encoded (RFC 3986, section 2.1).
    """
    return "".join(
        character if character.isascii() and (character.isalnum() or character in "_-") else _percent(character)
        for character in name
    )


def _percent(character: str) -> str:
    return "".join(f"%{byte:02X}" for byte in character.encode())
