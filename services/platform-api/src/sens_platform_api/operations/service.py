"""The API's readiness. Anybody can ask for it, so an answer is given again for a second, and holds no words of a driver."""

from collections.abc import Mapping
from typing import Final

import structlog

from sens_common.errors import SchemaError, SensError
from sens_common.health import Check
from sens_common.readiness import Readiness

log = structlog.get_logger()

CACHE_SECONDS: Final = 1.0


def public_readiness(checks: Mapping[str, Check], *, partial: frozenset[str], notes: Mapping[str, Check]) -> Readiness:
    """Return the readiness of a service that anybody can ask; the arguments are those of `Readiness`."""
    discreet = {name: _discreet(name, check) for name, check in checks.items()}
    return Readiness(discreet, partial=partial, notes=notes, cache_seconds=CACHE_SECONDS)


def _discreet(name: str, check: Check) -> Check:
    """Let a check answer without a driver's words, which are for the log: addresses and roles are nobody else's business."""

    async def run() -> str | None:
        try:
            return await check()
        except SchemaError as error:
            return str(error)
        except SensError as error:
            log.warning("a readiness check failed", check=name, error=str(error))
            return f"the {name} can't be used; the log of this service says why"
        except Exception:
            log.exception("a readiness check failed in an unforeseen way", check=name)
            return "the check itself failed; the log of this service says why"

    return run
