"""Readings in columns: what the database sends of them, as arrays of this machine, without a step for a single value.

The database writes an array as PostgreSQL's ``array_send`` does (``src/backend/utils/adt/arrayfuncs.c``): a head of 12 bytes and 8 for each
dimension, then for each element its length in 4 bytes and its bytes, all of them in network order.
"""

import sys
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

from sens_platform_api.devices.repository import Kind

_HEAD_BYTES: Final = 12
_DIMENSION_BYTES: Final = 8
_WORD_BYTES: Final = 4
_LOW_FIRST: Final = sys.byteorder == "little"


class Column(NamedTuple):
    """A metric of some devices: a column of their readings."""

    id: int
    name: str
    kind: Kind


class Texts(NamedTuple):
    """A column of texts.

    Attributes:
        sizes: Bytes of each text, 32 bits each; -1 where there is none.
        data: The texts one after the other, in UTF-8.
    """

    sizes: "array[int]"
    data: bytes


@dataclass(frozen=True, slots=True)
class Columns:
    """Some readings by time, as columns of the same length.

    Attributes:
        times: µs since 1970, 64 bits each.
        device_indexes: Indexes of their devices among those that were asked for, 32 bits each.
        numbers: For each metric of numbers or booleans, 64 bits each; NaN where there is no value.
        texts: For each metric of texts.
    """

    times: "array[int]"
    device_indexes: "array[int]"
    numbers: "Sequence[array[float]]"
    texts: Sequence[Texts]

    def __len__(self) -> int:
        """Return how many readings they are."""
        return len(self.times)


def integers(data: bytes) -> "array[int]":
    """Return an array of int8, or of times, in the binary form."""
    return _wide_columns(data, "q", 1, dimensions=1)[0]


def floats(data: bytes, count: int) -> "list[array[float]]":
    """Return the columns of a matrix of float8 in the binary form, which has so many."""
    return _wide_columns(data, "d", count, dimensions=2)


def small_integers(data: bytes, count: int = 1, *, dimensions: int = 1) -> "list[array[int]]":
    """Return the columns of an array of int4 in the binary form."""
    words = _words(data, dimensions)
    columns = [words[2 * index + 1 :: 2 * count] for index in range(count)]
    for column in columns:
        _to_native(column)
    return [array("i", column.tobytes()) for column in columns]


def _wide_columns(data: bytes, code: Literal["q", "d"], count: int, *, dimensions: int) -> "list[array]":  # type: ignore[type-arg] # of the code
    words = _words(data, dimensions)
    columns = []
    for index in range(count):
        high, low = words[3 * index + 1 :: 3 * count], words[3 * index + 2 :: 3 * count]
        halves = array("I", bytes(2 * _WORD_BYTES * len(high)))
        halves[0::2], halves[1::2] = (low, high) if _LOW_FIRST else (high, low)
        _to_native(halves)
        columns.append(array(code, halves.tobytes()))
    return columns


def _words(data: bytes, dimensions: int) -> "array[int]":
    words = array("I")
    words.frombytes(memoryview(data)[_HEAD_BYTES + dimensions * _DIMENSION_BYTES :])
    return words


def _to_native(words: "array[int]") -> None:
    if _LOW_FIRST:
        words.byteswap()
