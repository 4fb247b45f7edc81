"""A telemetry worker's pipeline of parts in memory, or of some real ones."""

from typing import Final

from sens_common.attempts import Backoff
from sens_telemetry_worker.batch import Envelope
from sens_telemetry_worker.batch_building import BatchBuilder
from sens_telemetry_worker.decoders import decoder
from sens_telemetry_worker.guard import DeadLetterGuard
from sens_telemetry_worker.interpreting import Registry
from sens_telemetry_worker.live import LiveFeed, LivePublisher
from sens_telemetry_worker.pipeline import Inbox, Pipeline
from sens_telemetry_worker.status import TelemetryStatus
from sens_telemetry_worker.storing import Store
from sens_telemetry_worker.tenants import Tenant
from support.memory import MemoryFeed, MemoryRegistry, MemoryStore

NO_PAUSES: Final = Backoff(0, 0)


def pipeline_of[E: Envelope](
    inbox: Inbox[E],
    *,
    registry: Registry | None = None,
    builder: BatchBuilder | None = None,
    guard: DeadLetterGuard | None = None,
    store: Store | None = None,
    feed: LiveFeed | None = None,
    status: TelemetryStatus | None = None,
) -> Pipeline[E]:
    """Return a pipeline of the native format that pauses between no attempts; the tenant demo exists, unless a registry is given."""
    payload_format = decoder("native")
    return Pipeline(
        inbox,
        builder=builder or BatchBuilder(registry or MemoryRegistry({"demo": Tenant(1, "demo")}), payload_format),
        guard=guard or DeadLetterGuard(1, 10),
        store=store or MemoryStore(),
        live=LivePublisher(feed or MemoryFeed(set()), payload_format),
        status=status or TelemetryStatus(),
        backoff=NO_PAUSES,
    )
