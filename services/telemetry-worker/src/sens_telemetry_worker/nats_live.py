"""The live feed on core NATS. Nothing waits for it, and what it leaves out is counted."""

import contextlib
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Sequence
from typing import Final

import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from sens_common import live
from sens_common.envelope import OVERHEAD_BYTES
from sens_common.names import LIVE_INTEREST_SUBJECT, is_tenant_name
from sens_telemetry_worker import metrics

log = structlog.get_logger()

MAX_BATCH_BYTES: Final = 4 << 20
"""What is published of one tenant at once, at most; the rest is left out, so that publishing takes no longer than storing."""

_ENCODED_TOGETHER: Final = 1000
_MAX_WATCHED: Final = 10_000
_LOG_INTERVAL_SECONDS: Final = 60.0


class NatsLiveFeed:
    """The live feed, as `live.LiveFeed`. A tenant is watched while somebody keeps saying so.

    What can't be sent is told with the tenant's next message, and with one of its own at once where NATS takes it.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._watched_until: dict[str, float] = {}
        self._untold: Counter[str] = Counter()
        self._next_log_at = 0.0

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Listen for interest while the context is open."""
        subscription = await self._client.subscribe(LIVE_INTEREST_SUBJECT, cb=self._note)
        try:
            yield
        finally:
            with contextlib.suppress(NatsError):
                await subscription.unsubscribe()

    async def _note(self, message: Msg) -> None:
        tenant = message.data.decode(errors="replace")
        if is_tenant_name(tenant) and (tenant in self._watched_until or len(self._watched_until) < _MAX_WATCHED):
            self._watched_until[tenant] = time.monotonic() + live.INTEREST_SECONDS

    def watched(self) -> set[str]:
        """See `live.LiveFeed.watched`."""
        if self._watched_until:
            now = time.monotonic()
            self._watched_until = {tenant: until for tenant, until in self._watched_until.items() if until > now}
            for tenant in self._untold.keys() - self._watched_until.keys():
                del self._untold[tenant]
        return set(self._watched_until)

    async def publish(self, tenant: str, readings: Sequence[live.LiveReading]) -> None:
        """See `live.LiveFeed.publish`."""
        bodies, left_out = _newest(readings, self._client.max_payload - OVERHEAD_BYTES)
        if left_out:
            self._leave_out(tenant, left_out, f"at most {MAX_BATCH_BYTES} bytes of a tenant are published at once")
        waiting = len(readings) - left_out
        try:
            for body, count in bodies:
                await self._send(tenant, body)
                waiting -= count
            if self._untold[tenant]:
                await self._send(tenant, live.encode([]))
        except NatsError as error:
            self._leave_out(tenant, waiting, str(error) or type(error).__name__)

    async def _send(self, tenant: str, body: bytes) -> None:
        untold = self._untold[tenant]
        headers = {live.DROPPED_HEADER: str(untold)} if untold else None
        await self._client.publish(live.subject(tenant), body, headers=headers)
        if untold:
            self._untold[tenant] -= untold

    def _leave_out(self, tenant: str, count: int, why: str) -> None:
        if not count:
            return
        self._untold[tenant] += count
        metrics.LIVE_DROPPED.labels(tenant).inc(count)
        now = time.monotonic()
        if now >= self._next_log_at:
            self._next_log_at = now + _LOG_INTERVAL_SECONDS
            log.warning("live readings are left out; the watchers are told", tenant=tenant, readings=count, reason=why)


def _newest(readings: Sequence[live.LiveReading], max_body_bytes: int) -> tuple[Sequence[tuple[bytes, int]], int]:
    """Return bodies with the numbers of their readings, the newest that fit into `MAX_BATCH_BYTES`, and how many readings do not."""
    bodies: deque[tuple[bytes, int]] = deque()
    size = taken = 0
    for end in range(len(readings), 0, -_ENCODED_TOGETHER):
        for body, count in reversed(
            list(live.encode_parts(readings[max(0, end - _ENCODED_TOGETHER) : end], max_body_bytes))
        ):
            size += len(body)
            if size > MAX_BATCH_BYTES:
                return bodies, len(readings) - taken
            bodies.appendleft((body, count))
            taken += count
    return bodies, len(readings) - taken
