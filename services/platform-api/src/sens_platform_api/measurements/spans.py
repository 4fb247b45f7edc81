"""Time ranges, and the order in which they are read."""

from datetime import datetime
from typing import Literal, NamedTuple

type Order = Literal["asc", "desc"]


class Span(NamedTuple):
    """A time range; the end does not belong to it."""

    start: datetime
    end: datetime

    @property
    def is_empty(self) -> bool:
        """Whether no time is in it."""
        return self.start >= self.end
