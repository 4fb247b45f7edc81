"""Parameters that several rooms have in common: names, times, cursors."""

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, tzinfo
from typing import Any, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from starlette.requests import Request

from sens_common import times
from sens_common.names import DEVICE_PATTERN as DEVICE_NAME_PATTERN
from sens_common.names import DEVICE_RULE, TENANT_RULE, device_name
from sens_platform_api.errors import InvalidParameter, InvalidRequestError, NotAcceptableError, NotFoundError

_EUI_WITH_COLONS = (
    "[0-9A-Fa-f]{2}(?::[0-9A-Fa-f]{2}){5}(?:(?::[0-9A-Fa-f]{2}){2})?"  # its other spellings are names too
)
DEVICE_PATTERN: Final = rf"^(?:{DEVICE_NAME_PATTERN}|{_EUI_WITH_COLONS})$"
"""A device's name, or an EUI-48 or EUI-64 in any of its spellings."""
METRIC_PATTERN: Final = r"^[^\x00-\x1f\x7f]{1,255}$"

NAME_PATTERN: Final = r"^[a-z0-9][a-z0-9._-]{0,62}$"
"""A name of a source, a profile or a codec."""
NAME_WORDS: Final = f"a name is needed: {TENANT_RULE}"

EPOCH: Final = times.EPOCH
TIME_PATTERN: Final = r"^(?:\d{4}-\d{2}-\d{2}(?:[Tt ]\d{2}:\d{2}(?::\d{2}(?:\.\d{1,9})?)?(?:[Zz]|[+-]\d{2}:\d{2}))?|-?\d{1,19}(?:\.\d{1,9})?)$"

DEVICE_WORDS: Final = f"no device can have this name; it has {DEVICE_RULE}, for example sensor-0001; or it is an EUI such as 00-11-22-33-44-55-66-77"
METRIC_WORDS: Final = "no metric can have this name; a name has 1 to 255 characters, none of them a control character"
CURSOR_WORDS: Final = (
    "it is not a cursor that this path gave; send the value of next unchanged, or no cursor for the first page"
)


def in_words(pattern: str, words: str) -> AfterValidator:
    """Return a check of a text, where there is one, by a regular expression; it refuses in words, for people.

    Programs find the expression in the OpenAPI document, where the field puts it.
    """
    compiled = re.compile(pattern)

    def check(text: str | None) -> str | None:
        if text is not None and not compiled.fullmatch(text):
            raise ValueError(words)
        return text

    return AfterValidator(check)


class Parameters(BaseModel):
    """Query parameters of a path; one that is not known is refused, so that a typing error does not go unseen."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def no_parameters(request: Request) -> None:
    """Refuse query parameters on a path that has none.

    Raises:
        InvalidRequestError: There is one.
    """
    if request.query_params:
        raise InvalidRequestError(
            [InvalidParameter("query", name[:200], "this path has no such parameter") for name in request.query_params]
        )


def canonical_device(text: str) -> str:
    """Return a device's canonical name.

    Raises:
        NotFoundError: No device can have this name.
    """
    name = device_name(text)
    if name is None:
        raise NotFoundError("there is no such device")
    return name


def parse_time(name: str, text: str, now: datetime | None = None, zone: tzinfo | None = None) -> datetime:
    """Return the time that a query parameter names (`sens_common.times`), relative to now or to the given present, by UTC's days or a zone's.

    Raises:
        InvalidRequestError: It names none.
    """
    try:
        return times.parse_time(text, now or datetime.now(UTC), zone or UTC)
    except ValueError as error:
        raise InvalidRequestError.in_query(name, str(error)) from None


def time_text(time: datetime) -> str:
    """Return a time as RFC 3339 in UTC, with as many digits as it needs."""
    if time.tzinfo is UTC:
        return time.isoformat().removesuffix("+00:00") + "Z"
    return time.astimezone(UTC).replace(tzinfo=None).isoformat() + "Z"


CURSOR_PATTERN: Final = r"^[A-Za-z0-9_-]{1,1000}$"


def cursor_field(example: str) -> Any:
    """Return the description of a path's cursor."""
    return Field(
        description="`next` of the page before; without it, the first page.",
        pattern=CURSOR_PATTERN,
        max_length=1000,
        examples=[example],
    )


def encode_cursor(*parts: str) -> str:
    """Return an opaque cursor."""
    return base64.urlsafe_b64encode("\0".join(parts).encode()).decode().rstrip("=")


def decode_cursor(text: str, count: int) -> list[str]:
    """Return the parts of a cursor.

    Raises:
        InvalidRequestError: It was not made by `encode_cursor` with so many parts.
    """
    if not re.fullmatch(r"[A-Za-z0-9_-]*", text):
        raise bad_cursor()
    try:
        parts = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode().split("\0")
    except (binascii.Error, ValueError):
        parts = []
    if len(parts) != count:
        raise bad_cursor()
    return parts


def bad_cursor() -> InvalidRequestError:
    """Return the error for a cursor that this path has not given."""
    return InvalidRequestError.in_query("cursor", CURSOR_WORDS)


def cursor_number(text: str) -> int:
    """Return a cursor's part as a number.

    Raises:
        InvalidRequestError: It is none.
    """
    if not re.fullmatch(r"[0-9]{1,18}", text):
        raise bad_cursor()
    return int(text)


def preferred_type(accept: str, offered: Sequence[str]) -> str:
    """Return the offered media type that the header ``Accept`` prefers (RFC 9110, section 12.5.1).

    Raises:
        NotAcceptableError: It accepts none of them.
    """
    weights: dict[str, float] = {}
    for part in accept.split(","):
        media_range, *parameters = (piece.strip().lower() for piece in part.split(";"))
        text = next((piece[2:] for piece in parameters if piece.startswith("q=")), "1")
        weights[media_range] = float(text) if re.fullmatch(r"[01](?:\.\d{0,3})?", text) else 1.0
    best = max(offered, key=lambda offer: _weight(offer, weights))  # of equal ones, the first
    if _weight(best, weights) == 0:
        raise NotAcceptableError(f"this path answers with {' or '.join(offered)}")
    return best


def _weight(offer: str, weights: Mapping[str, float]) -> float:
    for media_range in (offer, f"{offer.partition('/')[0]}/*", "*/*"):
        if media_range in weights:
            return weights[media_range]
    return 0.0
