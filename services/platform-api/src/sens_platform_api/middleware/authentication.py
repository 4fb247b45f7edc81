"""Finds the caller of a request for data by the key in its header, before any of its body is read."""

import ipaddress
from collections import Counter
from typing import Final

from limits import RateLimitItem, RateLimitItemPerMinute
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import SlidingWindowCounterRateLimiter
from starlette.types import ASGIApp, Receive, Scope, Send

from sens_common.connections import KNOWN
from sens_platform_api import metrics
from sens_platform_api.caller import Caller, bearer_key
from sens_platform_api.errors import (
    MalformedKeyError,
    ReadOnlyKeyError,
    TooManyRequestsError,
    TooManyWrongKeysError,
    UnauthenticatedError,
)
from sens_platform_api.keys.authenticator import Authenticator
from sens_platform_api.middleware.turns import Turns
from sens_platform_api.settings import LimitSettings

DATA_PATHS: Final = "/api/"
READING_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
RETRY_AFTER_SECONDS: Final = 10

_IPV6_NETWORK = 64


class Authentication:
    """Puts the caller of a request for data into the request's state, as ``caller``, and marks the connection as that of a known client."""

    def __init__(self, app: ASGIApp, gate: "Gate") -> None:
        self._app = app
        self._gate = gate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request; raises as `Gate.admit`."""
        if scope["path"].startswith(DATA_PATHS):
            state = scope["state"]
            try:
                state["caller"] = await self._gate.admit(scope, state["address"], state["request_id"])
            except TooManyRequestsError as error:
                if not isinstance(error, TooManyWrongKeysError):  # a stranger, who has waited already
                    await self._gate.turns.take()
                raise
            state[KNOWN] = True
        await self._app(scope, receive, send)


class Gate:
    """Lets requests for data through that carry a valid key, at the rate that they may have.

    The rates are counted by `limits` (a sliding window) in this process: with several replicas, each counts for itself.

    Attributes:
        turns: Those of strangers, and of callers who ask too fast.
    """

    def __init__(self, authenticator: Authenticator, limits: LimitSettings) -> None:
        self.turns = Turns()
        self._authenticator = authenticator
        self._rate = SlidingWindowCounterRateLimiter(MemoryStorage())
        self._requests: RateLimitItem = RateLimitItemPerMinute(limits.requests_per_minute, namespace="requests")
        self._wrong_keys: RateLimitItem = RateLimitItemPerMinute(limits.wrong_keys_per_minute, namespace="wrong keys")
        self._looking_up: dict[str, Counter[str]] = {}

    def knows(self, scope: Scope) -> bool:
        """Tell whether a request carries a key that was valid when it was looked up last."""
        key = bearer_key(scope)
        return key is not None and self._authenticator.is_known(key)

    async def admit(self, scope: Scope, address: str | None, request_id: str) -> Caller:
        """Return the caller.

        Raises:
            UnauthenticatedError: It carries no valid key.
            ReadOnlyKeyError: It would change something, and its key may only read.
            TooManyWrongKeysError: Too many wrong keys came from its address.
            TooManyRequestsError: Its key's requests come too fast.
        """
        caller = await self._caller(bearer_key(scope), network(address))
        if caller.access == "read_only" and scope["method"] not in READING_METHODS:
            metrics.FAILED_LOGINS.labels("read_only").inc()
            raise ReadOnlyKeyError(
                "this key may only read, and the request would change something; use a key that may write"
                " (keys create without --read-only)"
            )
        if not await self._rate.hit(self._requests, str(caller.key_id)):
            raise TooManyRequestsError(
                f"this key may ask {self._requests.amount} times a minute; ask less often", RETRY_AFTER_SECONDS
            )
        return caller._replace(address=address, request_id=request_id)

    async def _caller(self, key: str | None, source: str) -> Caller:
        if key is None:
            metrics.FAILED_LOGINS.labels("missing").inc()
            raise UnauthenticatedError("the header Authorization: Bearer sens_… is missing")
        # A key that was valid before is looked up whatever others send: behind a proxy, all may have one address.
        if self._authenticator.is_known(key):
            return await self._look_up(key, source)
        looked_up = self._looking_up.get(source, Counter())
        left = (await self._rate.get_window_stats(self._wrong_keys, source)).remaining
        # Those that are being looked up just now may turn out wrong as well.
        if len(looked_up) >= left and key not in looked_up:
            raise TooManyWrongKeysError(
                f"{self._wrong_keys.amount} wrong keys a minute may come from one address; try again later",
                RETRY_AFTER_SECONDS,
            )
        looked_up = self._looking_up.setdefault(source, looked_up)
        looked_up[key] += 1
        try:
            return await self._look_up(key, source)
        finally:
            looked_up[key] -= 1
            if not looked_up[key]:
                del looked_up[key]
            if not looked_up:
                self._looking_up.pop(source, None)

    async def _look_up(self, key: str, source: str) -> Caller:
        try:
            return await self._authenticator.caller(key)
        except UnauthenticatedError as error:
            reason = "malformed" if isinstance(error, MalformedKeyError) else "unknown"
            metrics.FAILED_LOGINS.labels(reason).inc()
            await self._rate.hit(self._wrong_keys, source)
            raise


def network(address: str | None) -> str:
    """Return the address by which requests are counted: of IPv6 the network, since each host has as many addresses as it likes."""
    try:
        parsed = ipaddress.ip_address(address or "")
    except ValueError:
        return address or "none"
    if parsed.version == 4:  # noqa: PLR2004 - IPv4
        return str(parsed)
    return str(ipaddress.ip_network((parsed, _IPV6_NETWORK), strict=False))
