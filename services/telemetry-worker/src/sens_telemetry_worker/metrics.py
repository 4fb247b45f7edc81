"""Metrics of the telemetry worker.

For every tenant and window: received = stored + duplicate + dead-lettered + discarded + without measurements.
"""

from prometheus_client import Counter, Gauge, Histogram

UNKNOWN_TENANT = "~"
"""Value of the label `tenant` for messages of no registered tenant; the label is bounded by the tenants that an operator made."""

RECEIVED = Counter(
    "sens_telemetry_messages_received_total",
    "Messages of settled envelopes, those included that were discarded before they came to the stream.",
    ["tenant"],
)
STORED = Counter("sens_telemetry_messages_stored_total", "Messages of which at least one value was new.", ["tenant"])
DUPLICATE = Counter(
    "sens_telemetry_messages_duplicate_total", "Messages whose values were all stored before.", ["tenant"]
)
DEAD_LETTERED = Counter(
    "sens_telemetry_messages_dead_lettered_total", "Messages in the dead letters.", ["tenant", "reason"]
)
REJECTED_TENANTS = Gauge(
    "sens_telemetry_rejected_tenants_count", "Tenants of whose recent messages nearly all are dead-lettered."
)
DISCARDED = Counter(
    "sens_telemetry_messages_discarded_total",
    "Messages that were kept nowhere: over their tenant's rate, or without room among its dead letters.",
    ["tenant"],
)
WITHOUT_MEASUREMENTS = Counter(
    "sens_telemetry_messages_without_measurements_total",
    "Messages that carry no measurements by their nature: joins, acknowledgements, simulated uplinks.",
    ["tenant"],
)
REPLAYED = Counter(
    "sens_telemetry_letters_explained_total",
    "Dead letters that the worker has replayed because the birth of Sparkplug B that explains them has come.",
    ["tenant"],
)
CODEC_FRAMES = Counter(
    "sens_telemetry_codec_frames_total",
    "Devices' frames given to tenants' codecs: decoded; error (the codec fails); limit (it took too much time or memory, or is not run for a while"
    " because it did so too often); refused (its values can't be stored); unavailable (no codec can run here).",
    ["outcome"],
)
CODEC_SECONDS = Histogram(
    "sens_telemetry_codec_seconds",
    "For how long a batch's frames of one tenant and codec were decoded, waiting for the codec's process included.",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10),
)
CODEC_PROCESSES_ENDED = Counter(
    "sens_telemetry_codec_processes_ended_total",
    "Processes of codecs that ended: idle; room (another tenant needed the place); replaced (after 10 minutes of CPU time); fault (crashed, hung or"
    " wrote nonsense); killed (by the system, or without a turn); overrun (amid a batch that took too long); stopped (with the worker).",
    ["outcome"],
)
VALUES = Counter("sens_telemetry_values_stored_total", "New values stored.", ["tenant"])
LIVE_DROPPED = Counter(
    "sens_telemetry_live_readings_dropped_total",
    "Live readings left out because they were too many at once or NATS took none; the watchers are told how many.",
    ["tenant"],
)
DEVICES = Counter("sens_telemetry_devices_registered_total", "Devices registered with their first message.")
BATCHES = Counter("sens_telemetry_batches_stored_total", "Batches by how they were stored.", ["path"])
STORE_RETRIES = Counter("sens_telemetry_store_retries_total", "Attempts to store a batch that had to be repeated.")
LAG = Gauge("sens_telemetry_stream_pending_envelopes_count", "Envelopes in the stream that no worker has taken yet.")
UNACKNOWLEDGED = Gauge(
    "sens_telemetry_stream_unacknowledged_envelopes_count", "Envelopes taken and not yet settled, all workers."
)
STREAM_BYTES = Gauge("sens_telemetry_stream_size_bytes", "Size of the stream.")
STREAM_FILLED = Gauge(
    "sens_telemetry_stream_filled_ratio", "Size of the stream as a share of its limit; at 1 it takes nothing."
)
DEAD_LETTERS = Gauge("sens_telemetry_dead_letters_count", "Dead letters in the database.", ["tenant"])
DEAD_LETTERS_FILLED = Gauge(
    "sens_telemetry_dead_letters_filled_ratio",
    "Dead letters as a share of the tenant's quota of count or size, whichever is fuller; at 1 payloads are shortened, or messages discarded.",
    ["tenant"],
)
UNACCOUNTED = Gauge(
    "sens_telemetry_unaccounted_messages_count",
    "Messages of the last week that were received and have no outcome, or the reverse; must be 0.",
)
OLDEST_SECONDS = Gauge(
    "sens_telemetry_stream_oldest_unsettled_seconds",
    "Age of the oldest envelope in the stream that is not settled, 0 without one.",
)
LANES = Gauge("sens_telemetry_lanes_count", "Lanes by their state.", ["state"])
LANE_SECONDS = Gauge(
    "sens_telemetry_lane_state_seconds",
    "For how long the longest lane has been in this state without a break.",
    ["state"],
)
ROLLUP_LAG = Gauge(
    "sens_telemetry_rollup_lag_seconds",
    "For how long the oldest hour has been waiting that is over and settled, or has changed, and is not in the rollups.",
)
ROLLUP_CHANGES = Gauge(
    "sens_telemetry_rollup_changes_count",
    "Changes of readings that the rollups do not have yet: late readings, deletions.",
)
STORE_SECONDS = Histogram(
    "sens_telemetry_store_seconds",
    "From the first statement of a batch to its commit, retries included.",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60),
)
VISIBLE_SECONDS = Histogram(
    "sens_telemetry_receipt_to_commit_seconds",
    "From the receipt of a batch's oldest message by the ingestion worker to the commit.",
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60, 600, 3600),
)
