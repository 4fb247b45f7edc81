"""The tenants' limits, sources and ingest keys, read from a JetStream key-value bucket: see `sens_common.tenant_limits`."""

import time
from collections.abc import Callable, Mapping
from typing import Final

import structlog
from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy
from nats.js.errors import NotFoundError

from sens_common import tenant_limits
from sens_common.attempts import Attempt, Attempts
from sens_common.health import Problems
from sens_common.ingestion import metrics
from sens_common.ingestion.rates import Rates
from sens_common.tenant_limits import TenantLimits

log = structlog.get_logger()

_INTERVAL_SECONDS: Final = 3.0
_OLD_SECONDS: Final = 10.0
_READING: Final = "read"  # key of a problem
_FETCH: Final = 256
_TIMEOUT_SECONDS: Final = 2.0
_STREAM: Final = f"KV_{tenant_limits.BUCKET}"  # a bucket is a stream of this name (NATS architecture decision record 8)
_SUBJECT: Final = f"$KV.{tenant_limits.BUCKET}."
_OPERATION_HEADER: Final = "KV-Operation"  # of a key that was deleted


type Follow = Callable[[Mapping[str, TenantLimits]], None]


class LimitsBucket:
    """Keeps the rates, and who follows, as the bucket has them. While it can't be read, or is not there, the last known ones hold."""

    def __init__(
        self,
        jetstream: JetStreamContext,
        rates: Rates,
        follow: Follow | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take who is told.

        Args:
            jetstream: Where the bucket is.
            rates: Are told the tenants' rates.
            follow: Is told everything, whenever something has changed.
            clock: Seconds.
        """
        self._jetstream = jetstream
        self._rates = rates
        self._follow = follow
        self._clock = clock
        self._seen: tuple[object, int] | None = None  # when the bucket was made, and its last sequence
        self._read_at = clock()
        self._last: Mapping[str, TenantLimits] = {}
        self._problems = Problems("limits")  # by tenant
        self._reading = Problems("limits_bucket")
        self._attempts = Attempts(
            self._reading,
            _READING,
            "the tenants' limits can't be read",
            retry_on=(NatsError, TimeoutError, OSError),
            why_says_all=True,
            interval_seconds=_INTERVAL_SECONDS,
        )

    def export_metrics(self) -> None:
        """Let the metrics look here whenever they are asked for."""
        metrics.LIMITS_AGE_SECONDS.set_function(lambda: self._clock() - self._read_at)

    async def keep_reading(self) -> None:
        """Read the limits again and again."""
        async for attempt in self._attempts:
            with attempt:
                await self._read()

    async def read(self) -> None:
        """Read the limits once; an error is a problem, and no more."""
        with Attempt(self._attempts, 1):
            await self._read()

    async def check(self) -> str | None:
        """Answer as a readiness check."""
        told = [self._problems.problem]
        age = self._clock() - self._read_at
        if age > _OLD_SECONDS:
            reason = self._reading.problem or "no answer yet"
            told.insert(0, f"the tenants' limits were last read {age:.0f} s ago, and those hold: {reason}")
        return "; ".join(sentence for sentence in told if sentence) or None

    async def _read(self) -> None:
        """Read the limits if they have changed."""
        started = self._clock()
        try:
            info = await self._jetstream.stream_info(_STREAM)
        except NotFoundError:  # nobody has made the bucket yet, or somebody has removed it
            self._read_at = started
            return
        seen = (info.created, info.state.last_seq)
        if seen != self._seen:
            limits = await self._all() if info.state.messages else {}
            self._rates.set({tenant: each.messages_per_second for tenant, each in limits.items()})
            if self._follow is not None:
                self._follow(limits)
            self._seen = seen
            rates = sum(each.messages_per_second is not None for each in limits.values())
            sources = sum(len(each.mqtt_sources) for each in limits.values())
            log.info("read the tenants' limits", tenants=len(limits), with_a_rate=rates, sources=sources)
        self._read_at = started

    async def _all(self) -> dict[str, TenantLimits]:
        """Return what holds for each tenant that has a key."""
        subscription = await self._jetstream.pull_subscribe(
            f"{_SUBJECT}>",
            stream=_STREAM,
            config=ConsumerConfig(
                deliver_policy=DeliverPolicy.LAST_PER_SUBJECT,
                ack_policy=AckPolicy.NONE,
                inactive_threshold=30,
                mem_storage=True,
            ),
        )
        limits: dict[str, TenantLimits] = {}
        try:
            pending = 1
            while pending:
                for message in await subscription.fetch(_FETCH, timeout=_TIMEOUT_SECONDS):
                    pending = message.metadata.num_pending
                    tenant = tenant_limits.tenant(message.subject.removeprefix(_SUBJECT))
                    if _OPERATION_HEADER in (message.headers or {}):
                        limits.pop(tenant, None)
                        self._problems.clear(tenant)
                        continue
                    limits[tenant] = self._limits(tenant, message.data)
        finally:
            await subscription.unsubscribe()
        self._last = limits
        return limits

    def _limits(self, tenant: str, value: bytes) -> TenantLimits:
        try:
            limits = tenant_limits.decode(value)
        except ValueError as error:
            last = self._last.get(tenant)
            held = "there are none" if last is None else "those before hold"
            self._problems.set(tenant, f"the limits of tenant {tenant} can't be understood, and {held}: {error}")
            return last or TenantLimits()
        self._problems.clear(tenant)
        return limits
