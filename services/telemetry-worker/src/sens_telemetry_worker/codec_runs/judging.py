"""Decides what is stored for a device and time when messages of it are decoded again. Pure functions.

What the messages had led to goes, what they say now comes; values of other messages stay. As where messages are stored, the first one counts:
a later message that says something else of a metric is refused, and so is one that contradicts what another message, which is not decoded again,
has stored. What a refused message had led to stays, as far as no other message says something else.
"""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from sens_common.dead_letters import Reason
from sens_common.formats import MetricKind, Value
from sens_telemetry_worker.tenants import Refusal

type Metric = tuple[str, MetricKind]
"""A metric by its name and kind."""
type Values = Mapping[Metric, float | str]
"""Values as they are stored: booleans are 0 and 1."""

_KINDS: Final[dict[type, MetricKind]] = {float: "number", int: "number", bool: "boolean", str: "text"}


class Statement(NamedTuple):
    """What a message says of a device and time.

    Attributes:
        before: The metrics of which it had led to a value.
        values: What it says now, or why it can't be decoded.
    """

    before: frozenset[Metric]
    values: Values | Refusal


class Judgement(NamedTuple):
    """What is to be stored, and for each message why it is refused, None where it is not."""

    values: Values
    refusals: list[Refusal | None]


class Difference(NamedTuple):
    """A value that is another one then; None is no value."""

    metric: Metric
    before: float | str | None
    after: float | str | None


def stored_values(values: Mapping[str, Value | int]) -> dict[Metric, float | str]:
    """Return values by the names of their metrics as they are stored.

    >>> stored_values({"t": 21, "open": True, "mode": "eco"})
    {('t', 'number'): 21.0, ('open', 'boolean'): 1.0, ('mode', 'text'): 'eco'}
    """
    return {
        (name, _KINDS[type(value)]): value if isinstance(value, str) else float(value) for name, value in values.items()
    }


def judge(stored: Values, statements: Sequence[Statement], others: frozenset[Metric]) -> Judgement:
    """Return what is to be stored for a device and time.

    Args:
        stored: What is stored.
        statements: The messages that are decoded again, in the order in which they were stored.
        others: The metrics of which messages that are not decoded again are known to have led to a value.
    """
    own = frozenset[Metric]().union(*(statement.before for statement in statements)) - others
    target = {metric: value for metric, value in stored.items() if metric not in own}
    refusals: list[Refusal | None] = []
    for statement in statements:
        values = statement.values
        if isinstance(values, Refusal):
            refusals.append(values)
            continue
        conflict = next((metric for metric, value in values.items() if target.get(metric, value) != value), None)
        if conflict is None:
            target |= values
            refusals.append(None)
        else:
            refusals.append(_conflict(conflict, target[conflict], values[conflict]))
    for statement, refusal in zip(statements, refusals, strict=True):
        if refusal is not None:
            for metric in statement.before & stored.keys():
                target.setdefault(metric, stored[metric])
    return Judgement(target, refusals)


def differences(before: Values, after: Values) -> list[Difference]:
    """Return in which metrics values differ, by the metrics' names."""
    return [
        Difference(metric, before.get(metric), after.get(metric))
        for metric in sorted({*before, *after})
        if before.get(metric) != after.get(metric)
    ]


def _conflict(metric: Metric, other: float | str, refused: float | str) -> Refusal:
    return Refusal(
        Reason.CONFLICTING_VALUE,
        f"it would say {refused!r:.80} of {metric[0]}, and another message says {other!r:.80}",
    )
