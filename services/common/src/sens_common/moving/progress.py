"""How far the move is, in words."""

from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

from sens_common.database import Connection

_READ: Final = """
    SELECT p.moved_values, p.share, p.noted_at FROM sens.move_progress p WHERE EXISTS (SELECT FROM sens.former_devices)
"""
_LEFT_ALONE: Final = timedelta(minutes=1)
_MINUTE: Final = 60
_HOUR: Final = 3600


class MoveProgress(NamedTuple):
    """How far a move is that is under way.

    Attributes:
        moved_values: How many values are moved.
        share: Of the work that is done, 0 to 1.
        values_per_second: How fast this run is, 0 as long as that is not known.
        seconds_left: How long it will take at this speed, None as long as that is not known.
    """

    moved_values: int
    share: float
    values_per_second: float
    seconds_left: float | None

    def __str__(self) -> str:
        """Return it as a line for people."""
        text = f"{self.share:.1%} of the measurements moved, {self.moved_values:,} values"
        if self.values_per_second:
            text += f", {self.values_per_second:,.0f} values/s"
        if self.seconds_left is not None:
            text += f", about {duration(self.seconds_left)} left"
        return text


def duration(seconds: float) -> str:
    """Return a duration in the largest unit of which it has two.

    >>> duration(90), duration(7199), duration(20_000)
    ('90 s', '119 min', '5.6 h')
    """
    if seconds < 2 * _MINUTE:
        return f"{seconds:.0f} s"
    if seconds < 2 * _HOUR:
        return f"{seconds // _MINUTE:.0f} min"
    return f"{seconds / _HOUR:.1f} h"


async def unfinished_move(connection: Connection) -> str | None:
    """Return, for people, that measurements are still being moved and how far that is; None when all are."""
    row = await connection.fetchrow(_READ)
    if row is None:
        return None
    text = (
        f"measurements of an earlier version are being moved ({row['share']:.1%}, {row['moved_values']:,} values);"
        " until that is done nothing is stored, and messages wait in the stream"
    )
    idle = datetime.now(UTC) - row["noted_at"]
    if idle > _LEFT_ALONE:
        text += f"; nothing has gone on for {duration(idle.total_seconds())}: run sens migrate (the chart's Job move)"
    return text
