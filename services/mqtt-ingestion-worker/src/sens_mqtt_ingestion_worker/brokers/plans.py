"""Which sessions at brokers of tenants' own there are to be: the sources of a tenant that name the same broker share one."""

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from sens_common.brokers import Address, Broker, address_of, client_id_of
from sens_common.source_states import SourceState, failed
from sens_common.tenant_limits import MqttSource
from sens_mqtt_ingestion_worker.brokers.reaching import allowed_by
from sens_mqtt_ingestion_worker.pipeline import SourceUnavailableError


class Plan(NamedTuple):
    """A session, as the sources want it.

    Attributes:
        tenant: Whose it is.
        address: Where the broker is.
        client_id: The session's name there.
        broker: What the sources say of it.
        sources: On it.
    """

    tenant: str
    address: Address
    client_id: str
    broker: Broker
    sources: tuple[MqttSource, ...]

    @property
    def key(self) -> str:
        """Identifies the session: what the broker and the stream know of it hangs on these."""
        return f"{self.tenant}/{self.address}/{self.client_id}"

    @property
    def words(self) -> str:
        """Say which it is."""
        session = f" as {self.client_id}" if self.broker.client_id is not None else ""
        return f"broker {self.address} of tenant {self.tenant}{session}"


class Plans(NamedTuple):
    """All sessions by their keys, and the sources that can have none, by tenant and name."""

    sessions: dict[str, Plan]
    refused: dict[str, dict[str, SourceState]]


def plans(sources: Mapping[str, Collection[MqttSource]], allowed_hosts: Sequence[str]) -> Plans:
    """Return the sessions that sources need; those on the platform's broker need none, and those at hosts that are not allowed get none.

    Args:
        sources: By tenant.
        allowed_hosts: Patterns of hosts.
    """
    sessions: dict[str, Plan] = {}
    refused: dict[str, dict[str, SourceState]] = {}
    for tenant, of_tenant in sources.items():
        for source in sorted(of_tenant, key=lambda each: each.name):
            if source.broker is None:
                continue
            try:
                address = address_of(source.broker.url)
                allowed_by(allowed_hosts, address)
            except SourceUnavailableError as error:
                refused.setdefault(tenant, {})[source.name] = failed(error.reason, str(error))
                continue
            except ValueError as error:
                refused.setdefault(tenant, {})[source.name] = failed("not_subscribed", str(error))
                continue
            plan = Plan(tenant, address, client_id_of(tenant, source.broker), source.broker, (source,))
            before = sessions.setdefault(plan.key, plan)
            if before.broker != plan.broker:
                refused.setdefault(tenant, {})[source.name] = failed(
                    "not_subscribed",
                    f"source {before.sources[0].name} has the same session ({plan.client_id}) with other settings",
                )
            elif before is not plan:
                sessions[plan.key] = before._replace(sources=(*before.sources, source))
    return Plans(sessions, refused)
