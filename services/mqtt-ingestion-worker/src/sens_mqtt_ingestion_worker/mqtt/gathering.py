"""When the messages that have come are enough for an envelope."""

import asyncio
import time
from collections.abc import Callable
from typing import Final

from sens_mqtt_ingestion_worker.status import Waiting

_BUSY_MESSAGES: Final = 50
_ENOUGH_SHARE: Final = 4
_ENOUGH_BYTES: Final = 1 << 20
_SECONDS: Final = 0.02
_STEP_SECONDS: Final = 0.004


class Gathering:
    """Gathers messages while many come.

    An envelope costs this worker and the stream as much as a hundred messages. So when the last delivery had `_BUSY_MESSAGES`, the next one is
    gathered until it has ``receive_max`` divided by `_ENOUGH_SHARE`, or `_ENOUGH_BYTES`, for `_SECONDS` at most. A broker that stops at
    the same number twice waits for acknowledgements, because its own limit is lower; then that number is enough.
    """

    def __init__(self, receive_max: int) -> None:
        self._receive_max = receive_max
        self._enough_count = receive_max // _ENOUGH_SHARE
        self._stopped_at_count = 0
        self._last_delivered_count = 0

    @property
    def is_busy(self) -> bool:
        """Whether gathering is worth its time."""
        return self._last_delivered_count >= _BUSY_MESSAGES

    def delivered(self, count: int) -> None:
        """Take note of a delivery of so many messages."""
        self._last_delivered_count = count

    async def gather(self, waiting: Callable[[], Waiting], has_ended: Callable[[], bool]) -> None:
        """Wait for more messages.

        Args:
            waiting: Tells what has come.
            has_ended: Tells whether nothing more comes.
        """
        if waiting().message_count > self._enough_count:
            self._enough_count = self._receive_max // _ENOUGH_SHARE
        deadline = time.monotonic() + _SECONDS
        while (
            (here := waiting()).message_count < self._enough_count
            and here.byte_count < _ENOUGH_BYTES
            and not has_ended()
        ):
            if time.monotonic() > deadline:
                if here.message_count == self._stopped_at_count:
                    self._enough_count = here.message_count
                self._stopped_at_count = here.message_count
                return
            await asyncio.sleep(_STEP_SECONDS)
