"""The host at which messages are posted."""

from typing import Final

from sens_cli.verify.environment import Environment
from sens_cli.verify.outcome import CheckFailedError, NotRunError
from sens_cli.verify.web import Web

_PATH: Final = "/ingest/v1/verify/verify"
_NOT_ALLOWED: Final = 405
_CODE: Final = "wrong_method"


async def check_http_ingestion(environment: Environment, option: str, web: Web) -> str:
    """See that the host leads to the HTTP ingestion: it refuses what is not posted, before it looks for a key."""
    host = environment.http_ingestion_host
    if host is None:
        raise NotRunError(f"no host is known ({option})")
    answer = await web.get(host, _PATH)
    if answer.status != _NOT_ALLOWED or answer.document().get("code") != _CODE:
        raise CheckFailedError(
            f"{answer.url} answers with {answer.status}, and not as the HTTP ingestion does",
            "Compare httpIngestion.enabled and ingress.httpIngestionHost in the chart's values with http_ingestion_host in environment.toml, "
            "and look at its pods.",
        )
    return f"{answer.url} takes what is posted"
