"""What is decided of a request: before its body is read whose it is and whether it may come, and then which message it is."""

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple, Protocol

from sens_common.ingestion.rates import Rates
from sens_http_ingestion_worker.bodies import PlainBody, body_for
from sens_http_ingestion_worker.keys import IngestKeys, Sender, key_in_headers
from sens_http_ingestion_worker.refusals import RefusedError, busy, over_rate, plain_http, too_large, without_key
from sens_http_ingestion_worker.sources import DOWNLINK_HEADERS, HttpSources
from sens_http_ingestion_worker.targets import target_of, topic_for

_METHODS: Final = frozenset({b"POST", b"PUT"})
_TENANTS_SHARE: Final = 4
_MAX_IDEMPOTENCY_KEY: Final = 255
_PLAIN: Final = b"http"
_REPEAT_DIGEST: Final = 16
_CODING: Final = b"content-encoding"
_IDEMPOTENCY_KEY: Final = b"idempotency-key"
_WANTED: Final = frozenset({_CODING, _IDEMPOTENCY_KEY, *DOWNLINK_HEADERS})


class Head(NamedTuple):
    """A request without its body.

    Attributes:
        method: In upper case.
        target: Path and query.
        headers: Names in lower case.
        content_length: Bytes that the body says to have, None where it does not say.
    """

    method: bytes
    target: bytes
    headers: Sequence[tuple[bytes, bytes]]
    content_length: int | None


class Submission(NamedTuple):
    """A message that was posted.

    Attributes:
        topic: In the stream.
        payload: The body, unpacked.
        repeat_id: The same for a repeat of the same request; None where nothing in the request says so.
    """

    topic: str
    payload: bytes
    repeat_id: str | None


type Done = Callable[[RefusedError | None], None]
"""Is told once that the message is stored, or why it is not."""


class Taker(Protocol):
    """Who takes messages."""

    def take(self, submission: Submission, done: Done) -> None:
        """Take a message; `done` is told what becomes of it, later or at once."""

    def note_discarded(self, tenant: str) -> None:
        """Take note of a message that was refused, because its tenant is over its rate."""


class Intake:
    """One request whose body may come."""

    def __init__(
        self,
        reception: "Reception",
        sender: Sender,
        *,
        topic: str,
        query: str,
        headers: Mapping[bytes, bytes],
        body: PlainBody,
    ) -> None:
        self._reception = reception
        self._sender = sender
        self._topic = topic
        self._query = query
        self._headers = headers
        self._body = body
        self._held = 0

    def feed(self, chunk: bytes) -> None:
        """Take a part of the body.

        Raises:
            RefusedError: The body is too large, wrongly packed, or there is no room for it.
        """
        self._body.feed(chunk)
        self._reception.hold(self._sender.tenant, self._body.size - self._held)
        self._held = self._body.size

    def finish(self, done: Done) -> None:
        """Take the whole message.

        Raises:
            RefusedError: The body is not packed as it says, or not signed as its source wants it.
        """
        payload = self._body.finish()
        sources, sender = self._reception.sources, self._sender
        sources.check(sender, self._query, payload)

        def note(error: RefusedError | None) -> None:
            if error is None:
                sources.note_stored(sender, self._headers)
            done(error)

        self._reception.taker.take(Submission(self._topic, payload, self._repeat_id(payload)), note)

    def release(self) -> None:
        """Hold nothing any more; twice has no effect."""
        self._reception.hold(self._sender.tenant, -self._held)
        self._held = 0

    def _repeat_id(self, payload: bytes) -> str | None:
        """Return what a repeat of this request has too. The body is part of it: a key that a sender never changes loses nothing."""
        idempotency_key = self._headers.get(_IDEMPOTENCY_KEY)
        if not idempotency_key:
            return None
        parts = (self._topic.encode(), idempotency_key, payload)
        whole = hashlib.blake2b(digest_size=_REPEAT_DIGEST)
        for part in parts:
            whole.update(len(part).to_bytes(8))
            whole.update(part)
        return f"http-{whole.hexdigest()}"


class Reception:
    """Decides of requests.

    Attributes:
        taker: Who takes their messages.
        sources: Those that they come by.
        bytes_held: Of bodies in memory.
    """

    def __init__(
        self,
        keys: IngestKeys,
        rates: Rates,
        taker: Taker,
        sources: HttpSources,
        *,
        max_body_bytes: int,
        max_bodies_bytes: int,
        https_only: bool = False,
    ) -> None:
        self._https_only = https_only
        self._keys = keys
        self._rates = rates
        self._max_body_bytes = max_body_bytes
        self._max_bytes = max_bodies_bytes
        self._held_by_tenant: Counter[str] = Counter()
        self.taker = taker
        self.sources = sources
        self.bytes_held = 0

    def begin(self, head: Head) -> Intake:
        """Look at a request before its body is read.

        Raises:
            RefusedError: It is not taken.
        """
        if self._https_only and _asked_by(head.headers) == _PLAIN:
            raise plain_http()
        target = target_of(head.target)
        if head.method not in _METHODS:
            raise RefusedError(405, "wrong_method", "messages are sent with POST", {"Allow": "POST, PUT"})
        key = target.key or key_in_headers(head.headers)
        if key is None:
            raise without_key()
        sender = self._keys.sender(key)
        topic = topic_for(target, sender)
        headers = _wanted(head.headers)
        if head.content_length is not None and head.content_length > self._max_body_bytes:
            raise too_large(self._max_body_bytes)
        if len(headers.get(_IDEMPOTENCY_KEY, b"")) > _MAX_IDEMPOTENCY_KEY:
            raise RefusedError(
                400, "bad_idempotency_key", f"the Idempotency-Key has more than {_MAX_IDEMPOTENCY_KEY} characters"
            )
        body = body_for(headers.get(_CODING, b"").decode("latin-1"), self._max_body_bytes)
        if not self._rates.allows(sender.tenant):
            self.taker.note_discarded(sender.tenant)
            raise over_rate(sender.tenant)
        return Intake(self, sender, topic=topic, query=target.query, headers=headers, body=body)

    def hold(self, tenant: str, size: int) -> None:
        """Take note that so many bytes more are held for a tenant, or fewer.

        Raises:
            RefusedError: There is no room for them.
        """
        if size > 0:
            if self.bytes_held + size > self._max_bytes:
                raise busy("as many bodies are in memory as there may be")
            if self._held_by_tenant[tenant] + size > self._max_bytes // _TENANTS_SHARE:
                raise RefusedError(
                    429,
                    "too_many_bodies",
                    f"the requests of tenant {tenant} that are under way hold as many bytes as they may",
                    {"Retry-After": "1"},
                )
        self.bytes_held += size
        self._held_by_tenant[tenant] += size
        if self._held_by_tenant[tenant] <= 0:
            del self._held_by_tenant[tenant]


def _asked_by(headers: Sequence[tuple[bytes, bytes]]) -> bytes:
    """Return how a proxy was asked, nothing without one. Of several proxies, the first one was asked by the sender."""
    return next(
        (value.partition(b",")[0].strip().lower() for name, value in headers if name == b"x-forwarded-proto"), b""
    )


def _wanted(headers: Sequence[tuple[bytes, bytes]]) -> Mapping[bytes, bytes]:
    """Return headers by name; of those that come more than once, all in one line (RFC 9110, section 5.3)."""
    found: dict[bytes, bytes] = {}
    for name, value in headers:
        if name in _WANTED:
            found[name] = b", ".join([found[name], value]) if name in found else value
    return found
