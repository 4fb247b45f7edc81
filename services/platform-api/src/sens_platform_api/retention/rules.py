"""What can be kept for a limited time, and for how long: a rule of a tenant, narrower ones of its devices and metrics."""

from datetime import datetime
from enum import StrEnum
from typing import Final, Literal, NamedTuple

MAX_DAYS: Final = 36_500

Kind = Literal["raw", "rollup_1h", "rollup_1d", "dead_letters"]
KINDS: Final[dict[Kind, str]] = {
    "raw": "readings",
    "rollup_1h": "aggregates of hours",
    "rollup_1d": "aggregates of days",
    "dead_letters": "dead letters",
}
"""All of them, and what each is for people."""


class Change(StrEnum):
    """What became of a rule that was set or removed."""

    CHANGED = "changed"
    UNCHANGED = "unchanged"
    UNKNOWN_DEVICE = "unknown_device"
    SHORTER_THAN_LATE_DAYS = "shorter_than_late_days"


class Rule(NamedTuple):
    """How long something is kept. The narrowest rule counts: of a metric of a device, of the device, of the metric, of the tenant.

    Attributes:
        kind: What is kept.
        device: Of one device, None for all that have no rule of their own.
        metric: Of one metric, None for all that have no rule of their own.
        days: For how many days at least; None for ever.
    """

    kind: Kind
    device: str | None
    metric: str | None
    days: int | None


class Progress(NamedTuple):
    """How far the deletion of what is older is. It begins again every hour, and after a change.

    Attributes:
        started_at: When it last began, None if it never did.
        finished_at: When nothing was left to delete, None while there is.
        values: Values deleted because of their age, since ever.
        rollups: Aggregates deleted because of their age, since ever.
        dead_letters: Dead letters deleted because of their age, since ever.
    """

    started_at: datetime | None
    finished_at: datetime | None
    values: int
    rollups: int
    dead_letters: int


class Sizes(NamedTuple):
    """Bytes on disk, about.

    Attributes:
        readings: With their index.
        rollups: Likewise.
        dead_letters: Payloads, topics and details.
        measured_at: When the oldest part of the estimate was made, None before the first.
    """

    readings: int
    rollups: int
    dead_letters: int
    measured_at: datetime | None


class Retention(NamedTuple):
    """A tenant's rules, and the deletion of what is older.

    Attributes:
        rules: All of them; what has none is kept for ever.
        late_days: How far back a reading may lie; readings are kept for as long at least.
        progress: Of the deletion.
        sizes: What it all takes on disk.
    """

    rules: list[Rule]
    late_days: int
    progress: Progress
    sizes: Sizes
