"""A message under way in the broker."""

from typing import Final

_OVERHEAD_BYTES: Final = 200
"""What a message takes in memory beside its topic and payload, roughly."""


class ApplicationMessage:
    """A message under way. Its topic stands as on the wire, its length before it."""

    __slots__ = ("expires_at", "payload", "properties", "qos", "retain", "size", "topic")

    def __init__(  # noqa: PLR0917 - made for every message, and keywords take time
        self,
        topic: bytes,
        payload: bytes,
        qos: int,
        retain: int = 0,
        properties: bytes = b"",
        expires_at: float | None = None,
    ) -> None:
        self.topic = topic
        self.payload = payload
        self.qos = qos
        self.retain = retain
        self.properties = properties
        self.expires_at = expires_at
        self.size = len(topic) + len(payload) + len(properties) + _OVERHEAD_BYTES


type Outgoing = tuple[ApplicationMessage, int]
"""A message on its way to one client, and the flags of its packet: QoS and RETAIN."""
