"""How many messages of each tenant an envelope speaks for: the numbers of its headers, see `sens_common.envelope.RECEIVED_HEADER`."""

import functools
from collections import Counter
from collections.abc import Collection, Mapping
from typing import Final

from sens_common.names import UNROUTED, native_route

_ROOT: Final = "sens/v1/"
_QUICK_TENANTS: Final = 4
"""So many tenants' messages are counted in one go each, which costs a quarter of looking at every topic."""


def tenant_of(topic: str) -> str:
    """Return the tenant that a topic names, whatever follows it; `names.UNROUTED` where it names none.

    >>> tenant_of("sens/v1/demo/Küche/telemetry"), tenant_of("tele/kitchen/SENSOR")
    ('demo', '~')
    """
    return _tenant_below(_beginning(topic))


def count_by_tenant(topics: list[str]) -> dict[str, int]:
    """Return how many of the topics each tenant has."""
    counts: Counter[str] = Counter()
    for _ in range(_QUICK_TENANTS):
        beginning = _beginning(topics[0]) if topics else ""
        if not beginning:
            break
        others = [topic for topic in topics if not topic.startswith(beginning)]
        counts[_tenant_below(beginning)] += len(topics) - len(others)
        topics = others
    for beginning, count in Counter(map(_beginning, topics)).items():
        counts[_tenant_below(beginning)] += count
    return dict(counts)


def fitted(counts: Mapping[str, int], known: Collection[str], max_bytes: int) -> dict[str, int]:
    """Return the numbers with as many names as fit into a header; those of the other tenants stand under `names.UNROUTED`.

    Anybody can make up names, so the tenants that are known come first, and then those with the most messages.

    Args:
        counts: Messages by tenant.
        known: Names of tenants that exist.
        max_bytes: Room for the numbers as JSON; at least 32.
    """
    if 2 + sum(map(_size, counts, counts.values())) <= max_bytes:
        return dict(counts)
    kept: dict[str, int] = {}
    others = 0
    left = max_bytes - 2 - _size(UNROUTED, sum(counts.values()))
    for tenant, count in sorted(counts.items(), key=lambda item: (item[0] not in known, -item[1])):
        left -= _size(tenant, count)
        if tenant == UNROUTED or left < 0:
            others += count
        else:
            kept[tenant] = count
    return kept | {UNROUTED: others}


def _size(tenant: str, count: int) -> int:
    return len(tenant) + len(str(count)) + 4  # quotes, colon, comma


def _beginning(topic: str) -> str:
    """Return a topic up to the slash after its third level, empty when it is no topic of a tenant."""
    return topic[: topic.find("/", len(_ROOT)) + 1] if topic.startswith(_ROOT) else ""


@functools.lru_cache(1024)
def _tenant_below(beginning: str) -> str:
    return native_route(f"{beginning}device/telemetry")[0] or UNROUTED
