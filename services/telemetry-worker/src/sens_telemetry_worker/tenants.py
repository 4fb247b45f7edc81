"""The nouns of what the database has registered: tenants, their devices and metrics, and why a name is not registered."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple

MetricKind = Literal["number", "boolean", "text"]

KINDS: Final[dict[type, MetricKind]] = {float: "number", int: "number", bool: "boolean", str: "text"}

DEFAULT_LATE_MICROSECONDS: Final = 400 * 86_400_000_000
"""What a new tenant has, in the database too."""


@dataclass(slots=True)
class Tenant:
    """A tenant, and what is known of its metrics: their ids by name, for each kind.

    Attributes:
        id: Its id.
        name: As in the topics.
        metric_ids: Of those metrics that were seen.
        late_microseconds: How far before its receipt a reading may lie.
    """

    id: int
    name: str
    metric_ids: dict[MetricKind, dict[str, int]] = field(
        default_factory=lambda: {"number": {}, "boolean": {}, "text": {}}
    )
    late_microseconds: int = DEFAULT_LATE_MICROSECONDS

    def unknown(self, metrics: Iterable[tuple[str, MetricKind]]) -> frozenset[tuple[str, MetricKind]]:
        """Return those of the metrics whose ids are not known."""
        return frozenset((name, kind) for name, kind in metrics if name not in self.metric_ids[kind])


class Device(NamedTuple):
    """A registered device."""

    id: int
    name: str
    tenant: Tenant


class NewMetrics(NamedTuple):
    """Metrics of one message whose ids are not known: all of them are registered, or none."""

    tenant: Tenant
    metrics: frozenset[tuple[str, MetricKind]]


class Refusal(NamedTuple):
    """Why a topic leads to no device, or a metric is not registered: a dead letter's reason and detail."""

    reason: str
    detail: str


type DeviceKey = tuple[int, str]
"""A device by its tenant's id and its name."""
type MetricKey = tuple[int, str, MetricKind]
"""A metric by its tenant's id, its name and its kind."""


class RegisteredDevices(NamedTuple):
    """What became of devices that were asked for.

    Attributes:
        ids: Their ids.
        refusals: Why others are not registered: the tenant's limits leave no room for them.
    """

    ids: dict[DeviceKey, int]
    refusals: dict[DeviceKey, Refusal]


class RegisteredMetrics(NamedTuple):
    """What became of metrics that were asked for.

    Attributes:
        ids: Their ids.
        refusals: Why others are not registered.
    """

    ids: dict[MetricKey, int]
    refusals: dict[MetricKey, Refusal]
