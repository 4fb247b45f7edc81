"""The form of API keys, and their hashes.

A key is ``sens_`` and 43 characters, the base64url form (RFC 4648, section 5) of 32 random bytes. Its SHA-256 is stored, the key itself is
not.
"""

import hashlib
import re
import secrets
from typing import Final

PREFIX_LENGTH: Final = 12
"""The first characters of a key, which are stored to recognise it by."""

KEY_PATTERN: Final = r"^sens_[A-Za-z0-9_-]{43}$"
_KEY = re.compile(r"sens_[A-Za-z0-9_-]{43}")
_RANDOM_BYTES = 32


def new_key() -> str:
    """Return a key that nobody has yet."""
    return f"sens_{secrets.token_urlsafe(_RANDOM_BYTES)}"


def is_key(text: str) -> bool:
    """Tell whether the text has the form of a key."""
    return _KEY.fullmatch(text) is not None


def key_hash(key: str) -> bytes:
    """Return the hash of a key."""
    return hashlib.sha256(key.encode()).digest()
