"""Topic filters of a session: that no two overlap, and which a session may have had before (MQTT 5.0, sections 4.7 and 4.8.2)."""

import itertools
from collections.abc import Iterable
from typing import Final

from sens_common.topic_filters import SHARE, levels_of, overlap
from sens_common.topics import NATIVE_PATTERN

_USUAL_GROUP: Final = "sens"  # in the documentation and the chart


def apart(filters: list[str]) -> list[str]:
    """Return topic filters of which no two match the same topic: a session gets a message once for each filter that matches.

    Raises:
        ValueError: Two of them do; the text names both.
    """
    for first, second in itertools.combinations(filters, 2):
        if overlap(first, second):
            raise ValueError(
                f"{first} and {second} match the same topics, so that messages would be received twice; take one of them out"
            )
    return filters


def earlier_forms(filters: Iterable[str]) -> frozenset[str]:
    """Return what a session may be subscribed to of which nothing is known: the same filters shared or not, and the usual ones."""
    plain = {"/".join(levels_of(each)) for each in [*filters, NATIVE_PATTERN.filter]}
    return frozenset(plain | {f"{SHARE}/{_USUAL_GROUP}/{each}" for each in plain})
