"""Ingest keys: whose a request is. They come from the JetStream bucket of the tenants' limits; the worker asks no database."""

import base64
import binascii
import hmac
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from sens_common.keys import is_key, key_hash
from sens_common.tenant_limits import TenantLimits
from sens_http_ingestion_worker import metrics
from sens_http_ingestion_worker.refusals import busy, unknown_key

KEY_LENGTH: Final = len("sens_") + 43
_IN_HEADER: Final = re.compile(rb"(?:[A-Za-z]+ +)?(sens_[A-Za-z0-9_-]{43})")
_BASIC: Final = b"basic "
_MAX_BASIC: Final = 512


class Sender(NamedTuple):
    """Who sends with a key.

    Attributes:
        tenant: Whose the messages are.
        source: The source that they come by; None for the native topics.
        device: The one device that the key is for, None for any.
    """

    tenant: str
    source: str | None
    device: str | None


class _Known(NamedTuple):
    hash: bytes
    sender: Sender
    expires_at: int | None


class IngestKeys:
    """The keys that hold now."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._by_hash: dict[bytes, _Known] | None = None  # until they were read once

    def follow(self, limits: Mapping[str, TenantLimits]) -> None:
        """Let the keys of these tenants hold, and no others."""
        self._by_hash = {
            hash_: _Known(hash_, Sender(tenant, key.source, key.device), key.expires_at)
            for tenant, each in limits.items()
            for key in each.ingest_keys
            if (hash_ := _hash_of(key.hash)) is not None
        }
        metrics.KEYS.set(len(self._by_hash))

    def sender(self, key: str) -> Sender:
        """Return who sends with a key.

        Raises:
            RefusedError: It is none that is valid, or the keys are not known yet.
        """
        if not is_key(key):
            raise unknown_key()
        if self._by_hash is None:
            raise busy("the ingest keys are not known yet")
        hash_ = key_hash(key)
        # Who guesses keys knows nothing of their hashes: how long the look-up takes says nothing of a key.
        known = self._by_hash.get(hash_)
        if known is None or not hmac.compare_digest(known.hash, hash_):
            raise unknown_key()
        if known.expires_at is not None and known.expires_at <= self._clock():
            raise unknown_key()
        return known.sender


def _hash_of(text: str) -> bytes | None:
    try:
        return bytes.fromhex(text)
    except ValueError:
        return None


def key_in_headers(headers: Sequence[tuple[bytes, bytes]]) -> str | None:
    """Return the key of a request, None where no header has one.

    ``Authorization`` comes first: Bearer (RFC 6750), or Basic (RFC 7617), whose password is the key, or whose user name is it when there is
    no password. Else any header will do whose value is a key, with or without a word before it: senders differ in what they let people set.

    Args:
        headers: Names in lower case.
    """
    return next(_keys(headers), None)


def _keys(headers: Sequence[tuple[bytes, bytes]]) -> Iterator[str]:
    for name, value in headers:
        if name == b"authorization":
            if value[: len(_BASIC)].lower() == _BASIC:
                yield from _basic(value[len(_BASIC) :].strip())
            elif match := _IN_HEADER.fullmatch(value):
                yield match[1].decode()
            elif value[:7].lower() == b"bearer ":
                yield value[7:].strip().decode("latin-1")  # refused as unknown, rather than as missing
    for _, value in headers:
        if len(value) >= KEY_LENGTH and (match := _IN_HEADER.fullmatch(value)):
            yield match[1].decode()


def _basic(credentials: bytes) -> Iterator[str]:
    if len(credentials) > _MAX_BASIC:
        return
    try:
        user, _, password = base64.b64decode(credentials, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return
    yield password or user
