"""What a codec may use."""

from typing import Final

CALL_SECONDS: Final = 0.1
"""CPU time of one call."""
LOAD_SECONDS: Final = 0.3
"""CPU time of making a context and loading a codec into it."""
CONTEXT_BYTES: Final = 32 << 20
"""Memory of one codec, its call included."""
STACK_BYTES: Final = 512 << 10
KEPT_CODECS: Final = 4
"""Codecs that a child keeps loaded."""
