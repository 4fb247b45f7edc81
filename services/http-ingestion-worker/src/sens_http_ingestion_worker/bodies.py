"""Bodies of requests: gathered and unpacked as they come, never beyond their limit (RFC 9110, section 8.4.1; RFC 1950 to 1952)."""

import zlib
from typing import Final

from sens_http_ingestion_worker.refusals import RefusedError, too_large

_GZIP_WINDOW: Final = 16 + zlib.MAX_WBITS
_MAX_MEMBERS: Final = 100
"""Of gzip in one body: each costs as much as many bytes, and may hold none."""
_CODINGS: Final = {"gzip": _GZIP_WINDOW, "x-gzip": _GZIP_WINDOW, "deflate": zlib.MAX_WBITS}


class PlainBody:
    """A body as it comes.

    Attributes:
        size: Bytes that it holds.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._whole = b""  # while one part has come
        self._gathered = bytearray()  # when several have: small ones would take many times their size each by itself
        self.size = 0

    def feed(self, chunk: bytes) -> None:
        """Take a part.

        Raises:
            RefusedError: The body is too large.
        """
        self.size += len(chunk)
        if self.size > self._max_bytes:
            raise too_large(self._max_bytes)
        if self._gathered:
            self._gathered += chunk
        elif self._whole:
            self._gathered += self._whole
            self._gathered += chunk
            self._whole = b""
        else:
            self._whole = chunk

    def finish(self) -> bytes:
        """Return the whole."""
        return bytes(self._gathered) if self._gathered else self._whole


class PackedBody(PlainBody):
    """A body that is unpacked as it comes. What one part unpacks to is never larger than what may still come."""

    def __init__(self, max_bytes: int, coding: str) -> None:
        super().__init__(max_bytes)
        self._coding = coding
        self._window = _CODINGS[coding]
        self._unpacker = zlib.decompressobj(self._window)
        self._has_begun = False
        self._members = 1
        self._packed_size = 0

    def feed(self, chunk: bytes) -> None:
        """Take a part.

        Raises:
            RefusedError: The body is too large, or is not packed as its header says.
        """
        self._packed_size += len(chunk)
        if self._packed_size > self._max_bytes:  # what unpacks to nothing has no end otherwise
            raise too_large(self._max_bytes)
        try:
            self._feed(chunk)
        except zlib.error as error:
            raise self._broken(str(error)) from None

    def _feed(self, chunk: bytes) -> None:
        if self._unpacker.eof:  # another member of gzip (RFC 1952, section 2.2) begins in this part
            self._next_member()
        data = chunk
        while data:
            try:
                unpacked = self._unpacker.decompress(data, self._max_bytes - self.size + 1)
            except zlib.error:
                if self._has_begun or self._coding != "deflate":
                    raise
                # Some senders call it deflate and leave zlib's wrapping out (RFC 9110, section 8.4.1.2, note).
                self._unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
                unpacked = self._unpacker.decompress(data, self._max_bytes - self.size + 1)
            self._has_begun = True
            super().feed(unpacked)
            data = self._unpacker.unconsumed_tail
            if self._unpacker.eof and self._unpacker.unused_data:
                data = self._unpacker.unused_data
                self._next_member()

    def _next_member(self) -> None:
        if self._window != _GZIP_WINDOW:
            raise self._broken("bytes follow its end")
        self._members += 1
        if self._members > _MAX_MEMBERS:
            raise self._broken(f"it has more than {_MAX_MEMBERS} members")
        self._unpacker = zlib.decompressobj(self._window)

    def finish(self) -> bytes:
        """Return the whole.

        Raises:
            RefusedError: The end is missing.
        """
        if not self._unpacker.eof:
            raise self._broken("its end is missing")
        return super().finish()

    def _broken(self, why: str) -> RefusedError:
        return RefusedError(400, "broken_encoding", f"the body is not {self._coding}, as Content-Encoding says: {why}")


def body_for(content_encoding: str, max_bytes: int) -> PlainBody:
    """Return what takes the body of a request.

    Args:
        content_encoding: Value of the header, empty where there is none.
        max_bytes: Largest size, unpacked.

    Raises:
        RefusedError: It is packed in a way that is not known.
    """
    coding = content_encoding.strip().lower()
    if coding in {"", "identity"}:
        return PlainBody(max_bytes)
    if coding in _CODINGS:
        return PackedBody(max_bytes, coding)
    raise RefusedError(
        415,
        "unknown_encoding",
        "the body's Content-Encoding is neither gzip nor deflate; send it so, or as it is",
        {"Accept-Encoding": "gzip, deflate"},
    )
