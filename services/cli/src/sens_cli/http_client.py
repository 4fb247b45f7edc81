"""HTTP requests of commands, by the standard library: importing an HTTP library costs as much CPU as all else that a command does."""

import urllib.parse
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from typing import Final, NamedTuple

CONNECT_SECONDS: Final = 5.0
FAILURES: Final = (OSError, HTTPException)
"""What a request raises that gets no answer."""


class Answer(NamedTuple):
    """An answer that was read to its end."""

    status: int
    body: bytes


def connect(url: str) -> HTTPConnection:
    """Return a connection to the server that a URL names, which is opened by its first request.

    Raises:
        ValueError: The URL has no host, or its port is not a number.
    """
    parts = urllib.parse.urlsplit(url)
    if parts.hostname is None:
        raise ValueError("the URL has no host")
    if parts.scheme == "https":
        import ssl  # noqa: PLC0415 - an instance on this machine speaks plain HTTP

        import truststore  # noqa: PLC0415 - same

        context = truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        return HTTPSConnection(parts.hostname, parts.port, timeout=CONNECT_SECONDS, context=context)
    return HTTPConnection(parts.hostname, parts.port, timeout=CONNECT_SECONDS)


def send(
    connection: HTTPConnection,
    method: str,
    target: str,
    headers: dict[str, str],
    *,
    seconds: float | None,
    body: bytes | None = None,
) -> HTTPResponse:
    """Send a request; return its answer, whose body is still to be read.

    Args:
        connection: A new one: each request has its own, so that none meets a connection that the server has just closed.
        method: Of HTTP.
        target: Path and query.
        headers: Beside those that every request has.
        seconds: How long the server may be silent, None for any time.
        body: Of the request, None where it has none.

    Raises:
        OSError: The server can't be reached.
        HTTPException: What answers does not speak HTTP.
    """
    connection.connect()
    connection.sock.settimeout(seconds)
    connection.request(method, target, body, headers={"User-Agent": "sens", "Connection": "close", **headers})
    return connection.getresponse()


def get(url: str, *, seconds: float) -> Answer:
    """Return the answer at a URL; raises as `connect` and `send`."""
    connection = connect(url)
    try:
        answer = send(connection, "GET", urllib.parse.urlsplit(url).path or "/", {}, seconds=seconds)
        return Answer(answer.status, answer.read())
    finally:
        connection.close()
