"""A standing pull request to the durable consumer.

nats-py's own `fetch` either does not wait for more messages or waits for all of them; here the request stays open, and `inbox` decides how
long to wait. The server says every second that a request still waits (NATS documentation, "Consumers", ``idle_heartbeat``), so that one
which it has forgotten, after a restart for example, is noticed.
"""

import contextlib
import json
import time
from typing import Final, NamedTuple

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from sens_common import envelope
from sens_common.names import TELEMETRY_CONSUMER, TELEMETRY_STREAM

MAX_ENVELOPES: Final = 128
"""Envelopes asked for at once."""
MAX_BYTES: Final = 8 << 20
"""Size of the envelopes asked for at once; one that is larger comes alone."""

_EXPIRES_SECONDS: Final = 20.0
_HEARTBEAT_SECONDS: Final = 1.0
_SILENCE_SECONDS: Final = 4.0
"""A request of which nothing is heard for this long, not even that it waits, is lost."""


class PullStatus(NamedTuple):
    """What the server says of a request, in a message without an envelope."""

    code: str
    description: str


def status_of(delivery: Msg) -> PullStatus | None:
    """Return the status in a delivery, None where it is an envelope."""
    headers = (delivery.headers or {}) if not delivery.reply else {}
    return PullStatus(headers["Status"], headers.get("Description", "")) if "Status" in headers else None


class StandingPull:
    """The request, and what the server says of it.

    Attributes:
        reply_subject: Where envelopes and the server's statuses arrive.
        silent_at: When the request counts as lost, seconds of the monotonic clock.
        consumer_is_missing: Whether the server says that there is no consumer to ask.
    """

    def __init__(self, client: Client, reply_subject: str) -> None:
        self._client = client
        self._requested = 0
        self.reply_subject = reply_subject
        self.silent_at = 0.0
        self.consumer_is_missing = False

    def note_envelope(self) -> None:
        """Take note that an envelope has arrived."""
        self.silent_at = time.monotonic() + _SILENCE_SECONDS
        self._requested = max(0, self._requested - 1)

    def note_status(self, status: PullStatus) -> None:
        """Take note of what the server says of the request."""
        self.silent_at = time.monotonic() + _SILENCE_SECONDS
        # 100: it waits. 404, 408: nothing more for this request. 409: it would become too large, or the consumer is gone.
        # 503: there is no consumer to ask (NATS architecture decision record 13, "Pull Subscribe internals").
        if status.code != "100":
            self._requested = 0
        if status.code == "503" or (status.code == "409" and status.description == "Consumer Deleted"):
            self.consumer_is_missing = True

    async def keep_open(self, *, enough: bool) -> None:
        """Ask for more envelopes unless a request is open; `enough` says that none are wanted now."""
        now = time.monotonic()
        if not self._client.is_connected:
            self._requested = 0  # a lost connection swallows a request
            self.silent_at = now + _SILENCE_SECONDS
            return
        if now > self.silent_at:
            self._requested = 0
        if self._requested or enough:
            return
        self._requested = MAX_ENVELOPES
        self.silent_at = now + _SILENCE_SECONDS
        request = {
            "batch": MAX_ENVELOPES,
            "expires": int(_EXPIRES_SECONDS * 1e9),
            "idle_heartbeat": int(_HEARTBEAT_SECONDS * 1e9),
            # An envelope that is larger than this would never come.
            "max_bytes": max(MAX_BYTES, self._client.max_payload + envelope.OVERHEAD_BYTES),
        }
        subject = f"$JS.API.CONSUMER.MSG.NEXT.{TELEMETRY_STREAM}.{TELEMETRY_CONSUMER}"
        with contextlib.suppress(NatsError):
            await self._client.publish(subject, json.dumps(request).encode(), reply=self.reply_subject)
