"""One connection: requests as they come, answers in their order.

Whose a request is, is decided as soon as its header is there; nothing of a body is kept before. Who sends slowly, or does not read, takes from
nobody else: header, body and answer have their time, and a refused body is dropped as it comes.
"""

import asyncio
import math
import time
from collections import deque
from typing import Final, Protocol, cast

import httptools
import structlog

from sens_common.metrics import CONNECTIONS, CONNECTIONS_CLOSED
from sens_http_ingestion_worker import metrics
from sens_http_ingestion_worker.http.answers import CONTINUE, Answers, refused
from sens_http_ingestion_worker.http.framing import framing_of
from sens_http_ingestion_worker.reception import Head, Intake
from sens_http_ingestion_worker.refusals import RefusedError

log = structlog.get_logger()

MAX_HEAD_BYTES: Final = 16_384
_MAX_HEADERS: Final = 100
_MAX_OUTSTANDING: Final = 32
"""Requests that a connection may have sent before the first of them is answered; then nothing is read."""
_ENDING_SECONDS: Final = 2.0
_TOO_MANY_HEADERS: Final = RefusedError(
    431, "header_too_large", f"the header has more than {MAX_HEAD_BYTES:,} bytes or {_MAX_HEADERS} fields"
)
_TOO_LONG_TRAILER: Final = RefusedError(
    431, "header_too_large", f"what follows the body has more than {MAX_HEAD_BYTES:,} bytes"
)
_UNFORESEEN: Final = RefusedError(500, "internal", "something unforeseen went wrong; it was logged")


class Receiver(Protocol):
    """Who decides of requests."""

    def begin(self, head: Head) -> Intake:
        """See `reception.Reception.begin`."""


class Owner(Protocol):
    """The server that a connection is one of.

    Attributes:
        receiver: Decides of requests.
        answers: Makes answers.
        buffer: To read into; the connections share it, for what was read is taken at once.
        header_seconds: See the settings.
        body_seconds: Likewise.
        idle_seconds: Likewise.
        is_stopping: Whether connections end with their next answer.
    """

    receiver: Receiver
    answers: Answers
    buffer: memoryview
    header_seconds: float
    body_seconds: float
    idle_seconds: float
    is_stopping: bool

    def opened(self, connection: "HttpConnection") -> bool:
        """Take note of a connection; tell whether there is room for it. One for whose refusal there is none either is ended."""

    def is_idle(self, connection: "HttpConnection", *, known: bool) -> None:
        """Take note that no request of it is under way."""

    def is_busy(self, connection: "HttpConnection") -> None:
        """Take note that one is."""

    def closed(self, connection: "HttpConnection") -> None:
        """Forget a connection."""


class _Exchange:
    """A request and its answer."""

    __slots__ = ("answer", "intake", "is_complete", "keep_alive", "refusal")

    def __init__(self) -> None:
        self.intake: Intake | None = None
        self.refusal: RefusedError | None = None
        self.answer: bytes | None = None
        self.keep_alive = False
        self.is_complete = False


class HttpConnection(asyncio.BufferedProtocol):
    """See the module.

    Attributes:
        deadline: When the server has to call `is_late`, in seconds of `time.monotonic`.
    """

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self._transport: asyncio.Transport
        self._parser = httptools.HttpRequestParser(self)
        self._exchanges: deque[_Exchange] = deque()
        self._target = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._head_bytes = self._head_read_bytes = 0
        self._in_head = False
        self._request_count = 0
        self._receiving: _Exchange | None = None
        self._is_known = False
        self._unread_bytes = 0
        self._is_paused = False
        self._is_write_paused = False
        self._is_ending = False
        self.deadline = math.inf

    # As `asyncio.BufferedProtocol`.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection, where there is room for it."""
        # uvloop's transports do not derive from asyncio's classes.
        self._transport = cast("asyncio.Transport", transport)
        CONNECTIONS.inc()
        self.deadline = time.monotonic() + self._owner.header_seconds
        if self._owner.opened(self):
            self._owner.is_idle(self, known=False)
            return
        CONNECTIONS_CLOSED.labels("full").inc()
        if self._transport.is_closing():
            return  # even to refuse it there is no room
        full = RefusedError(503, "busy", "as many connections are busy as there may be", {"Retry-After": "5"})
        self._transport.write(refused(full, keep_alive=False))
        self._end()

    def connection_lost(self, _error: Exception | None) -> None:
        """Forget the connection; messages that are under way go on, and nobody is told of them."""
        CONNECTIONS.dec()
        self._is_ending = True
        self._owner.closed(self)
        for exchange in self._exchanges:
            if exchange.intake is not None and not exchange.is_complete:
                exchange.intake.release()
        self._exchanges.clear()

    def get_buffer(self, _sizehint: int) -> memoryview:
        """Return where to read into."""
        return self._owner.buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Take what came."""
        data = bytes(self._owner.buffer[:nbytes])
        self._unread_bytes += nbytes
        in_head_of = self._request_count if self._in_head else 0
        while data and not self._is_ending:
            try:
                self._parser.feed_data(data)
                data = b""
            except httptools.HttpParserUpgrade as upgrade:
                data = self._without_offer() + data[upgrade.args[0] :]
                self._parser = httptools.HttpRequestParser(self)
            except httptools.HttpParserError:
                self._refuse_all(RefusedError(400, "bad_request", "this is not a request of HTTP/1.1"))
                return
        if self._in_head and in_head_of == self._request_count and not self._is_ending:
            self._head_read_bytes += (
                nbytes  # of a header that began in an earlier read, and that the parser has not told us of yet
            )
            if self._head_read_bytes > MAX_HEAD_BYTES:
                self._refuse_all(_TOO_MANY_HEADERS)
        if self._receiving is not None and self._unread_bytes > MAX_HEAD_BYTES:
            # Trailers and extensions of chunks, which the parser keeps until they are complete.
            self._refuse_all(_TOO_LONG_TRAILER)
        if len(self._exchanges) >= _MAX_OUTSTANDING and not self._is_paused:
            self._is_paused = True
            self._transport.pause_reading()

    def _without_offer(self) -> bytes:
        """Return the header that was read without its offer of another protocol, which is not accepted (RFC 9110, section 7.8).

        The parser takes what follows such a header for the other protocol; Java's client makes the offer with each request, and its body follows.
        """
        lines = [b"%s: %s\r\n" % each for each in self._headers if each[0] != b"upgrade"]
        return b"%s %s HTTP/1.1\r\n%s\r\n" % (self._parser.get_method(), self._target, b"".join(lines))

    def eof_received(self) -> bool:
        """Go on answering what has come, and then close."""
        if not any(exchange.is_complete for exchange in self._exchanges):
            return False
        self._exchanges[-1].keep_alive = False
        return True

    def pause_writing(self) -> None:
        """Read nothing while the client does not read."""
        self._is_write_paused = True
        self._transport.pause_reading()
        self.deadline = time.monotonic() + self._owner.header_seconds

    def resume_writing(self) -> None:
        """Read again."""
        self._is_write_paused = False
        self.deadline = math.inf if self._exchanges else time.monotonic() + self._owner.idle_seconds
        if not self._is_paused:
            self._transport.resume_reading()

    # As httptools calls them.

    def on_message_begin(self) -> None:
        """A request begins."""
        if self._is_ending:
            return
        self._target = b""
        self._headers = []
        self._head_bytes = self._head_read_bytes = 0
        self._in_head = True
        self._request_count += 1
        if not self._exchanges:
            self.deadline = time.monotonic() + self._owner.header_seconds

    def on_url(self, url: bytes) -> None:
        """Take a part of the target."""
        if len(self._target) <= MAX_HEAD_BYTES:
            self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header."""
        if not self._in_head:
            return  # a trailer of a chunked body
        self._head_bytes += len(name) + len(value)
        if len(self._headers) <= _MAX_HEADERS:
            self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """Decide of the request."""
        if self._is_ending:
            return
        self._in_head = False
        self._unread_bytes = 0
        if len(self._headers) > _MAX_HEADERS or self._head_bytes > MAX_HEAD_BYTES:
            # Some were left out: where the body ends is not known.
            self._refuse_all(_TOO_MANY_HEADERS)
            return
        if self._parser.should_upgrade() and self._parser.get_method() != b"CONNECT":
            return  # it comes again, see `_without_offer`
        exchange = self._receiving = _Exchange()
        exchange.keep_alive = self._parser.should_keep_alive()
        self._exchanges.append(exchange)
        self._owner.is_busy(self)
        framing = framing_of(self._headers)
        try:
            head = Head(self._parser.get_method(), self._target, self._headers, framing.content_length)
            exchange.intake = self._owner.receiver.begin(head)
        except RefusedError as error:
            exchange.refusal = error
            if framing.is_large or framing.expects_continue or self._parser.should_upgrade():
                self._refuse_all(error)
            return
        except Exception:
            log.exception("a request could not be looked at")
            self._refuse_all(_UNFORESEEN)
            return
        self._is_known = True
        if framing.has_body:
            self.deadline = time.monotonic() + self._owner.body_seconds
            if framing.expects_continue and len(self._exchanges) == 1:
                self._transport.write(CONTINUE)

    def on_body(self, body: bytes) -> None:
        """Take a part of the body."""
        self._unread_bytes = 0
        exchange = self._receiving
        if exchange is None or exchange.intake is None or self._is_ending:
            return
        try:
            exchange.intake.feed(body)
        except RefusedError as error:
            self._refuse_all(error)
        except Exception:
            log.exception("a body could not be taken")
            self._refuse_all(_UNFORESEEN)

    def on_message_complete(self) -> None:
        """Pass the message on."""
        exchange, self._receiving = self._receiving, None
        if exchange is None or self._is_ending:
            return
        exchange.is_complete = True
        self.deadline = math.inf
        intake = exchange.intake
        if intake is None:
            self._answer(exchange, exchange.refusal)
            return

        def done(error: RefusedError | None) -> None:
            intake.release()
            self._answer(exchange, error)

        try:
            intake.finish(done)
        except RefusedError as error:
            done(error)
        except Exception:
            log.exception("a message could not be taken")
            done(_UNFORESEEN)

    # Answers.

    def _answer(self, exchange: _Exchange, error: RefusedError | None) -> None:
        """Give a request its answer, and send all those whose turn it is."""
        metrics.ANSWERS.labels(204 if error is None else error.status).inc()
        if self._transport.is_closing():
            return
        keep_alive = exchange.keep_alive and not self._owner.is_stopping
        exchange.keep_alive = keep_alive
        exchange.answer = (
            self._owner.answers.stored(keep_alive=keep_alive)
            if error is None
            else refused(error, keep_alive=keep_alive)
        )
        self._send()

    def _send(self) -> None:
        exchanges = self._exchanges
        while exchanges and (answer := exchanges[0].answer) is not None:
            self._transport.write(answer)
            if not exchanges.popleft().keep_alive:
                self._end()
                return
        if exchanges:
            return
        is_waited_for = self._in_head or self._is_write_paused
        seconds = self._owner.header_seconds if is_waited_for else self._owner.idle_seconds
        self.deadline = time.monotonic() + seconds
        self._owner.is_idle(self, known=self._is_known)
        if self._is_paused:
            self._is_paused = False
            if not self._is_write_paused:
                self._transport.resume_reading()

    def _refuse_all(self, error: RefusedError) -> None:
        """Answer the request that is being received, and end the connection with it: what follows is not read."""
        exchange = self._receiving
        self._receiving = None
        if exchange is None:
            exchange = _Exchange()
            self._exchanges.append(exchange)
        if exchange.intake is not None:
            exchange.intake.release()
        exchange.keep_alive = False
        exchange.is_complete = True
        self._is_ending = True
        # Those before it have their time to be answered.
        self.deadline = time.monotonic() + self._owner.header_seconds
        self._answer(exchange, error)

    def _end(self) -> None:
        """Close once the client has read the answer; what it still sends is dropped, for a while: closed at once, it might lose the answer."""
        self._is_ending = True
        self._owner.is_busy(self)
        self.deadline = time.monotonic() + _ENDING_SECONDS
        if self._transport.can_write_eof():
            self._transport.write_eof()
        if self._is_paused:
            self._is_paused = False
            self._transport.resume_reading()

    # As the server calls them.

    def is_late(self) -> None:
        """The deadline has passed."""
        if self._is_ending:
            self._transport.abort()
            return
        receiving = self._receiving
        if receiving is not None or self._in_head:
            CONNECTIONS_CLOSED.labels("header_timeout").inc()
            what = "body" if receiving is not None else "header"
            self._refuse_all(RefusedError(408, "too_slow", f"the request's {what} did not come in time"))
        elif self._exchanges:
            self._transport.abort()  # the client does not read its answers
        else:
            self.give_up()

    def give_up(self) -> None:
        """Close the connection, which has no request under way."""
        self._is_ending = True
        self.deadline = time.monotonic() + _ENDING_SECONDS
        self._transport.close()

    def abort(self) -> None:
        """End the connection at once."""
        self._transport.abort()

    @property
    def is_answered(self) -> bool:
        """Whether no request is under way."""
        return not self._exchanges
