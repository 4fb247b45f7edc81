"""What a check says: a sentence when all is well, else one of two errors."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum


class Status(StrEnum):
    """How a check ended."""

    OK = "ok"
    FAILED = "failed"
    NOT_RUN = "not run"


class CheckFailedError(Exception):
    """What was checked is not as it should be.

    Attributes:
        detail: What was found.
        remedy: What to do.
    """

    def __init__(self, detail: str, remedy: str) -> None:
        super().__init__(detail)
        self.detail = detail
        self.remedy = remedy


class NotRunError(Exception):
    """The check could not be made, so that nothing is known; the text says why."""


type Check = Callable[[], Awaitable[str]]
"""Returns what it found when all is well; raises `CheckFailedError` or `NotRunError`."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one check ended.

    Attributes:
        name: Of the check.
        status: How it ended.
        detail: What was found, or why it was not run.
        remedy: What to do about a failure, else None.
        seconds: How long it took.
    """

    name: str
    status: Status
    detail: str
    remedy: str | None
    seconds: float
