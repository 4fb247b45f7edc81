"""The API's readiness, which anybody can ask for."""

from structlog.testing import capture_logs

from sens_common.errors import SchemaError, UnavailableError
from sens_common.health import Check
from sens_platform_api.operations.service import public_readiness


def failing(error: Exception) -> Check:
    async def check() -> str | None:
        raise error

    return check


class TestReadiness:
    async def test_tells_nothing_of_what_a_driver_says(self) -> None:
        secret = "password authentication failed for user sens at 10.0.0.7"
        checks: dict[str, Check] = {
            "database": failing(UnavailableError(secret)),
            "other": failing(RuntimeError(secret)),
            "schema": failing(SchemaError("run the migrations (sens migrate)")),
        }
        with capture_logs():
            answers = (await public_readiness(checks, partial=frozenset(), notes={}).answer()).checks
        assert secret not in "".join(answers.values())
        assert answers["database"] == "the database can't be used; the log of this service says why"
        assert answers["schema"] == "run the migrations (sens migrate)"
