"""What becomes of a message that was published: the API tells, from what it stores of the device and from its dead letters."""

import json
import queue
import threading
import time
from collections.abc import Iterator
from enum import StrEnum
from typing import Any, Final, NamedTuple

from sens_cli.api import Api, RefusedByApiError, segment
from sens_cli.events import events
from sens_cli.target import Target
from sens_common.errors import SensError, UnavailableError

_LOOK_SECONDS: Final = 0.25
_LETTERS: Final = 20


class Fate(StrEnum):
    """What became of a message."""

    STORED = "stored"
    DEAD_LETTERED = "dead-lettered"
    UNKNOWN = "unknown"
    """Neither was seen in time; a message that was stored before, for example, has no effect."""


class Seen(NamedTuple):
    """What was seen.

    Attributes:
        fate: What became of the message.
        letter: Its dead letter as the API lists it, None when there is none.
    """

    fate: Fate
    letter: dict[str, Any] | None = None


class Watcher:
    """Watches a device: `start` before a message of it is published, `wait` afterwards."""

    def __init__(self, target: Target, device: str, payload: bytes) -> None:
        self._api = Api(target)
        self._device = device
        self._payload = payload
        self._live: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()

    def start(self) -> None:
        """Remember what is there, and begin to watch.

        Raises:
            SensError: The API can't be reached, or refuses.
        """
        self._known_letters = {letter["id"] for letter in self._letters()}
        self._latest_before = self._latest()
        # It ends with the process: an answer without end can't be interrupted.
        threading.Thread(target=self._watch_live, name="live", daemon=True).start()
        self._live.get()

    def wait(self, seconds: float) -> Seen:
        """Return what became of the message, or that it was not seen within so many seconds.

        Raises:
            SensError: The API can't be reached, or refuses.
        """
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            try:
                reading = self._live.get(timeout=_LOOK_SECONDS)
            except queue.Empty:
                reading = None
            if reading is not None and self._is_from_message(reading):
                return Seen(Fate.STORED)
            for letter in self._letters():
                if letter["id"] not in self._known_letters and self._has_its_payload(letter["id"]):
                    return Seen(Fate.DEAD_LETTERED, letter)
            if any(self._is_from_message(each) for each in self._latest() if each not in self._latest_before):
                return Seen(Fate.STORED)
        return Seen(Fate.UNKNOWN)

    def _watch_live(self) -> None:
        try:
            lines = self._api.lines(
                "live", {"device": [self._device], "calibration": "none"}, accept="text/event-stream", endless=True
            )
            for event in events(lines, idle=True):
                self._live.put(event.data if event.name == "reading" else None)
        except SensError:
            pass  # without NATS there is no live view; the other ways are open
        self._live.put(None)

    def _letters(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._api.get("dead-letters", {"device": self._device, "limit": _LETTERS})[
            "dead_letters"
        ]
        return found

    def _has_its_payload(self, letter_id: int) -> bool:
        document = self._api.get(f"dead-letters/{letter_id}")
        text = document.get("payload_text")
        return text is None or self._payload.startswith(text.encode())

    def _latest(self) -> list[dict[str, Any]]:
        try:
            found: list[dict[str, Any]] = self._api.get(
                f"devices/{segment(self._device)}/latest", {"calibration": "none"}
            )["latest"]
        except UnavailableError:
            raise
        except RefusedByApiError:  # the device's first message makes it
            return []
        return found

    def _is_from_message(self, reading: dict[str, Any]) -> bool:
        """Tell whether a reading is one of the message's values, as far as its payload can be read here."""
        try:
            document = json.loads(self._payload)
        except ValueError:
            return True
        return any(
            reading["metric"] == name and (not isinstance(value, str | int | float) or reading["value"] == value)
            for name, value in _members(document)
        )


def _members(document: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield names and values of a payload, nested ones as the platform names them."""
    match document:
        case dict():
            for name, value in document.items():
                yield from _members(value, f"{prefix}.{name}" if prefix else str(name))
        case list() if not prefix:
            for item in document:
                yield from _members(item)
        case list():
            for number, item in enumerate(document):
                yield from _members(item, f"{prefix}.{number}")
        case _:
            yield prefix, document
