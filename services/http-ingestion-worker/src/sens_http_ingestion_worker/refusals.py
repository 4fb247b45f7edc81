"""Why a request is not taken: what its answer says."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from sens_http_ingestion_worker.tokens import Signature


class RefusedError(Exception):
    """A request is not taken.

    Attributes:
        status: HTTP's (RFC 9110, section 15; RFC 6585).
        code: A word for programs.
        detail: A sentence for people; it repeats neither key nor body.
        headers: Of the answer.
    """

    def __init__(self, status: int, code: str, detail: str, headers: Mapping[str, str] = MappingProxyType({})) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.headers = headers


_AUTHENTICATE = {"WWW-Authenticate": 'Bearer realm="sens", Basic realm="sens", charset="UTF-8"'}
_KEY_POSITIONS = (
    "as Authorization: Bearer, as the password of Basic, in a header of your choice, or at the end of the address"
)


def without_key() -> RefusedError:
    """There is nothing in the request that looks like a key."""
    return RefusedError(401, "no_key", f"the request carries no ingest key: send it {_KEY_POSITIONS}", _AUTHENTICATE)


def unknown_key() -> RefusedError:
    """The key is none that is valid."""
    return RefusedError(
        401,
        "unknown_key",
        "the ingest key is unknown, was revoked or has expired, or its source is disabled; a new key works after ten seconds",
        _AUTHENTICATE,
    )


_UNSIGNED: Final = {
    Signature.WRONG: "the Token of the address is not that of this request: the AS key of the connection is another one, or address or body were changed",
    Signature.MISSING: "the address has no Token, with which the connection's AS key signs a request",
    Signature.UNKNOWN: "the body is no report of ThingPark in JSON whose Token can be checked",
}


def wrong_token(signature: Signature) -> RefusedError:
    """The source has an AS key, and the request is not signed with it."""
    return RefusedError(401, f"token_{signature}", _UNSIGNED[signature], _AUTHENTICATE)


def unchecked() -> RefusedError:
    """The source's AS key is not there, so that nobody can tell who has signed the request."""
    return RefusedError(
        503, "token_unchecked", "the source's AS key can't be used; the source's state says why", {"Retry-After": "30"}
    )


def plain_http() -> RefusedError:
    """A proxy was asked by plain HTTP. A redirect would let the sender go on to send its key in clear first, each time."""
    return RefusedError(
        403,
        "plain_http",
        "this request came over plain HTTP, where it can be read on its way: post by HTTPS, and replace the key that was sent",
    )


def busy(what: str) -> RefusedError:
    """The worker holds as much as it may."""
    return RefusedError(503, "busy", f"{what}; try again", {"Retry-After": "1"})


def not_stored() -> RefusedError:
    """The stream did not say in time that it has stored the message."""
    return RefusedError(
        503,
        "not_stored",
        "the message was not stored in time; send it again. One with a time of its own or an Idempotency-Key is stored once all the same",
        {"Retry-After": "5"},
    )


def over_rate(tenant: str) -> RefusedError:
    """The tenant has sent as many messages as it may in a second."""
    return RefusedError(
        429, "over_rate", f"tenant {tenant} sends more messages a second than its limit allows", {"Retry-After": "1"}
    )


def too_large(max_bytes: int) -> RefusedError:
    """The body, packed or unpacked, is too large."""
    return RefusedError(
        413, "too_large", f"the body has more than {max_bytes:,} bytes, unpacked; send it in several parts"
    )
