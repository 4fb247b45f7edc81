"""The API over HTTP, with its problems as sentences."""

import json
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from http.client import HTTPConnection, HTTPResponse
from typing import Any, ClassVar, Final

from sens_cli.http_client import FAILURES, Answer, connect, send
from sens_cli.target import Target
from sens_common.errors import SensError, SettingsError, UnavailableError

type Json = Any
"""A JSON document; the commands look into it with the names of the API's reference."""

type Parameters = Mapping[str, str | int | list[str] | None]

_SILENCE_SECONDS: Final = 30.0
_CHUNK_BYTES: Final = 65_536
_UNAVAILABLE: Final = frozenset({502, 503, 504})
_JSON: Final = {"Content-Type": "application/json"}
_LAST_LINE_HEADER: Final = "Sens-Last-Line"
"""Where the protocol does not tell the end of an answer (HTTP/1.0), the API names its last line in this header."""


class RefusedByApiError(SensError):
    """The API answered with a problem."""

    exit_code: ClassVar[int] = 1

    def __init__(self, text: str, status: int = HTTPStatus.BAD_REQUEST) -> None:
        super().__init__(text)
        self.status = status


class Api:
    """The API, as the owner of a key sees it."""

    def __init__(self, target: Target, open_connection: Callable[[str], HTTPConnection] = connect) -> None:
        self._url = target.api_url
        self._path = urllib.parse.urlsplit(target.api_url).path
        self._authorization = f"Bearer {target.key}"
        self._key_source = target.key_from
        self._open_connection = open_connection

    def get(self, path: str, parameters: Parameters | None = None) -> Json:
        """Return the document at a path below ``/api/v1/``.

        Raises:
            UnavailableError: The API can't be reached or is not ready.
            RefusedByApiError: It answers with a problem.
        """
        return self._request("GET", path, parameters)

    def has(self, path: str) -> bool:
        """Tell whether there is a document at a path; raises as `get`."""
        try:
            self.get(path)
        except RefusedByApiError as error:
            if error.status == HTTPStatus.NOT_FOUND:
                return False
            raise
        return True

    def post(
        self,
        path: str,
        parameters: Parameters | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> Json:
        """Ask for something to be done, and return the answer; raises as `get`."""
        return self._request("POST", path, parameters, headers, body)

    def post_document(self, path: str, document: Json) -> Json:
        """Ask for something to be done with a JSON document, and return the answer; raises as `get`."""
        return self._request("POST", path, None, _JSON, json.dumps(document).encode())

    def put(self, path: str, document: Json) -> Json:
        """Make or replace what a JSON document says, and return the answer; raises as `get`."""
        return self._request("PUT", path, None, _JSON, json.dumps(document).encode())

    def delete(self, path: str, parameters: Parameters | None = None) -> Json:
        """Delete something, and return the answer, None where there is none; raises as `get`."""
        return self._request("DELETE", path, parameters)

    def pages(self, path: str, member: str, parameters: Parameters, *, limit: int, page: int) -> Iterator[Json]:
        """Yield the items of a list that comes in pages, as many as the limit says; raises as `get`."""
        for answer in self.documents(path, member, parameters, limit=limit, page=page):
            yield from answer[member]

    def documents(self, path: str, member: str, parameters: Parameters, *, limit: int, page: int) -> Iterator[Json]:
        """Yield the pages of a list, until they have as many items as the limit says; raises as `get`."""
        cursor: str | None = None
        while limit > 0:
            answer = self.get(path, {**parameters, "limit": min(limit, page), "cursor": cursor})
            yield answer
            limit -= len(answer[member])
            cursor = answer["next"]
            if cursor is None:
                return

    def lines(
        self, path: str, parameters: Parameters | None = None, *, accept: str, endless: bool = False
    ) -> Iterator[str]:
        """Yield the lines of a streamed answer as they come; raises as `get`, also where the answer breaks off."""
        with self._streamed(path, parameters, accept, seconds=None if endless else _SILENCE_SECONDS) as answer:
            line = ""
            for line in _lines(answer):
                yield line
            if line != answer.headers.get(_LAST_LINE_HEADER, line):
                raise UnavailableError(
                    f"the answer of the API at {self._url} broke off: its end is missing, so it is not complete. Ask again"
                )

    def chunks(self, path: str, parameters: Parameters | None = None, *, accept: str) -> Iterator[bytes]:
        """Yield the bytes of a streamed answer as they come; raises as `get`, also where the answer breaks off."""
        with self._streamed(path, parameters, accept, seconds=_SILENCE_SECONDS) as answer:
            while chunk := answer.read1(_CHUNK_BYTES):
                yield chunk

    @contextmanager
    def _streamed(
        self, path: str, parameters: Parameters | None, accept: str, *, seconds: float | None
    ) -> Iterator[HTTPResponse]:
        """Give an answer while it comes."""
        connection = self._connection()
        try:
            answer = self._send(connection, "GET", path, parameters, accept, seconds=seconds)
            if answer.status >= HTTPStatus.BAD_REQUEST:
                raise self._problem(Answer(answer.status, answer.read()))
            yield answer
        except FAILURES as error:
            raise self._unreachable(error) from error
        finally:
            connection.close()

    def _request(
        self,
        method: str,
        path: str,
        parameters: Parameters | None,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> Json:
        connection = self._connection()
        try:
            found = self._send(
                connection,
                method,
                path,
                parameters,
                "application/json",
                seconds=_SILENCE_SECONDS,
                headers=headers,
                body=body,
            )
            answer = Answer(found.status, found.read())
        except FAILURES as error:
            raise self._unreachable(error) from error
        finally:
            connection.close()
        if answer.status >= HTTPStatus.BAD_REQUEST:
            raise self._problem(answer)
        if answer.status == HTTPStatus.NO_CONTENT:
            return None
        try:
            return json.loads(answer.body)
        except ValueError as error:
            raise UnavailableError(f"what answers at {self._url} is not the API: its answer is not JSON") from error

    def _connection(self) -> HTTPConnection:
        try:
            return self._open_connection(self._url)
        except ValueError as error:
            raise SettingsError(f"the API's address {self._url} is not a URL: {error}") from None

    def _send(
        self,
        connection: HTTPConnection,
        method: str,
        path: str,
        parameters: Parameters | None,
        accept: str,
        *,
        seconds: float | None,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> HTTPResponse:
        given = {name: value for name, value in (parameters or {}).items() if value is not None}
        query = f"?{urllib.parse.urlencode(given, doseq=True)}" if given else ""
        fields = {"Authorization": self._authorization, "Accept": accept, **(headers or {})}
        return send(connection, method, f"{self._path}/api/v1/{path}{query}", fields, seconds=seconds, body=body)

    def _unreachable(self, error: Exception) -> UnavailableError:
        reason = str(error) or type(error).__name__
        return UnavailableError(f"the API at {self._url} can't be reached: {reason}. Does it run? Ask sens status")

    def _problem(self, answer: Answer) -> SensError:
        text = problem_sentence(answer.status, answer.body)
        if answer.status == HTTPStatus.UNAUTHORIZED:
            text += f"; the key came from {self._key_source}"
        if answer.status in _UNAVAILABLE:
            return UnavailableError(text)
        return RefusedByApiError(text, answer.status)


def problem_sentence(status: int, body: str | bytes) -> str:
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


def _lines(answer: HTTPResponse) -> Iterator[str]:
    """Yield the lines of an answer's body as they come."""
    rest = b""
    while chunk := answer.read1(_CHUNK_BYTES):
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            yield line.decode().removesuffix("\r")
    if rest:
        yield rest.decode()
