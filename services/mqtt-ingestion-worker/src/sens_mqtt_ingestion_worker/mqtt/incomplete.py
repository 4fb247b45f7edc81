"""The beginning of a packet whose rest has not come yet."""

from typing import Final

_MAX_LENGTH_BYTES: Final = 4
_FIXED_HEADER_BYTES: Final = 1 + _MAX_LENGTH_BYTES  # at most; MQTT 5.0, section 2.1.1


class IncompletePacket:
    """Keeps it until the rest is there: what comes meanwhile is appended and not looked at, so that a broker gains nothing by single bytes."""

    def __init__(self, max_packet_bytes: int) -> None:
        """Take the size of the largest packet that is taken."""
        self._max_packet_bytes = max_packet_bytes
        self._kept = bytearray()
        self._length = 0  # of the packet; 0 while not even that has come

    def joined(self, data: bytes) -> bytes | None:
        """Return what came before and now, None while the packet is not complete."""
        if not self._kept:
            return data
        self._kept += data
        if len(self._kept) < self._length:
            return None
        whole = bytes(self._kept)
        self._kept.clear()
        return whole

    def keep(self, rest: memoryview) -> str | None:
        """Keep what is left; return why it can't be, None where it can."""
        if not rest:
            return None
        self._length = packet_length(rest)
        if self._length > self._max_packet_bytes + _FIXED_HEADER_BYTES:
            return f"the broker sent a packet of more than {self._max_packet_bytes:,} bytes, the largest that is taken"
        self._kept += rest
        return None


def packet_length(beginning: memoryview) -> int:
    """Return the length of a packet with its fixed header (MQTT 5.0, sections 1.5.5 and 2.1.4), 0 while too little of it has come.

    >>> packet_length(memoryview(bytes([0x30, 0x80, 0x01])))
    131
    """
    length = 0
    for index, byte in enumerate(beginning[1 : 1 + _MAX_LENGTH_BYTES]):
        length |= (byte & 0x7F) << 7 * index
        if not byte & 0x80:
            return 2 + index + length
    return 0
