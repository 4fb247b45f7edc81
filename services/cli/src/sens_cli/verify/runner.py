"""Runs checks at once, each in its own task, and all of them within a time."""

import asyncio
import time
from collections.abc import Mapping

from sens_cli.verify.outcome import Check, CheckFailedError, NotRunError, Outcome, Status


async def run_checks(checks: Mapping[str, Check], timeout_seconds: float) -> list[Outcome]:
    """Return how each check ended, in their order; one that is not done when the time is over has failed."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_outcome(*item, timeout_seconds), name=item[0]) for item in checks.items()]
    return [task.result() for task in tasks]


async def _outcome(name: str, check: Check, timeout_seconds: float) -> Outcome:
    started = time.monotonic()
    remedy: str | None = None
    try:
        async with asyncio.timeout(timeout_seconds):
            status, detail = Status.OK, await check()
    except CheckFailedError as error:
        status, detail, remedy = Status.FAILED, error.detail, error.remedy
    except NotRunError as error:
        status, detail = Status.NOT_RUN, str(error)
    except TimeoutError:
        status, detail = Status.FAILED, f"not done after {timeout_seconds:g} s, the time of the whole run"
        remedy = f"Run it alone, with more time: --check {name} --timeout {timeout_seconds * 2:g}"
    return Outcome(name, status, detail, remedy, round(time.monotonic() - started, 3))
