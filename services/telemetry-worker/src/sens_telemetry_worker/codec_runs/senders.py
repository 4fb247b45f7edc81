"""The sources of a tenant that messages come from."""

from collections.abc import Mapping

from sens_common.topics import SOURCES
from sens_telemetry_worker.tenants import SourceOfTenant, Tenant
from sens_telemetry_worker.topic_resolving import KnownNames


def senders_of(names: KnownNames, tenant: Tenant) -> dict[int, SourceOfTenant]:
    """Return the sources of a tenant that can be used, by their ids, in the order of these."""
    found = [each for each in names.sources.values() if isinstance(each, SourceOfTenant) and each.tenant is tenant]
    return {each.id: each for each in sorted(found, key=lambda each: each.id)}


def sender_of(topic: str, tenant: str, senders: Mapping[int, SourceOfTenant]) -> SourceOfTenant | None:
    """Return the one of a tenant's sources that a message's topic leads to, None where it leads to none of them."""
    if not topic.startswith(f"{SOURCES.root}{tenant}/"):
        return None
    route = SOURCES.route(topic)
    if route is None:
        return None
    return next((each for each in senders.values() if each.source.name == route.source), None)
