"""Whose request is this, and may it go on? Decided by its header alone, before any of its body is read."""

import ipaddress
import re
import secrets
from collections import Counter
from typing import Final

from limits import RateLimitItem, RateLimitItemPerMinute
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import SlidingWindowCounterRateLimiter
from starlette.types import Scope

from sens_platform_api import metrics
from sens_platform_api.errors import (
    MalformedKeyError,
    ReadOnlyKeyError,
    TooManyRequestsError,
    TooManyWrongKeysError,
    UnauthenticatedError,
)
from sens_platform_api.keys.repository import KeyOwner
from sens_platform_api.keys.service import Authenticator
from sens_platform_api.settings import LimitSettings

DATA_PATHS: Final = "/api/"
READING_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
RETRY_AFTER_SECONDS: Final = 10

_REQUEST_ID = re.compile(rb"[A-Za-z0-9][A-Za-z0-9._:-]{0,63}")
_IPV6_NETWORK = 64


class Gate:
    """Lets requests for data through that carry a valid key, at the rate that they may have.

    The rates are counted by `limits` (a sliding window) in this process: with several replicas, each counts for itself.
    """

    def __init__(self, authenticator: Authenticator, limits: LimitSettings) -> None:
        self._authenticator = authenticator
        self._rate = SlidingWindowCounterRateLimiter(MemoryStorage())
        self._requests: RateLimitItem = RateLimitItemPerMinute(limits.requests_per_minute, namespace="requests")
        self._wrong_keys: RateLimitItem = RateLimitItemPerMinute(limits.wrong_keys_per_minute, namespace="wrong keys")
        self._trying: dict[str, Counter[str]] = {}

    async def admit(self, scope: Scope, address: str | None, request_id: str) -> KeyOwner:
        """Return whose request it is.

        Raises:
            UnauthenticatedError: It carries no valid key.
            ReadOnlyKeyError: It would change something, and its key may only read.
            TooManyWrongKeysError: Too many wrong keys came from its address.
            TooManyRequestsError: Its key's requests come too fast.
        """
        owner = await self._owner(bearer_key(scope), network(address))
        if owner.access == "read_only" and scope["method"] not in READING_METHODS:
            metrics.FAILED_LOGINS.labels("read_only").inc()
            raise ReadOnlyKeyError(
                "this key may only read, and the request would change something; use a key that may write"
                " (keys create without --read-only)"
            )
        if not await self._rate.hit(self._requests, str(owner.key_id)):
            metrics.REFUSED.labels("requests_per_key").inc()
            raise TooManyRequestsError(
                f"this key may ask {self._requests.amount} times a minute; ask less often", RETRY_AFTER_SECONDS
            )
        return owner._replace(address=address, request_id=request_id)

    async def _owner(self, key: str | None, source: str) -> KeyOwner:
        if key is None:
            metrics.FAILED_LOGINS.labels("missing").inc()
            raise UnauthenticatedError("the header Authorization: Bearer sens_… is missing")
        # A key that was valid lately is looked up whatever others send: behind a proxy, all may have one address.
        if self._authenticator.is_known(key):
            return await self._looked_up(key, source)
        trying = self._trying.get(source, Counter())
        left = (await self._rate.get_window_stats(self._wrong_keys, source)).remaining
        # Those that are being looked up just now may turn out wrong as well.
        if len(trying) >= left and key not in trying:
            metrics.REFUSED.labels("wrong_keys").inc()
            raise TooManyWrongKeysError(
                f"{self._wrong_keys.amount} wrong keys a minute may come from one address; try again later",
                RETRY_AFTER_SECONDS,
            )
        trying = self._trying.setdefault(source, trying)
        trying[key] += 1
        try:
            return await self._looked_up(key, source)
        finally:
            trying[key] -= 1
            if not trying[key]:
                del trying[key]
            if not trying:
                self._trying.pop(source, None)

    async def _looked_up(self, key: str, source: str) -> KeyOwner:
        try:
            return await self._authenticator.owner(key)
        except UnauthenticatedError as error:
            reason = "malformed" if isinstance(error, MalformedKeyError) else "unknown"
            metrics.FAILED_LOGINS.labels(reason).inc()
            await self._rate.hit(self._wrong_keys, source)
            raise


def bearer_key(scope: Scope) -> str | None:
    """Return the key that the request carries (RFC 6750, section 2.1), None without one."""
    value = next((value for name, value in scope["headers"] if name == b"authorization"), b"").decode("latin-1")
    scheme, _, key = value.partition(" ")
    return key.strip() if scheme.lower() == "bearer" and key.strip() else None


def address_of(scope: Scope) -> str | None:
    """Return where the request comes from: behind a trusted proxy, what the proxy says (`SENS_HTTP__TRUSTED_PROXIES`)."""
    client = scope.get("client")
    return str(client[0]) if client else None


def network(address: str | None) -> str:
    """Return the address by which requests are counted: of IPv6 the network, since each host has as many addresses as it likes."""
    try:
        parsed = ipaddress.ip_address(address or "")
    except ValueError:
        return address or "none"
    if parsed.version == 4:  # noqa: PLR2004 - IPv4
        return str(parsed)
    return str(ipaddress.ip_network((parsed, _IPV6_NETWORK), strict=False))


def request_id_of(scope: Scope) -> str:
    """Return the request's name: the one in X-Request-Id where that is a short plain word, else a new one."""
    given = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"")
    return given.decode() if _REQUEST_ID.fullmatch(given) else secrets.token_hex(8)
