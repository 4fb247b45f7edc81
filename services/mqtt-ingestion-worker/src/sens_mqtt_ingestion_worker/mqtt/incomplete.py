"""The beginning of a packet whose rest has not come yet."""

from typing import Final

_FIXED_HEADER_BYTES: Final = 5  # at most; MQTT 5.0, section 2.1.1


class IncompletePacket:
    """Keeps it until the next bytes come."""

    def __init__(self, max_packet_bytes: int) -> None:
        """Take the size of the largest packet that is taken."""
        self._max_packet_bytes = max_packet_bytes
        self._kept = b""

    def joined(self, data: bytes) -> bytes:
        """Return what came before and now."""
        return self._kept + data if self._kept else data

    def keep(self, rest: bytes) -> str | None:
        """Keep what is left; return why it can't be, None where it can."""
        self._kept = rest
        if len(rest) <= self._max_packet_bytes + _FIXED_HEADER_BYTES:
            return None
        self._kept = b""
        return f"the broker sent a packet of more than {self._max_packet_bytes:,} bytes, the largest that is taken"
