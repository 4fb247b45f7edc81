"""Answers as bytes (RFC 9112), and problem details in them (RFC 9457)."""

import email.utils
import time
from http import HTTPStatus
from typing import Final

import msgspec

from sens_http_ingestion_worker.refusals import RefusedError

CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_REASONS: Final = {status.value: status.phrase for status in HTTPStatus}


class Answers:
    """Makes answers; the date in them is a second old at most (RFC 9110, section 6.6.1)."""

    def __init__(self) -> None:
        self._second = 0
        self._stored = {True: b"", False: b""}

    def stored(self, *, keep_alive: bool) -> bytes:
        """Return the answer to a message that is stored."""
        second = int(time.time())
        if second != self._second:
            self._second = second
            date = email.utils.formatdate(second, usegmt=True)
            start = f"HTTP/1.1 204 No Content\r\ndate: {date}\r\n"
            self._stored = {
                True: f"{start}\r\n".encode(),
                False: f"{start}connection: close\r\n\r\n".encode(),
            }
        return self._stored[keep_alive]


def refused(error: RefusedError, *, keep_alive: bool) -> bytes:
    """Return the answer to a request that is not taken."""
    title = _REASONS.get(error.status, "Refused")
    document = {
        "type": "about:blank",
        "title": title,
        "status": error.status,
        "code": error.code,
        "detail": error.detail,
    }
    body = msgspec.json.encode(document)
    headers = {
        "date": email.utils.formatdate(usegmt=True),
        "content-type": "application/problem+json",
        "content-length": str(len(body)),
        **error.headers,
    }
    if not keep_alive:
        headers["connection"] = "close"
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {error.status} {title}\r\n{lines}\r\n".encode() + body
