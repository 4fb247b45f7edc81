"""Ends what logins of tenants do for too long: they can lift the limits that the server has for them."""

from typing import Final, Protocol

import structlog

from sens_common.attempts import Attempts
from sens_common.errors import SensError
from sens_common.health import Problems
from sens_platform_api import metrics
from sens_platform_api.sql_logins.repository import EndedSession

log = structlog.get_logger()

INTERVAL_SECONDS: Final = 5.0


class Sessions(Protocol):
    """The sessions of all logins."""

    async def end_long(self) -> list[EndedSession]:
        """End those whose statement or transaction goes on for longer than it may; return them."""


async def keep_ending(sessions: Sessions, problems: Problems, *, interval_seconds: float = INTERVAL_SECONDS) -> None:
    """End long statements and transactions again and again."""
    attempts = Attempts(
        problems,
        "sql_logins",
        "long transactions of tenants' SQL logins can't be ended",
        retry_on=(SensError,),
        interval_seconds=interval_seconds,
    )
    async for attempt in attempts:
        with attempt:
            for ended in await sessions.end_long():
                log.warning(
                    "a session of a tenant's login is ended: its statement or transaction went on for too long",
                    login=ended.login,
                    tenant_id=ended.tenant_id,
                    seconds=round(ended.seconds),
                )
                metrics.ENDED_SQL_SESSIONS.inc()
