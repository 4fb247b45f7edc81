"""The nouns of what the database has registered: tenants, their devices and metrics, and why a name is not registered."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple, Self

from msgspec import Struct

from sens_common.formats import MetricKind, Value
from sens_payloads.profiles import Profile
from sens_payloads.sources import Source

ERASED: Final = "erased"
"""The reason of messages that are not stored, and not kept as dead letters either: what is stored of their device was erased since."""

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
        refusal: Why nothing more of it is stored, None where it is.
    """

    id: int
    name: str
    metric_ids: dict[MetricKind, dict[str, int]] = field(
        default_factory=lambda: {"number": {}, "boolean": {}, "text": {}}
    )
    late_microseconds: int = DEFAULT_LATE_MICROSECONDS
    refusal: "Refusal | None" = None

    def unknown(self, metrics: Iterable[tuple[str, MetricKind]]) -> frozenset[tuple[str, MetricKind]]:
        """Return those of the metrics whose ids are not known."""
        return frozenset((name, kind) for name, kind in metrics if name not in self.metric_ids[kind])


class Device(NamedTuple):
    """A registered device.

    Attributes:
        id: Its id.
        name: Canonical.
        tenant: Its tenant.
        erased_before: Messages that were received before it are not stored any more, microseconds since the epoch.
    """

    id: int
    name: str
    tenant: Tenant
    erased_before: int = 0


class SourceOfTenant(NamedTuple):
    """A tenant's source.

    Attributes:
        tenant: Whose it is.
        source: What it is.
        assigned: The profiles that somebody has chosen for the tenant's devices, by their names.
        id: Of the source.
        keep_days: For how many days its messages are kept, None: not at all.
    """

    tenant: Tenant
    source: Source
    assigned: Mapping[str, Profile]
    id: int = 0
    keep_days: int | None = None

    def profile(self, device: str) -> Profile | None:
        """Return the profile of a device: the one that somebody has chosen, or by the source's rules."""
        return (self.assigned and self.assigned.get(device)) or self.source.profile(device)


class UplinkReading(Struct, frozen=True, gc=False):
    """What an uplink in a message of a source says.

    Attributes:
        message_index: Index of the message in its batch.
        device: That sent it.
        measured_at: Microseconds since the epoch.
        values: By the names of their metrics.
        is_historical: Whether it was measured before what is known already.
    """

    message_index: int
    device: Device
    measured_at: int
    values: Mapping[str, Value | int]
    is_historical: bool = False


class KeptMessage(NamedTuple):
    """A message of a source that keeps its messages.

    Attributes:
        source_id: Of its source.
        keep_days: For how many days it is kept.
        codecs: What has decoded the bytes of its devices, by their ids; None where nothing has.
    """

    source_id: int
    keep_days: int
    codecs: dict[int, str | None]


class MetricSet(NamedTuple):
    """Which metrics a reading has values of, and where in its arrays; equal sets are one.

    Attributes:
        tenant_id: Id of the metrics' tenant.
        number_ids: Ids of the metrics of kinds number and boolean, ascending.
        text_ids: Ids of the metrics of kind text, ascending.
    """

    tenant_id: int
    number_ids: tuple[int, ...]
    text_ids: tuple[int, ...]

    @classmethod
    def of(cls, tenant_id: int, number_ids: Iterable[int], text_ids: Iterable[int]) -> Self:
        """Return the set of these metrics, in whatever order and how often they are named."""
        return cls(tenant_id, tuple(sorted(set(number_ids))), tuple(sorted(set(text_ids))))

    @property
    def metric_ids(self) -> tuple[int, ...]:
        """Ids of all its metrics."""
        return self.number_ids + self.text_ids

    def contains(self, other: "MetricSet") -> bool:
        """Tell whether all metrics of the other set are in this one."""
        return set(self.metric_ids).issuperset(other.metric_ids)


def union_of(sets: Sequence[MetricSet]) -> MetricSet:
    """Return the set of all metrics of some sets of a tenant."""
    first = sets[0]
    if all(each == first for each in sets):
        return first
    return MetricSet.of(
        first.tenant_id,
        [metric_id for each in sets for metric_id in each.number_ids],
        [metric_id for each in sets for metric_id in each.text_ids],
    )


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
