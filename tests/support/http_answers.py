"""An HTTP connection whose answers a test gives, in place of `http.client.HTTPConnection`."""

import io
import json
import urllib.parse
from collections.abc import Callable, Mapping
from http.client import HTTPConnection
from typing import Any, NamedTuple, cast


class Request(NamedTuple):
    """What was sent: path and query apart, each parameter's first value."""

    method: str
    path: str
    parameters: dict[str, str]
    headers: Mapping[str, str]


class Answer(io.BytesIO):
    """What comes back."""

    def __init__(self, status: int, body: object) -> None:
        super().__init__(body if isinstance(body, bytes) else json.dumps(body).encode())
        self.status = status
        self.headers: dict[str, str] = {}


class _Socket:
    def settimeout(self, seconds: float | None) -> None:
        pass


class _Connection:
    sock = _Socket()

    def __init__(self, answer: Callable[[Request], Answer]) -> None:
        self._answer = answer

    def connect(self) -> None:
        pass

    def request(self, method: str, target: str, body: bytes | None = None, *, headers: Mapping[str, str]) -> None:  # noqa: ARG002 - as of http.client
        path, _, query = target.partition("?")
        self._request = Request(method, path, dict(urllib.parse.parse_qsl(query)), headers)

    def getresponse(self) -> Answer:
        return self._answer(self._request)

    def close(self) -> None:
        pass


def answering(answer: Callable[[Request], Answer]) -> Callable[[str], HTTPConnection]:
    """Return what opens connections to a server that answers like this."""
    return lambda _url: cast("Any", _Connection(answer))
