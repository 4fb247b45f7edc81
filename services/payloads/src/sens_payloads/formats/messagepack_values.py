"""MessagePack as values, read strictly: the MessagePack specification, "Formats" and "Timestamp extension type".

msgspec, which reads it faster, keeps the last of several equal keys and says nothing.
"""

import struct
from struct import Struct
from typing import Final

from sens_common.dead_letters import Reason
from sens_common.device_times import time_text
from sens_common.errors import RejectedMessageError
from sens_payloads.formats.json_text import check_size

MAX_DEPTH: Final = 32
"""Of what is read; metrics may lie less deep."""

_NUMBERS: Final = {
    0xCA: Struct(">f"),
    0xCB: Struct(">d"),
    0xCC: Struct(">B"),
    0xCD: Struct(">H"),
    0xCE: Struct(">I"),
    0xCF: Struct(">Q"),
    0xD0: Struct(">b"),
    0xD1: Struct(">h"),
    0xD2: Struct(">i"),
    0xD3: Struct(">q"),
}
_CONSTANTS: Final = {0xC0: None, 0xC2: False, 0xC3: True}
_LENGTH: Final = {1: Struct(">B"), 2: Struct(">H"), 4: Struct(">I")}
_TEXTS: Final = {0xD9: 1, 0xDA: 2, 0xDB: 4}
_BINARY: Final = {0xC4: 1, 0xC5: 2, 0xC6: 4}
_ARRAYS: Final = {0xDC: 2, 0xDD: 4}
_MAPS: Final = {0xDE: 2, 0xDF: 4}
_EXTENSIONS: Final = {0xC7: 1, 0xC8: 2, 0xC9: 4}
_FIXED_EXTENSIONS: Final = {0xD4: 1, 0xD5: 2, 0xD6: 4, 0xD7: 8, 0xD8: 16}
_TIMESTAMP: Final = -1
_NANOSECONDS: Final = 1_000_000_000


def decode(body: bytes) -> object:
    """Return what a message holds: None, booleans, integers, floats, texts, bytes, lists and dicts with keys of these but lists and dicts.

    Timestamps are texts as in RFC 3339.

    Raises:
        RejectedMessageError: It is not MessagePack, has two equal keys in one map, an extension that is not read, or is nested too deep.
    """
    check_size(body)
    reader = _Reader(body)
    try:
        document = reader.value(1)
    except (IndexError, struct.error):
        raise RejectedMessageError(
            Reason.MALFORMED_PAYLOAD,
            f"the message ends in the middle of its MessagePack, after {len(body)} bytes; was it cut off?",
        ) from None
    if reader.position < len(body):
        raise RejectedMessageError(
            Reason.MALFORMED_PAYLOAD,
            f"{len(body) - reader.position} bytes follow the end of the MessagePack; send each document as a message of its own",
        )
    return document


class _Reader:
    """Reads values one after the other.

    Attributes:
        position: Of the next byte.
    """

    def __init__(self, body: bytes) -> None:
        self._body = body
        self.position = 0

    def value(self, depth: int) -> object:  # noqa: PLR0911 - one for each family of formats
        """Return the next value.

        Args:
            depth: Of the maps and arrays that hold it, and 1.
        """
        kind = self._body[self.position]
        self.position += 1
        if kind < 0x80:  # noqa: PLR2004 - positive fixint
            return kind
        if kind >= 0xE0:  # noqa: PLR2004 - negative fixint
            return kind - 0x100
        if kind < 0x90:  # noqa: PLR2004 - fixmap
            return self._map(kind & 0x0F, depth)
        if kind < 0xA0:  # noqa: PLR2004 - fixarray
            return self._array(kind & 0x0F, depth)
        if kind < 0xC0:  # noqa: PLR2004 - fixstr
            return self._text(kind & 0x1F)
        number = _NUMBERS.get(kind)
        if number is not None:
            return self._number(number)
        if kind in _CONSTANTS:
            return _CONSTANTS[kind]
        return self._sized(kind, depth)

    def _sized(self, kind: int, depth: int) -> object:
        if kind in _TEXTS:
            return self._text(self._length(_TEXTS[kind]))
        if kind in _MAPS:
            return self._map(self._length(_MAPS[kind]), depth)
        if kind in _ARRAYS:
            return self._array(self._length(_ARRAYS[kind]), depth)
        if kind in _BINARY:
            return self._bytes(self._length(_BINARY[kind]))
        if kind in _EXTENSIONS:
            return self._extension(self._length(_EXTENSIONS[kind]))
        if kind in _FIXED_EXTENSIONS:
            return self._extension(_FIXED_EXTENSIONS[kind])
        raise RejectedMessageError(
            Reason.MALFORMED_PAYLOAD, f"the message is not MessagePack: byte {self.position} is 0x{kind:02x}"
        )

    def _number(self, form: Struct) -> float:
        (number,) = form.unpack_from(self._body, self.position)
        self.position += form.size
        return number  # type: ignore[no-any-return] # of numbers

    def _length(self, size: int) -> int:
        return int(self._number(_LENGTH[size]))

    def _bytes(self, length: int) -> bytes:
        end = self.position + length
        if end > len(self._body):
            raise IndexError
        found = self._body[self.position : end]
        self.position = end
        return found

    def _text(self, length: int) -> str:
        raw = self._bytes(length)
        try:
            return raw.decode()
        except UnicodeDecodeError:
            raise RejectedMessageError(
                Reason.MALFORMED_PAYLOAD, f"the text that ends at byte {self.position} is not UTF-8; send bytes as bin"
            ) from None

    def _array(self, length: int, depth: int) -> list[object]:
        self._check(length, depth)
        return [self.value(depth + 1) for _ in range(length)]

    def _map(self, length: int, depth: int) -> dict[object, object]:
        self._check(2 * length, depth)
        members: dict[object, object] = {}
        for _ in range(length):
            key = self.value(depth + 1)
            if isinstance(key, (list, dict)):
                raise RejectedMessageError(Reason.MALFORMED_PAYLOAD, "a key is an array or a map; it has to be a text")
            if key in members:
                raise RejectedMessageError(Reason.MALFORMED_PAYLOAD, f"the key {key!r:.80} is there twice in one map")
            members[key] = self.value(depth + 1)
        return members

    def _check(self, values: int, depth: int) -> None:
        """Look that there can be so many values, each having a byte at least, and that they do not lie too deep."""
        if depth > MAX_DEPTH:
            raise RejectedMessageError(Reason.TOO_LARGE, f"the MessagePack is nested more than {MAX_DEPTH} levels deep")
        if values > len(self._body) - self.position:
            raise IndexError

    def _extension(self, length: int) -> str:
        kind = int(self._number(_NUMBERS[0xD0]))
        data = self._bytes(length)
        if kind == _TIMESTAMP and length in {4, 8, 12}:
            seconds, nanoseconds = _timestamp(data)
            if nanoseconds < _NANOSECONDS:
                return time_text(seconds * 1_000_000 + nanoseconds // 1000)
        raise RejectedMessageError(
            Reason.UNSUPPORTED_VALUE, f"the MessagePack extension type {kind} is not read; send plain values"
        )


def _timestamp(data: bytes) -> tuple[int, int]:
    """Return seconds since the epoch and nanoseconds."""
    if len(data) == 4:  # noqa: PLR2004 - timestamp 32
        return int.from_bytes(data), 0
    if len(data) == 8:  # noqa: PLR2004 - timestamp 64: 30 bits and 34 bits
        both = int.from_bytes(data)
        return both & (2**34 - 1), both >> 34
    return int.from_bytes(data[4:], signed=True), int.from_bytes(data[:4])
