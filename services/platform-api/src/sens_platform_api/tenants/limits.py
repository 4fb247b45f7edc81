"""The limits of a tenant: what each is called, what it accepts, and what it means."""

from typing import Final, NamedTuple


class Limit(NamedTuple):
    """A limit that the administration may change.

    Attributes:
        name: As in options and answers, without hyphens.
        column: Of ``sens.tenants``.
        least: Smallest value.
        most: Largest value.
        may_be_none: Whether there may be no limit.
        meaning: For people.
    """

    name: str
    column: str
    least: int
    most: int
    may_be_none: bool
    meaning: str

    @property
    def option(self) -> str:
        """The option of the command."""
        return f"--{self.name.replace('_', '-')}"


_MOST: Final = 2**31 - 1

LIMITS: Final = (
    Limit("devices", "device_limit", 0, _MOST, False, "devices"),
    Limit("new_devices_per_hour", "new_devices_per_hour", 0, _MOST, False, "new devices in an hour of the clock"),
    Limit("metrics", "metric_limit", 0, _MOST, False, "metrics"),
    Limit("new_metrics_per_hour", "new_metrics_per_hour", 0, _MOST, False, "new metrics in an hour of the clock"),
    Limit(
        "messages_per_second",
        "messages_per_second",
        1,
        _MOST,
        True,
        "messages a second; more are acknowledged and discarded, counted, with an alert",
    ),
    Limit("late_days", "late_days", 1, 36_500, False, "days that a reading may lie before its receipt"),
    Limit(
        "import_late_days",
        "import_late_days",
        1,
        36_500,
        True,
        "days that a reading of an import may lie back, where that is more than late-days",
    ),
    Limit("dead_letters", "dead_letter_count_limit", 0, _MOST, False, "dead letters"),
    Limit("dead_letter_bytes", "dead_letter_byte_limit", 0, 2**63 - 1, False, "bytes of dead letters"),
    Limit(
        "stored_bytes",
        "stored_byte_limit",
        0,
        2**63 - 1,
        True,
        "bytes that readings and aggregates take on disk, about; what comes beyond goes to the dead letters",
    ),
)
"""All of them, in the order in which they are shown."""
