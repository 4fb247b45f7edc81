"""Asks public hosts over HTTP: bounded in time and size, without following redirects, straight to the expected address."""

import asyncio
import json
import ssl
from dataclasses import dataclass
from typing import Any, Final, Self

import httpx2

from sens_cli.verify.connections import CONNECT_SECONDS, target
from sens_cli.verify.endpoint import Endpoint
from sens_cli.verify.environment import Environment
from sens_cli.verify.outcome import CheckFailedError

TIMEOUT_SECONDS: Final = 10.0
MAXIMUM_BYTES: Final = 256 * 1024

_BUSY = frozenset({502, 503, 504})


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer.

    Attributes:
        url: What was asked.
        status: Its code.
        content_type: Without parameters.
        location: Where a redirect leads.
        hsts: What browsers are told about HTTPS (Strict-Transport-Security).
        body: At most `MAXIMUM_BYTES`.
    """

    url: str
    status: int
    content_type: str
    location: str | None
    hsts: str | None
    body: bytes

    def document(self) -> dict[str, Any]:
        """Return the body as a JSON object; an empty one when it is none."""
        try:
            document = json.loads(self.body)
        except (ValueError, RecursionError):
            return {}
        return document if isinstance(document, dict) else {}


class Web:
    """A client; a context manager."""

    def __init__(
        self, environment: Environment, context: ssl.SSLContext, *, timeout_seconds: float = TIMEOUT_SECONDS
    ) -> None:
        self._environment = environment
        self._timeout_seconds = timeout_seconds
        self._client = httpx2.AsyncClient(
            verify=context,
            headers={
                "User-Agent": "sens-verify",
                "Accept-Encoding": "identity",
            },  # nothing that grows when it is unpacked
            timeout=httpx2.Timeout(timeout_seconds, connect=CONNECT_SECONDS),
            trust_env=False,  # what a proxy sees is not what is at the address
        )

    async def __aenter__(self) -> Self:
        """Return the client."""
        return self

    async def __aexit__(self, *_error: object) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def get(self, endpoint: Endpoint, path: str) -> Answer:
        """Return the answer of a path.

        Raises:
            CheckFailedError: There is none.
        """
        url = endpoint.url + path
        host = target(self._environment, endpoint)
        request = self._client.build_request(
            "GET",
            httpx2.URL(url).copy_with(host=host),
            headers={"Host": endpoint.authority},
            extensions={"sni_hostname": endpoint.host} if endpoint.is_name else {},
        )
        try:
            async with asyncio.timeout(self._timeout_seconds):
                return await self._ask(request, url)
        except TimeoutError:
            reason = f"no answer within {self._timeout_seconds:g} s"
        except httpx2.HTTPError as error:
            reason = str(error) or type(error).__name__
        raise CheckFailedError(
            f"{url} ({host}): {reason}",
            "See that the server runs, that its firewall lets port 80 and 443 in, and what 'sens verify --check certificate' says.",
        )

    async def _ask(self, request: httpx2.Request, url: str) -> Answer:
        answer = await self._client.send(request, stream=True, follow_redirects=False)
        body = bytearray()
        try:
            async for part in answer.aiter_raw():
                body += part
                if len(body) > MAXIMUM_BYTES:
                    raise CheckFailedError(
                        f"{url} answers with more than {MAXIMUM_BYTES} bytes",
                        "What answers there is something else: see which host it is.",
                    )
        finally:
            await answer.aclose()
        content_type = answer.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        return Answer(
            url=url,
            status=answer.status_code,
            content_type=content_type,
            location=answer.headers.get("Location"),
            hsts=answer.headers.get("Strict-Transport-Security"),
            body=bytes(body),
        )


def unexpected(answer: Answer, remedy: str) -> CheckFailedError:
    """Return the failure of an answer that is not the service's."""
    if answer.location is not None:
        return CheckFailedError(
            f"{answer.url} redirects ({answer.status}) to {answer.location[:200]}",
            "Nothing is to redirect this path: look at the annotations and middlewares of the Ingress.",
        )
    if answer.status in _BUSY:
        return CheckFailedError(f"{answer.url} answers with {answer.status}: no pod is ready behind it", remedy)
    return CheckFailedError(
        f"{answer.url} answers with {answer.status}, {answer.content_type or 'no content type'}", remedy
    )
