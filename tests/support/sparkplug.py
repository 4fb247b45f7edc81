"""Writes Sparkplug B payloads, field by field (Eclipse Sparkplug 3.0.0, section 6.4.1; Protocol Buffers, "Encoding")."""

import struct
from typing import Any

from hypothesis import strategies as st

_names = st.none() | st.sampled_from(["a", "b", "bdSeq", "Node Control/Rebirth", "", "ä/ö", "x" * 201, "\x07"])
_values = (
    st.none()
    | st.booleans()
    | st.integers(0, 2**64 - 1)
    | st.integers(0, 300)
    | st.floats()
    | st.text(max_size=5)
    | st.binary(max_size=5)
)
_timestamps = st.none() | st.sampled_from([0, 1785000000123, 1785000000124]) | st.integers(0, 2**64 - 1)


def varint(number: int) -> bytes:
    """Return a number in groups of seven bits."""
    groups = bytearray()
    while number >= 0x80:
        groups.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*groups, number])


def number(field: int, value: int) -> bytes:
    """Return a field that is an integer."""
    return varint(field << 3) + varint(value)


def delimited(field: int, value: bytes) -> bytes:
    """Return a field with its length before it."""
    return varint(field << 3 | 2) + varint(len(value)) + value


def metric(
    name: str | None,
    value: Any,
    *,
    alias: int | None = None,
    timestamp: int | None = None,
    datatype: int | None = None,
    historical: bool = False,
    transient: bool = False,
    null: bool = False,
    long: bool = False,
) -> bytes:
    """Return a metric; without a datatype it has the usual one of its value."""
    usual = {bool: 11, int: 8, float: 10, str: 12, bytes: 17}
    kind = usual.get(type(value), 0) if datatype is None else datatype
    fields = [
        b"" if name is None else delimited(1, name.encode()),
        b"" if alias is None else number(2, alias),
        b"" if timestamp is None else number(3, timestamp),
        number(4, kind) if kind else b"",
        number(5, 1) if historical else b"",
        number(6, 1) if transient else b"",
        number(7, 1) if null else b"",
    ]
    if isinstance(value, bool):
        fields.append(number(14, value))
    elif isinstance(value, int):
        fields.append(number(11 if long or value >= 2**32 else 10, value))
    elif isinstance(value, float):
        fields.append(varint(13 << 3 | 1) + struct.pack("<d", value))
    elif isinstance(value, str):
        fields.append(delimited(15, value.encode()))
    elif isinstance(value, bytes):
        fields.append(delimited(16, value))
    return b"".join(fields)


def payload(timestamp: int | None, *metrics: bytes) -> bytes:
    """Return a payload of metrics."""
    time = b"" if timestamp is None else number(1, timestamp)
    return time + b"".join(delimited(2, each) for each in metrics) + number(3, 0)


def payloads() -> st.SearchStrategy[bytes]:
    """Return payloads with metrics of all kinds, few of them right."""
    metrics = st.builds(
        metric,
        _names,
        _values,
        alias=st.none() | st.integers(0, 200),
        timestamp=_timestamps,
        datatype=st.none() | st.integers(0, 40) | st.just(2**32 - 1),
        historical=st.booleans(),
        transient=st.booleans(),
        null=st.booleans(),
        long=st.booleans(),
    )
    return st.builds(lambda timestamp, each: payload(timestamp, *each), _timestamps, st.lists(metrics, max_size=5))


def nearly_payloads(originals: list[bytes]) -> st.SearchStrategy[bytes]:
    """Return payloads with some bytes replaced, left out or added."""
    return st.sampled_from([original for original in originals if original]).flatmap(
        lambda body: st.tuples(st.integers(0, len(body)), st.integers(0, len(body)), st.binary(max_size=3)).map(
            lambda change: body[: change[0]] + change[2] + body[change[1] :]
        )
    )
