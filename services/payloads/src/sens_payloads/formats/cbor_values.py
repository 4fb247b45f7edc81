"""CBOR as values (RFC 8949), by cbor2, with all but the plainest tags refused: others make objects, references and huge numbers."""

from collections.abc import Callable, Mapping
from decimal import Decimal, InvalidOperation
from io import BytesIO
from typing import Final, NoReturn

import cbor2

from sens_common.dead_letters import Reason
from sens_common.errors import RejectedMessageError
from sens_payloads.formats.json_text import check_size

MAX_DEPTH: Final = 32
"""Of what is read; metrics may lie less deep."""

# Those that cbor2 understands by itself (its documentation, "Tag support"), but for 0, 1 (times), 4 (decimal fraction) and 55799.
_REFUSED_TAGS: Final = (2, 3, 5, 25, 28, 29, 30, 35, 36, 37, 52, 54, 100, 256, 258, 260, 261, 1004, 43000)
_MAX_EXPONENT: Final = 400


class _TagError(Exception):
    """A tag that is not read; its argument is the number."""


def decode(body: bytes) -> object:
    """Return what a message holds: None, booleans, integers, floats, texts, bytes, lists and dicts with keys of any of these.

    Times (tags 0 and 1) are the text or number in them, decimal fractions (tag 4) floats.

    Raises:
        RejectedMessageError: It is not CBOR, has two equal keys in one map, a tag that is not read, or is nested too deep.
    """
    check_size(body)
    decoder = cbor2.CBORDecoder(
        BytesIO(body),
        semantic_decoders=_DECODERS,
        read_size=len(body) + 1,
        max_depth=MAX_DEPTH,
        allow_duplicate_keys=False,
    )
    try:
        document: object = decoder.decode()
    except cbor2.CBORDecodeEOF:
        raise RejectedMessageError(
            Reason.MALFORMED_PAYLOAD,
            f"the message ends in the middle of its CBOR, after {len(body)} bytes; was it cut off?",
        ) from None
    except (cbor2.CBORError, RecursionError, ValueError, TypeError, OverflowError) as error:
        raise _rejection(error) from None
    try:
        decoder.read(1)
    except cbor2.CBORDecodeEOF:
        return document
    raise RejectedMessageError(
        Reason.MALFORMED_PAYLOAD, "bytes follow the end of the CBOR; send each document as a message of its own"
    )


def _rejection(error: Exception) -> RejectedMessageError:
    if isinstance(error.__cause__, _TagError):
        return RejectedMessageError(
            Reason.UNSUPPORTED_VALUE, f"the CBOR tag {error.__cause__.args[0]} is not read; send plain values"
        )
    words = str(error)
    if "nesting depth" in words or isinstance(error, RecursionError):
        return RejectedMessageError(Reason.TOO_LARGE, f"the CBOR is nested more than {MAX_DEPTH} levels deep")
    return RejectedMessageError(Reason.MALFORMED_PAYLOAD, f"the message is not CBOR: {words:.200}")


def _same(value: object, _immutable: bool) -> object:
    return value


def _decimal_fraction(value: object, _immutable: bool) -> float:
    if isinstance(value, (list, tuple)) and len(value) == 2:  # noqa: PLR2004 - exponent and mantissa (RFC 8949, section 3.4.4)
        exponent, mantissa = value
        if type(exponent) is int and type(mantissa) is int and abs(exponent) <= _MAX_EXPONENT:
            try:
                return float(Decimal(mantissa).scaleb(exponent))
            except (InvalidOperation, OverflowError):
                pass
    raise _TagError(4)


def _refuse(tag: int) -> Callable[[object, bool], NoReturn]:
    def refuse(_value: object, _immutable: bool) -> NoReturn:
        raise _TagError(tag)

    return refuse


_DECODERS: Final[Mapping[int, Callable[[object, bool], object]]] = {
    **{tag: _refuse(tag) for tag in _REFUSED_TAGS},
    0: _same,
    1: _same,
    4: _decimal_fraction,
    55799: _same,
}
