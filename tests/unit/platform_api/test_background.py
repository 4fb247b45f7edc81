"""The API's background work: it is tried again after a failure, which is told once, and goes on by itself."""

import asyncio
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta

from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from sens_common.errors import UnavailableError
from sens_common.health import Problems
from sens_common.tenant_limits import TenantLimits
from sens_platform_api.between_batches import StillStoringError
from sens_platform_api.registry import service as registry
from sens_platform_api.registry.repository import DeletionStep
from sens_platform_api.retention import service as retention
from sens_platform_api.retention.repository import DroppingStep, Expired, RetentionStatus
from sens_platform_api.sql_logins import service as sql_logins
from sens_platform_api.sql_logins.repository import EndedSession
from sens_platform_api.tenants import service as tenants

AWAY = UnavailableError("the database can't be used")


class Deletions:
    """Deletions in memory: each step's result, or its error."""

    def __init__(self, *steps: DeletionStep | UnavailableError | None) -> None:
        self._steps = list(steps)
        self.done = asyncio.Event()

    async def step(self, most: int) -> DeletionStep | None:
        assert most > 0
        if not self._steps:
            self.done.set()
            return None
        result = self._steps.pop(0)
        if isinstance(result, Exception):
            raise result
        return result


class Expiry:
    """A pass of the retention in memory: a partition that is in use at first, then steps."""

    def __init__(self) -> None:
        self._steps = [Expired(1, True, 0, 0, 0, False), Expired(1, False, 5, 0, 2, True)]
        self._in_use = 2
        self._looked = False
        self.dropped: list[str] = []
        self.done = asyncio.Event()

    async def step(self, most: int) -> Expired | None:
        assert most > 0
        if not self._steps:
            self.done.set()
            return None
        return self._steps.pop(0)

    async def drop(self, devices: int) -> DroppingStep:
        assert devices > 0
        if self._in_use:
            self._in_use -= 1
            raise StillStoringError
        if not self._looked:
            self._looked = True
            return DroppingStep(None, finished=False)
        if self.dropped:
            return DroppingStep(None, finished=True)
        self.dropped.append("sens.readings_2025_01")
        return DroppingStep(self.dropped[0], finished=False)


class Limits:
    """The stored limits, which can't be read at first, and those that the workers were told."""

    def __init__(self, failures: int) -> None:
        self._failures = failures
        self.told: dict[str, TenantLimits] = {}
        self.done = asyncio.Event()

    async def limits(self) -> dict[str, TenantLimits]:
        if self._failures:
            self._failures -= 1
            raise AWAY
        return {"demo": TenantLimits(10)}

    async def bring_to(self, limits: dict[str, TenantLimits]) -> int:
        self.told = limits
        self.done.set()
        return len(limits)


class LongSessions:
    """Sessions that can't be ended at first, then one that is."""

    def __init__(self, failures: int) -> None:
        self._results: list[list[EndedSession] | None] = [*[None] * failures, [EndedSession("sens_sql_0", 1, 61.0)]]
        self.done = asyncio.Event()

    async def end_long(self) -> list[EndedSession]:
        if not self._results:
            self.done.set()
            return []
        result = self._results.pop(0)
        if result is None:
            raise AWAY
        return result


async def logged_until(
    done: asyncio.Event, keep: Callable[[Problems], Coroutine[None, None, None]]
) -> tuple[list[str], Problems]:
    """Run background work until it is done; return the events that it logged, and its problems."""
    problems = Problems("background")
    with capture_logs() as logs:
        task = asyncio.create_task(keep(problems))
        await done.wait()
        await asyncio.sleep(0)  # the attempt ends
        task.cancel()
    return [entry["event"] for entry in logs], problems


async def test_deletions_go_on_after_failures() -> None:
    deletions = Deletions(AWAY, DeletionStep(7, 10, False), AWAY, AWAY, DeletionStep(7, 5, True))
    events, problems = await logged_until(
        deletions.done, lambda problems: registry.keep_deleting(deletions, problems, interval_seconds=0)
    )
    assert problems.problem is None
    assert events.count("the measurements of a deletion are gone") == 1
    assert events[0] == "the measurements of deleted devices and metrics can't be deleted"
    assert events.count(events[0]) == 1


async def test_limits_are_told_after_failures() -> None:
    limits = Limits(failures=3)
    events, _ = await logged_until(
        limits.done, lambda problems: tenants.keep_telling_limits(limits, limits, problems, interval_seconds=0)
    )
    assert limits.told == {"demo": TenantLimits(10)}
    assert events.count("the ingestion workers can't be told the tenants' limits; they keep the last ones") == 1


async def test_long_transactions_of_logins_are_ended_after_failures_and_named() -> None:
    sessions = LongSessions(failures=2)
    events, problems = await logged_until(
        sessions.done, lambda problems: sql_logins.keep_ending(sessions, problems, interval_seconds=0)
    )
    assert problems.problem is None
    assert events.count("long transactions of tenants' SQL logins can't be ended") == 1
    assert (
        events.count("a session of a tenant's login is ended: its statement or transaction went on for too long") == 1
    )


async def test_retention_drops_partitions_first_and_counts_what_it_deletes() -> None:
    expiry = Expiry()
    events, _ = await logged_until(
        expiry.done, lambda problems: retention.keep_expiring(expiry, problems, interval_seconds=0)
    )
    assert expiry.dropped == ["sens.readings_2025_01"]
    assert events == ["a partition of which nobody keeps anything is dropped"]


def test_metrics_tell_what_comes_near_a_limit_and_what_waits() -> None:
    now = datetime(2026, 11, 24, 12, tzinfo=UTC)
    retention.observe(RetentionStatus({"demo": 0.9, "other": 1.5}, now - timedelta(hours=2)), now)
    assert (
        sample("sens_api_stored_bytes_filled_ratio", tenant="other"),
        sample("sens_api_retention_waiting_seconds"),
    ) == (1.5, 7200)
    retention.observe(RetentionStatus({"demo": 0.5}, None), now)
    assert (
        sample("sens_api_stored_bytes_filled_ratio", tenant="demo"),
        sample("sens_api_retention_waiting_seconds"),
    ) == (0.5, 0)
    assert sample("sens_api_stored_bytes_filled_ratio", tenant="other") is None


def sample(name: str, **labels: str) -> float | None:
    """Return the value of a metric."""
    return REGISTRY.get_sample_value(name, labels)
