"""The API over HTTP, with its problems as sentences."""

import json
import urllib.parse
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Final, Self

import httpx2

from sens_cli.target import Target
from sens_common.errors import SensError, UnavailableError

type Json = Any
"""A JSON document; the commands look into it with the names of the API's reference."""

type Parameters = Mapping[str, str | int | list[str] | None]

_TIMEOUT = httpx2.Timeout(30, connect=5)
_UNAVAILABLE = frozenset({502, 503, 504})
_LAST_LINE_HEADER: Final = "Sens-Last-Line"
"""Where the protocol does not tell the end of an answer (HTTP/1.0), the API names its last line in this header."""


class RefusedByApiError(SensError):
    """The API answered with a problem."""

    exit_code: ClassVar[int] = 1


class Api:
    """A connection to the API; a context manager."""

    def __init__(self, target: Target, transport: httpx2.BaseTransport | None = None) -> None:
        self._client = httpx2.Client(
            base_url=f"{target.api_url}/api/v1/",
            headers={"Authorization": f"Bearer {target.key}", "User-Agent": "sens"},
            timeout=_TIMEOUT,
            transport=transport,
            trust_env=False,  # a proxy of the environment can't reach an instance on this machine
        )
        self._url = target.api_url
        self._key_from = target.key_from

    def __enter__(self) -> Self:
        """Return the connection."""
        return self

    def __exit__(self, *_error: object) -> None:
        """Close the connection."""
        self._client.close()

    def get(self, path: str, parameters: Parameters | None = None) -> Json:
        """Return the document at a path below ``/api/v1/``.

        Raises:
            UnavailableError: The API can't be reached or is not ready.
            RefusedByApiError: It answers with a problem.
        """
        return self._request("GET", path, parameters)

    def post(self, path: str, parameters: Parameters | None = None) -> Json:
        """Ask for something to be done, and return the answer; raises as `get`."""
        return self._request("POST", path, parameters)

    def delete(self, path: str, parameters: Parameters | None = None) -> Json:
        """Delete something, and return the answer, None where there is none; raises as `get`."""
        return self._request("DELETE", path, parameters)

    def pages(self, path: str, member: str, parameters: Parameters, *, limit: int, page: int) -> Iterator[Json]:
        """Yield the items of a list that comes in pages, as many as the limit says; raises as `get`."""
        cursor: str | None = None
        while limit > 0:
            answer = self.get(path, {**parameters, "limit": min(limit, page), "cursor": cursor})
            items = answer[member]
            yield from items
            limit -= len(items)
            cursor = answer["next"]
            if cursor is None:
                return

    def lines(
        self, path: str, parameters: Parameters | None = None, *, accept: str, endless: bool = False
    ) -> Iterator[str]:
        """Yield the lines of a streamed answer as they come; raises as `get`, also where the answer breaks off."""
        timeout = httpx2.Timeout(None, connect=5) if endless else _TIMEOUT
        try:
            with self._client.stream(
                "GET", path, params=_present(parameters), headers={"Accept": accept}, timeout=timeout
            ) as answer:
                if answer.is_error:
                    answer.read()
                    raise self._problem(answer)
                line = ""
                for line in answer.iter_lines():
                    yield line
                if line != answer.headers.get(_LAST_LINE_HEADER, line):
                    raise UnavailableError(
                        f"the answer of the API at {self._url} broke off: its end is missing, so it is not complete. Ask again"
                    )
        except httpx2.HTTPError as error:
            raise self._unreachable(error) from error

    def _request(self, method: str, path: str, parameters: Parameters | None) -> Json:
        try:
            answer = self._client.request(method, path, params=_present(parameters))
        except httpx2.HTTPError as error:
            raise self._unreachable(error) from error
        if answer.is_error:
            raise self._problem(answer)
        if answer.status_code == httpx2.codes.NO_CONTENT:
            return None
        try:
            return answer.json()
        except ValueError as error:
            raise UnavailableError(f"what answers at {self._url} is not the API: its answer is no JSON") from error

    def _unreachable(self, error: httpx2.HTTPError) -> UnavailableError:
        reason = str(error) or type(error).__name__
        return UnavailableError(f"the API at {self._url} can't be reached: {reason}. Does it run? Ask sens status")

    def _problem(self, answer: httpx2.Response) -> SensError:
        text = problem_sentence(answer.status_code, answer.text)
        if answer.status_code == httpx2.codes.UNAUTHORIZED:
            text += f"; the key came from {self._key_from}"
        if answer.status_code in _UNAVAILABLE:
            return UnavailableError(text)
        return RefusedByApiError(text)


def problem_sentence(status: int, body: str) -> str:
    """Return problem details (RFC 9457) as one sentence."""
    try:
        problem = json.loads(body)
        title, detail = problem.get("title"), problem.get("detail")
    except (ValueError, AttributeError):
        return f"the API answered with status {status}"
    parts = [str(part) for part in (title, detail) if part]
    return f"{': '.join(parts)} (status {status})" if parts else f"the API answered with status {status}"


def segment(text: str) -> str:
    """Return a text as one segment of a path (RFC 3986, section 3.3)."""
    return urllib.parse.quote(text, safe="")


def _present(parameters: Parameters | None) -> dict[str, str | int | list[str]]:
    return {name: value for name, value in (parameters or {}).items() if value is not None}
