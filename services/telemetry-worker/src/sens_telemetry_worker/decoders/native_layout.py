"""Native payloads that are alike, decoded together.

Most devices send objects with the same names and kinds of value again and again. A `NativeLayout` decodes these with a parser that is made
for their names, and gives their values as columns, at a third of what `native.decode_if_flat` costs. Whatever it can't be sure about it
leaves to that: what it decodes, `native.decode` would decode to the same measurements.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import chain
from operator import attrgetter, methodcaller
from typing import Final, Literal, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from sens_common.device_times import (
    EARLIEST,
    MAX_AHEAD,
    MICROSECONDS_BELOW,
    MILLISECONDS_BELOW,
    SECONDS_BELOW,
    measured_at,
)
from sens_common.errors import RejectedMessageError
from sens_common.formats import EXACT_BELOW, MAX_TEXT_CHARACTERS, MetricKind
from sens_telemetry_worker.decoders.columns import Columns

MAX_LAYOUTS: Final = 1024
"""Layouts that are remembered; each is a parser of its own."""
MAX_LAYOUT_BYTES: Final = 8192
"""Of a payload; see `native.decode_if_flat`."""

type TimeKind = Literal["epoch", "text", "receipt"]
"""What ``ts`` is: a number, a text, or not there."""

_TYPES: Final[dict[MetricKind, type]] = {"number": float, "boolean": bool, "text": str}
_count_colons: Final = methodcaller("count", b":")
_count_colons_of_text: Final = methodcaller("count", ":")
_has_escapes: Final = methodcaller("__contains__", b"\\")
_ts: Final = attrgetter("ts")


class _Values(Protocol):
    """The values of a payload, as attributes ``m0``, ``m1`` and so on in the order of the metrics, and ``ts`` where it has one."""


class NativeLayout:
    """Names and kinds of the values of flat payloads.

    Attributes:
        metrics: Names and kinds of the values.
    """

    def __init__(self, metrics: tuple[tuple[str, MetricKind], ...], time_kind: TimeKind) -> None:
        self.metrics = metrics
        names = [name for name, _ in metrics]
        kinds = [kind for _, kind in metrics]
        self._time_kind = time_kind
        self._decode = _decoder(metrics, time_kind)
        numeric = [f"m{index}" for index, kind in enumerate(kinds) if kind != "text"]
        self._width = len(numeric)
        self._numbers: Callable[[_Values], tuple[float, ...]] = (
            attrgetter(*numeric) if len(numeric) > 1 else _single(numeric)
        )
        self._texts = [attrgetter(f"m{index}") for index, kind in enumerate(kinds) if kind == "text"]
        # One behind each key, and those inside the keys; a payload with more has a key twice, or colons in its texts.
        self._colons = len(names) + sum(name.count(":") for name in names) + (time_kind != "receipt")
        self._can_hide_colons = bool(self._texts) or any(":" in name for name in names) or time_kind == "text"

    def decode(self, payloads: Sequence[bytes], received_at: NDArray[np.int64]) -> Columns:
        """See `columns.Layout.decode`."""
        try:
            values = list(map(self._decode, payloads))
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return self._decode_those_that_fit(payloads, received_at)
        return self._checked(payloads, received_at, values)

    def _decode_those_that_fit(self, payloads: Sequence[bytes], received_at: NDArray[np.int64]) -> Columns:
        values: list[_Values] = []
        indexes: list[int] = []
        for index, payload in enumerate(payloads):
            try:
                values.append(self._decode(payload))
            except (msgspec.MsgspecError, ValueError, RecursionError):
                continue
            indexes.append(index)
        fitting = np.array(indexes, np.int64)
        columns = self._checked([payloads[index] for index in indexes], received_at[fitting], values)
        return columns._replace(indexes=fitting[columns.indexes])

    def _checked(self, payloads: Sequence[bytes], received_at: NDArray[np.int64], values: list[_Values]) -> Columns:
        count = len(values)
        texts = [list(map(get, values)) for get in self._texts]
        times, fits = self._times(values, received_at)
        flat = np.fromiter(chain.from_iterable(map(self._numbers, values)), np.float64, count * self._width)
        numbers = flat.reshape(count, self._width)
        # An integer -0 is 0, a fraction -0.0 is not; here both are the latter.
        fits &= ((np.abs(numbers) < EXACT_BELOW) & ~((numbers == 0) & np.signbit(numbers))).all(axis=1)
        colons = np.fromiter(map(_count_colons, payloads), np.int64, count)
        for column in texts:
            colons -= np.fromiter(map(_count_colons_of_text, column), np.int64, count)
            fits &= np.fromiter(map(len, column), np.int64, count) <= MAX_TEXT_CHARACTERS
        if self._time_kind == "text":
            colons -= np.fromiter((text.count(":") for text in map(_ts, values)), np.int64, count)
        fits &= colons == self._colons
        fits &= np.fromiter(map(len, payloads), np.int64, count) <= MAX_LAYOUT_BYTES
        if self._can_hide_colons:
            fits &= ~np.fromiter(map(_has_escapes, payloads), np.bool_, count)
        indexes = np.flatnonzero(fits)
        if len(indexes) == count:
            return Columns(indexes, times, numbers, texts)
        chosen = indexes.tolist()
        return Columns(
            indexes, times[indexes], numbers[indexes], [[column[index] for index in chosen] for column in texts]
        )

    def _times(
        self, values: list[_Values], received_at: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Return the time of each payload, and whether it can be one."""
        count = len(values)
        if self._time_kind == "receipt":
            return received_at, np.ones(count, np.bool_)
        if self._time_kind == "epoch":
            try:
                epochs = np.fromiter(map(_ts, values), np.int64, count)
            except OverflowError:  # one of them is beyond 64 bits; none is decoded
                return received_at, np.zeros(count, np.bool_)
            times = _instants_of_epochs(epochs)
            return times, (times >= EARLIEST) & (times <= received_at + MAX_AHEAD)
        times = np.zeros(count, np.int64)
        fits = np.ones(count, np.bool_)
        for index, (text, received) in enumerate(zip(map(_ts, values), received_at.tolist(), strict=True)):
            try:
                times[index] = measured_at(text, received)
            except RejectedMessageError:
                fits[index] = False
        return times, fits


@lru_cache(maxsize=MAX_LAYOUTS)
def layout(metrics: tuple[tuple[str, MetricKind], ...], time_kind: TimeKind) -> NativeLayout:
    """Return the layout of payloads with these names and kinds of value, the same object for the same arguments while it is remembered."""
    return NativeLayout(metrics, time_kind)


def _decoder(metrics: tuple[tuple[str, MetricKind], ...], time_kind: TimeKind) -> Callable[[bytes], _Values]:
    fields: list[tuple[str, type]] = [(f"m{index}", _TYPES[kind]) for index, (_, kind) in enumerate(metrics)]
    if time_kind != "receipt":
        fields.append(("ts", int if time_kind == "epoch" else str))
    struct = msgspec.defstruct(
        "Payload",
        fields,
        rename={f"m{index}": name for index, (name, _) in enumerate(metrics)},
        forbid_unknown_fields=True,
        gc=False,
    )
    decode: Callable[[bytes], _Values] = msgspec.json.Decoder(struct).decode
    return decode


def _instants_of_epochs(epochs: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the instants that epoch times mean, as `measured_at` does for integers; whether they are plausible is not looked at."""
    magnitudes = np.abs(epochs)
    return np.select(
        [magnitudes < SECONDS_BELOW, magnitudes < MILLISECONDS_BELOW, magnitudes < MICROSECONDS_BELOW],
        [epochs * 1_000_000, epochs * 1000, epochs],
        epochs // 1000,
    )


def _single(numeric: list[str]) -> Callable[[_Values], tuple[float, ...]]:
    """Return what gives the only number of a payload, or none, as a tuple."""
    if not numeric:
        return lambda _values: ()
    get: Callable[[_Values], float] = attrgetter(numeric[0])
    return lambda values: (get(values),)
