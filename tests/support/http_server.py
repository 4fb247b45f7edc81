"""An HTTP server in the test's own process, whose answers a function gives."""

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple, override

from support.servers import HOST


class Asked(NamedTuple):
    """A request.

    Attributes:
        method: Such as GET.
        target: Path and query.
        headers: By name, whose case does not count.
        body: Its content.
    """

    method: str
    target: str
    headers: Message
    body: bytes


class Answer(NamedTuple):
    """What the server says.

    Attributes:
        status: HTTP status.
        body: Bytes, a document that is written as JSON, or nothing.
        headers: Further headers.
    """

    status: int
    body: object = None
    headers: Mapping[str, str] = {}


@contextmanager
def serving(answer: Callable[[Asked], Answer]) -> Iterator[str]:
    """Answer requests on a free port while the context is open; return address and port."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 10
        wbufsize = -1  # an answer is one packet: the header alone would wait for its acknowledgement
        disable_nagle_algorithm = True

        def serve(self) -> None:
            said = answer(Asked(self.command, self.path, self.headers, self.content()))
            body = said.body if isinstance(said.body, bytes) else json.dumps(said.body).encode()
            body = b"" if said.body is None else body
            self.send_response(said.status)
            for name, value in said.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = serve  # noqa: N815 - of the standard library

        def content(self) -> bytes:
            if self.headers.get("Transfer-Encoding") != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length") or 0))
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)

        @override
        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer((HOST, 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, name="http-server")
    thread.start()
    try:
        yield f"{HOST}:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
