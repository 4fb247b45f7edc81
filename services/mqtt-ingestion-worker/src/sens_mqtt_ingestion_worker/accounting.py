"""How many messages of each tenant an envelope speaks for: the numbers of its headers, see `sens_common.envelope.RECEIVED_HEADER`."""

from collections.abc import Collection, Mapping

from sens_common.names import UNROUTED


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
