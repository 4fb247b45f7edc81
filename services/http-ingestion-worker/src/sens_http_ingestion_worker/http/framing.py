"""How the body of a request comes, as its header says (RFC 9112, section 6)."""

from collections.abc import Sequence
from typing import Final, NamedTuple

DROPPED_BYTES: Final = 65_536
"""A refused body of so many bytes is read to its end, so that the connection goes on; after a larger one it ends."""


class Framing(NamedTuple):
    """How a body comes.

    Attributes:
        content_length: Bytes of the body, None where it comes in chunks.
        expects_continue: Whether the client waits for a word before it sends the body.
    """

    content_length: int | None
    expects_continue: bool

    @property
    def has_body(self) -> bool:
        """Whether there is a body."""
        return self.content_length != 0

    @property
    def is_large(self) -> bool:
        """Whether a connection ends rather than drop such a body."""
        return self.content_length is None or self.content_length > DROPPED_BYTES


def framing_of(headers: Sequence[tuple[bytes, bytes]]) -> Framing:
    """Return how the body of a request comes, by its headers; their names in lower case."""
    length: int | None = 0
    expects_continue = False
    for name, value in headers:
        if name == b"content-length" and length is not None:
            length = int(value)  # the parser lets digits pass alone
        elif name == b"transfer-encoding":
            length = None
        elif name == b"expect":
            expects_continue = value.lower() == b"100-continue"
    return Framing(length, expects_continue)
