"""Errors of the API and of the administration command.

::

    SensError
    ├── UnavailableError            503 Service Unavailable, with Retry-After
    ├── SchemaError                 503 Service Unavailable
    └── RefusedError                a request can't be done: `status`, `code`, `title`
        ├── UnauthenticatedError    401 Unauthorized, with WWW-Authenticate
        │   └── MalformedKeyError       the same; the text does not have the form of a key
        ├── ReadOnlyKeyError        403 Forbidden
        ├── NotFoundError           404 Not Found
        ├── WrongMethodError        405 Method Not Allowed, with Allow
        ├── NotAcceptableError      406 Not Acceptable
        ├── AlreadyExistsError      409 Conflict
        ├── LimitsContradictError   409 Conflict
        ├── InUseError              409 Conflict
        ├── OverlapError            409 Conflict
        ├── TooManyError            409 Conflict
        ├── BodyTooLargeError       413 Content Too Large
        ├── HeadersTooLargeError    431 Request Header Fields Too Large
        ├── InvalidRequestError     422 Unprocessable Content, with the parameters that are wrong
        ├── TooManyRequestsError    429 Too Many Requests, with Retry-After
        │   ├── TooManyReadersError     live readers
        │   ├── TooManyAnswersError     answers with measurements that are being read
        │   ├── TenantBusyError         queries of one tenant
        │   └── TooManyWrongKeysError   wrong keys from one address
        ├── CodecsUnavailableError  503 Service Unavailable, with Retry-After
        └── TooSlowError            504 Gateway Timeout

`problems` renders all of them as problem details (RFC 9457). A `NumberTooLargeError` stays inside of the API: the query is asked in another
way then.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import ClassVar, NamedTuple, Self

from sens_common.errors import SensError


class InvalidParameter(NamedTuple):
    """An error in a request.

    Attributes:
        location: Its part of the request: ``path``, ``query``, ``header`` or ``body``.
        name: The parameter, or the path of the body's member.
        detail: The values that are accepted.
    """

    location: str
    name: str
    detail: str


class NumberTooLargeError(Exception):
    """A result is a number that the database's type can't hold."""


class RefusedError(SensError):
    """A request can't be done; the text says why, for people."""

    status: ClassVar[int] = 400
    code: ClassVar[str] = "bad_request"
    title: ClassVar[str] = "The request can't be understood"
    headers: Mapping[str, str] = MappingProxyType({})


class UnauthenticatedError(RefusedError):
    """The request carries no valid key."""

    status = 401
    code = "unauthenticated"
    title = "A valid API key is needed"
    headers = MappingProxyType({"WWW-Authenticate": 'Bearer realm="sens"'})


class MalformedKeyError(UnauthenticatedError):
    """The text in the request does not have the form of a key."""


class ReadOnlyKeyError(RefusedError):
    """The key may only read."""

    status = 403
    code = "read_only_key"
    title = "The key may only read"


class NotFoundError(RefusedError):
    """The resource does not exist, or belongs to another tenant."""

    status = 404
    code = "not_found"
    title = "Not found"


class WrongMethodError(RefusedError):
    """The path takes other methods."""

    status = 405
    code = "method_not_allowed"
    title = "Method Not Allowed"

    def __init__(self, text: str, methods: Sequence[str]) -> None:
        super().__init__(text)
        self.headers = {"Allow": ", ".join(methods)}


class NotAcceptableError(RefusedError):
    """The answer exists in none of the media types that the caller accepts."""

    status = 406
    code = "not_acceptable"
    title = "No acceptable media type"


class AlreadyExistsError(RefusedError):
    """The resource that should be made exists already."""

    status = 409
    code = "already_exists"
    title = "Already exists"


class StillMovingError(RefusedError):
    """The device's history is still coming from another tenant."""

    status = 409
    code = "still_moving"
    title = "The device is still being moved"


class TargetLimitError(RefusedError):
    """The tenant that a device should come to may not have more."""

    status = 409
    code = "limit_reached"
    title = "A limit of the other tenant is reached"


class LimitsContradictError(RefusedError):
    """Two limits would contradict each other."""

    status = 409
    code = "limits_contradict"
    title = "Two limits contradict each other"

    @classmethod
    def of_retention(cls, late_days: int, kept_days: int | None) -> Self:
        """Return the error of readings that may lie further back than they are kept."""
        return cls(
            f"readings may lie {late_days} days back (the limit late_days, or import_late_days), and would be kept for {kept_days} days only (the"
            " retention raw): the limit must not be larger; change the other one first"
        )


class InUseError(RefusedError):
    """Something else needs what should be deleted; the text names it."""

    status = 409
    code = "in_use"
    title = "It is in use"


class OverlapError(RefusedError):
    """Two sources would get the same messages."""

    status = 409
    code = "overlap"
    title = "Two topic filters match the same topics"


class TooManyError(RefusedError):
    """The tenant has as many of them as it may have."""

    status = 409
    code = "too_many"
    title = "There are too many already"


class BodyTooLargeError(RefusedError):
    """The request's body is over the limit."""

    status = 413
    code = "body_too_large"
    title = "The request's body is too large"


class HeadersTooLargeError(RefusedError):
    """The request's header fields or its target are over the limit."""

    status = 431
    code = "headers_too_large"
    title = "The request's header or target is too large"


class InvalidRequestError(RefusedError):
    """One or more parameters are wrong."""

    status = 422
    code = "invalid_request"
    title = "The request has invalid parameters"

    def __init__(self, parameters: Sequence[InvalidParameter]) -> None:
        super().__init__("; ".join(f"{parameter.name}: {parameter.detail}" for parameter in parameters))
        self.parameters = parameters

    @classmethod
    def in_header(cls, name: str, detail: str) -> "InvalidRequestError":
        """Return the error of one header field."""
        return cls([InvalidParameter("header", name, detail)])

    @classmethod
    def in_query(cls, name: str, detail: str) -> "InvalidRequestError":
        """Return the error of one query parameter."""
        return cls([InvalidParameter("query", name, detail)])

    @classmethod
    def in_body(cls, name: str, detail: str) -> "InvalidRequestError":
        """Return the error of one member of the body."""
        return cls([InvalidParameter("body", name, detail)])


class TooManyRequestsError(RefusedError):
    """A key's requests come faster than they may."""

    status = 429
    code = "too_many_requests"
    title = "Too many requests"
    bound: ClassVar[str] = "requests_per_key"
    """The bound that was reached, as the metric of refused requests names it."""

    def __init__(self, text: str, retry_after_seconds: int = 5) -> None:
        super().__init__(text)
        self.headers = {"Retry-After": str(retry_after_seconds)}


class TooManyReadersError(TooManyRequestsError):
    """As many live readers are connected as there may be."""

    code = "too_many_readers"
    title = "Too many live readers"
    bound = "live_readers"


class TooManyAnswersError(TooManyRequestsError):
    """As many answers with measurements are being read as there may be."""

    code = "too_many_answers"
    title = "Too many answers at the same time"
    bound = "answers"


class TenantBusyError(TooManyRequestsError):
    """The tenant's other requests use all of the database's connections that it may have."""

    code = "tenant_busy"
    title = "Too many requests at the same time"
    bound = "tenant_connections"


class TooManyWrongKeysError(TooManyRequestsError):
    """Too many wrong keys came from this address."""

    code = "too_many_wrong_keys"
    title = "Too many wrong keys"
    bound = "wrong_keys"


class CodecsUnavailableError(RefusedError):
    """JavaScript can't be run by the API, so nobody can tell whether a codec does what its examples say."""

    status = 503
    code = "codecs_unavailable"
    title = "Codecs can't be run here"

    def __init__(self) -> None:
        super().__init__(
            "the API can't run JavaScript now, so it can't see whether the codec does what its examples say; nothing is saved."
            " The API's log says why"
        )
        self.headers = {"Retry-After": "5"}


class TooSlowError(RefusedError):
    """The answer could not be made in time."""

    status = 504
    code = "too_slow"
    title = "The request took too long"
