"""Says what a payload is that is not JSON: the mistakes of devices, and what to do about each.

`describe` is asked only about payloads that a JSON parser has refused, so it may take its time; it looks at a bounded part of them.
"""

import json
import re
import zlib
from typing import Final

from sens_common.names import shown

_EXAMPLE: Final = '{"temperature": 21.5}'
_MAX_WORD_BYTES: Final = 64
_LOOKED_AT_BYTES: Final = 4096

# Names of compressed and packed formats, by the first bytes: RFC 1952, section 2.3.1; RFC 8878, section 3.1.1; LZ4 frame format; PKWARE's
# APPNOTE, section 4.3.7; XZ file format, section 2.1.1.1.
_COMPRESSED: Final = {
    b"\x1f\x8b": "gzip",
    b"\x28\xb5\x2f\xfd": "Zstandard",
    b"\x04\x22\x4d\x18": "LZ4",
    b"PK\x03\x04": "ZIP",
    b"\xfd7zXZ\x00": "XZ",
}
_ZLIB: Final = (
    b"\x78\x01",
    b"\x78\x5e",
    b"\x78\x9c",
    b"\x78\xda",
)  # RFC 1950, section 2.2, with the usual window: "x" and one byte

_NOT_A_NUMBER: Final = re.compile(r"[+-]?(?:nan|inf(?:inity)?)(?![a-z0-9_])", re.IGNORECASE)
_WORD: Final = re.compile(r"[A-Za-z_]\w*")
_PYTHON: Final = {"True": "true", "False": "false", "None": "null"}
_QUANTITY: Final = re.compile(r"[+-]?\d+(?:[.,]\d+)?\s*[^\d\s.,:;={}\[\]\"]{0,8}")
_PAIR: Final = re.compile(r"[^\s={}\[\]]+=[^\s={}\[\]]+")


def describe(payload: bytes, error: json.JSONDecodeError) -> str | None:
    """Return a sentence that says what the payload is and what to do, None where nothing better than the parser's words is known.

    Args:
        payload: What the parser refused, at most some hundred kilobytes.
        error: What the parser said; `pos` counts characters.
    """
    for question in (_binary, _wrong_encoding, _text_around_json, _inside_json, _plain_text):
        answer = question(payload, error)
        if answer is not None:
            return answer
    return None


def _binary(payload: bytes, _error: json.JSONDecodeError) -> str | None:
    compression = next((name for start, name in _COMPRESSED.items() if payload.startswith(start)), None)
    if compression is None and payload.startswith(_ZLIB) and _inflates(payload):
        compression = "zlib"
    if compression is not None:
        return f"the payload is compressed with {compression}; send the JSON itself, uncompressed"
    utf_16 = _utf_16(payload)
    if utf_16 is not None:
        return f"the payload is {utf_16} text; encode it as UTF-8"
    if payload.startswith(b"\xef\xbb\xbf"):
        return "the payload begins with a byte order mark; send UTF-8 without one"
    if _is_sparkplug(payload):
        return (
            "the payload looks like Sparkplug B, which is Protocol Buffers and not understood on this topic; send JSON, for example"
            f" {_EXAMPLE}"
        )
    return None


def _wrong_encoding(payload: bytes, _error: json.JSONDecodeError) -> str | None:
    try:
        payload.decode()
    except UnicodeDecodeError as problem:
        if payload[:1] in b'{["' and problem.start > 0:
            return (
                f"the payload is JSON with a text that is not UTF-8: byte {problem.start + 1} is 0x{payload[problem.start]:02x};"
                " encode texts as UTF-8"
            )
        return f"the payload is binary data, not text; send JSON, for example {_EXAMPLE}"
    return None


def _inflates(payload: bytes) -> bool:
    try:
        return bool(zlib.decompressobj().decompress(payload, _LOOKED_AT_BYTES))
    except zlib.error:
        return False


def _utf_16(payload: bytes) -> str | None:
    """Return the encoding that a byte order mark (Unicode standard, section 23.8) or every second byte being zero tells."""
    if payload.startswith((b"\xff\xfe\x00\x00", b"\x00\x00\xfe\xff")):
        return "UTF-32"
    if payload.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "UTF-16"
    start = payload[:_LOOKED_AT_BYTES]
    even, odd = start[::2], start[1::2]
    if len(start) >= 4 and len(payload) % 2 == 0 and (any(even) != any(odd)):  # noqa: PLR2004 - two characters
        return "UTF-16"
    return None


def _is_sparkplug(payload: bytes) -> bool:
    """Tell whether the bytes are a Sparkplug B payload (Eclipse Sparkplug 3.0.0, section 6.4.6): timestamp first, metrics among the rest."""
    if not payload.startswith(b"\x08"):
        return False
    position, fields = 0, []
    while position < len(payload):
        key, position = _varint(payload, position)
        field_number, wire_type = key >> 3, key & 7
        if (field_number, wire_type) not in {(1, 0), (2, 2), (3, 0), (4, 2), (5, 2)}:
            return False
        value, position = _varint(payload, position)
        if wire_type == 2:  # noqa: PLR2004 - of Protocol Buffers: bytes with their length before them
            position += value
        fields.append(field_number)
    return position == len(payload) and 2 in fields  # noqa: PLR2004 - the metrics


def _varint(data: bytes, position: int) -> tuple[int, int]:
    """Return a number (Protocol Buffers, "Base 128 Varints") and the position after it; that is beyond the end when it is cut off."""
    value = shift = 0
    while position < len(data) and shift < 70:  # noqa: PLR2004 - ten groups of seven bits
        byte = data[position]
        value |= (byte & 0x7F) << shift
        position += 1
        if byte < 0x80:  # noqa: PLR2004 - the last group
            return value, position
        shift += 7
    return value, len(data) + 1


def _text_around_json(payload: bytes, error: json.JSONDecodeError) -> str | None:
    text = payload.decode()
    if not text.strip(" \t\r\n\0"):
        return f"the payload is empty; send a JSON object, for example {_EXAMPLE}"
    if text.endswith("\0") and _is_json(text.rstrip("\0")):
        return "the payload ends with a NUL character, as texts in C do; send it without"
    if error.msg.startswith("unexpected end"):
        return f"the payload ends in the middle of its JSON, after {len(payload)} bytes; was it cut off by a buffer of the device?"
    try:
        _, end = json.JSONDecoder(parse_constant=_refuse).raw_decode(text.lstrip(" \t\r\n"))
    except (ValueError, RecursionError):
        return None
    rest = text.lstrip(" \t\r\n")[end:].lstrip(" \t\r\n,;\x1e")
    if rest[:1] in {"{", "["} and text.lstrip(" \t\r\n")[:1] in {"{", "["}:
        return (
            "the payload has several JSON documents one after the other; send each as a message of its own, or all in one array with a"
            " ts each"
        )
    return None


def _inside_json(payload: bytes, error: json.JSONDecodeError) -> str | None:
    text = payload.decode()
    if not text.lstrip(" \t\r\n").startswith(("{", "[")):
        return None
    where = f"line {error.lineno} column {error.colno}"
    at = text[error.pos : error.pos + _MAX_WORD_BYTES]
    if (match := _NOT_A_NUMBER.match(at)) is not None:
        return f"{match[0]} ({where}) is not a number in JSON; send null where a sensor has no value, or leave the metric out"
    if at.startswith("'"):
        return f"JSON has names and texts in double quotes, not in single ones ({where})"
    word = _WORD.match(at)
    if word is not None and word[0] in _PYTHON:
        return f"{word[0]} ({where}) is not JSON; write {_PYTHON[word[0]]}"
    if word is not None and error.msg.endswith("a string key"):
        return f"the name {word[0]} ({where}) has no quotes; JSON needs double ones"
    return None


def _plain_text(payload: bytes, _error: json.JSONDecodeError) -> str | None:
    text = payload.decode().strip(" \t\r\n\0")
    if _NOT_A_NUMBER.fullmatch(text):
        return (
            f"the payload is {text}, which is not a number: has the sensor no value? Send an object, with null for what has no value:"
            ' {"temperature": null}'
        )
    if text.startswith("<"):
        return f"the payload is XML or HTML; send JSON, for example {_EXAMPLE}"
    if text.startswith(("{", "[", '"')) or len(text) > _LOOKED_AT_BYTES:
        return None
    if _QUANTITY.fullmatch(text):
        return f"the payload is {shown(text)}, not JSON; send an object with a decimal point and no unit, for example {_EXAMPLE}"
    if any(_PAIR.fullmatch(part) for part in text.split()):
        return f"the payload has pairs with =, as in InfluxDB's line protocol; send JSON, for example {_EXAMPLE}"
    return f'the payload is the text {shown(text)}, not JSON; send an object, for example {{"state": {json.dumps(text[:40])}}}'


def _is_json(text: str) -> bool:
    try:
        json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return False
    return True


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
