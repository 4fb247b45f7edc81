"""Serves the sessions at brokers of tenants' own: begins, changes and ends them as the sources want it, within bounds."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Final, Protocol

import structlog

from sens_common.errors import UnavailableError
from sens_common.health import Problems
from sens_common.source_states import SourceState, failed
from sens_common.tenant_limits import TenantLimits
from sens_mqtt_ingestion_worker import metrics
from sens_mqtt_ingestion_worker.brokers.plans import Plan, Plans, plans
from sens_mqtt_ingestion_worker.brokers.session import BrokerSession
from sens_mqtt_ingestion_worker.settings import BrokersSettings
from sens_mqtt_ingestion_worker.source_routes import SourceRoutes
from sens_mqtt_ingestion_worker.status import IngestionStatus

log = structlog.get_logger()

_RENEW_SECONDS: Final = 3.0
_END_SECONDS: Final = 5.0
_BOUND: Final = "bound"  # key of a problem
_LEASES: Final = "leases"


class Leases(Protocol):
    """Says which worker serves a session."""

    async def take(self, session: str) -> bool:
        """Take a lease if it is free; tell whether it is held now.

        Raises:
            UnavailableError: That can't be known now.
        """

    async def renew(self, session: str) -> bool:
        """Hold a lease for longer; tell whether it is still held.

        Raises:
            UnavailableError: That can't be known now.
        """

    async def is_held(self, session: str) -> bool:
        """Tell whether another worker holds a lease.

        Raises:
            UnavailableError: That can't be known now.
        """

    async def release(self, session: str) -> None:
        """Give a lease back.

        Raises:
            UnavailableError: That can't be done now.
        """


class _Served:
    """A session that this worker serves."""

    def __init__(self, plan: Plan, session: BrokerSession, problems: Problems) -> None:
        self.plan = plan
        self.session = session
        self.problems = problems
        self.is_ending = False
        self.task = asyncio.create_task(session.run(), name=plan.words)

    def end(self, *, for_good: bool) -> None:
        """End it, and cut it short where that takes long: what is not acknowledged comes again."""
        if not self.is_ending:
            self.is_ending = True
            self.session.end(for_good=for_good)
            asyncio.get_running_loop().call_later(_END_SECONDS, self.task.cancel)


class ServedBrokers:
    """The sessions of this worker.

    Attributes:
        problems: What is wrong with them; it makes the worker no less ready.
    """

    def __init__(
        self,
        settings: BrokersSettings,
        leases: Leases,
        open_session: Callable[[Plan, Problems], BrokerSession],
    ) -> None:
        self._settings = settings
        self._leases = leases
        self._open = open_session
        self._plans = Plans({}, {})
        self._rates: Mapping[str, int | None] = {}
        self._served: dict[str, _Served] = {}
        self._left_out: dict[str, Plan] = {}
        self._changed = asyncio.Event()
        self.problems = Problems("brokers")

    def export_metrics(self) -> None:
        """Let the metrics look here whenever they are asked for."""
        metrics.BROKERS.set_function(lambda: len(self._served))
        metrics.BROKERS_LEFT_OUT.set_function(lambda: len(self._left_out))

    def follow(self, limits: Mapping[str, TenantLimits]) -> None:
        """Let the sources and rates of these tenants hold."""
        self._plans = plans(
            {tenant: each.mqtt_sources for tenant, each in limits.items()}, self._settings.allowed_hosts
        )
        self._rates = {tenant: each.messages_per_second for tenant, each in limits.items()}
        for served in self._served.values():
            served.session.rates.set(self._rates)
        self._changed.set()

    def statuses(self) -> Iterable[IngestionStatus]:
        """Return what each session holds."""
        return [served.session.status for served in self._served.values()]

    def routes(self) -> Iterable[SourceRoutes]:
        """Return the sources of each session."""
        return [served.session.routes for served in self._served.values()]

    def states(self) -> dict[str, dict[str, SourceState]]:
        """Return how the sources do of which this worker knows that, by tenant and name."""
        states = {tenant: dict(of_tenant) for tenant, of_tenant in self._plans.refused.items()}
        for plan in self._left_out.values():
            for source in plan.sources:
                states.setdefault(plan.tenant, {})[source.name] = failed("too_many_brokers", self._bound_words(plan))
        for served in self._served.values():
            if not served.is_ending:
                states.setdefault(served.plan.tenant, {}).update(served.session.states())
        return states

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until the stop."""
        stopping = asyncio.create_task(stop.wait(), name="wait for stop")
        stopping.add_done_callback(lambda _: self._changed.set())
        try:
            while not stop.is_set():
                self._changed.clear()
                await self._follow()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_RENEW_SECONDS):
                        await self._changed.wait()
        finally:
            stopping.cancel()
            await self._end_all()

    async def _follow(self) -> None:
        """Bring the sessions to what the plans say."""
        await self._forget_those_that_are_over()
        for key, served in self._served.items():
            plan = self._plans.sessions.get(key)
            if plan is None:
                served.end(for_good=True)
            elif plan != served.plan and not served.is_ending:
                served.plan = plan
                served.session.follow(plan)
        try:
            for key in list(self._served):
                if not self._served[key].is_ending and not await self._leases.renew(key):
                    log.warning("another worker serves a broker now", broker=self._served[key].plan.words)
                    self._served[key].end(for_good=False)
            await self._begin()
        except UnavailableError as error:
            self.problems.set(
                _LEASES, "who serves which broker can't be settled; those that are served go on", str(error)
            )
            return
        self.problems.clear(_LEASES)

    async def _begin(self) -> None:
        """Begin the sessions that nobody serves, as long as there is room."""
        counts = Counter(served.plan.tenant for served in self._served.values())
        left_out: dict[str, Plan] = {}
        for key, plan in self._plans.sessions.items():
            if key in self._served:
                continue
            if len(self._served) >= self._settings.max_count or counts[plan.tenant] >= self._settings.max_per_tenant:
                if not await self._leases.is_held(key):
                    left_out[key] = plan
            elif await self._leases.take(key):
                problems = self.problems.of(plan.words)
                session = self._open(plan, problems)
                session.rates.set(self._rates)
                self._served[key] = served = _Served(plan, session, problems)
                served.task.add_done_callback(lambda _: self._changed.set())
                counts[plan.tenant] += 1
        self._left_out = left_out
        if left_out:
            names = ", ".join(plan.words for plan in list(left_out.values())[:5])
            self.problems.set(_BOUND, f"{len(left_out)} brokers are left out, because there are too many", names)
        else:
            self.problems.clear(_BOUND)

    def _bound_words(self, plan: Plan) -> str:
        return (
            f"{plan.address} is left out: a worker serves {self._settings.max_count} brokers of tenants' own at most, and"
            f" {self._settings.max_per_tenant} of one tenant (SENS_BROKERS__MAX_COUNT, SENS_BROKERS__MAX_PER_TENANT)"
        )

    async def _forget_those_that_are_over(self) -> None:
        for key, served in list(self._served.items()):
            if not served.task.done():
                continue
            del self._served[key]
            error = None if served.task.cancelled() else served.task.exception()
            if error is not None:
                log.error(
                    "a broker's session ended by an error, and begins again", broker=served.plan.words, exc_info=error
                )
            served.problems.clear_all()
            with contextlib.suppress(UnavailableError):
                await self._leases.release(key)

    async def _end_all(self) -> None:
        for served in self._served.values():
            served.end(for_good=False)
        if self._served:
            await asyncio.wait([served.task for served in self._served.values()])
        await self._forget_those_that_are_over()
