"""What can go wrong, and what the edge needs to know of it.

::

    SensError                       what happened, where, what to do; `exit_code` for programs
    ├── SettingsError               a setting is missing or wrong: names the variable and what it accepts
    ├── UnavailableError            a server can't be reached or refuses us; trying again may help
    ├── StoppedError                told to stop while starting: no failure
    ├── SchemaError                 the database's schema can't be used or brought up to date
    └── RejectedMessageError        a message that can't be decoded or stored: `reason` is its dead-letter reason
"""

from typing import ClassVar


class SensError(Exception):
    """An error whose text is meant for people."""

    exit_code: ClassVar[int] = 1


class SettingsError(SensError):
    """A setting is missing or wrong."""

    exit_code = 78  # EX_CONFIG, sysexits(3)


class UnavailableError(SensError):
    """A server can't be reached or refuses us; trying again may help."""

    exit_code = 69  # EX_UNAVAILABLE, sysexits(3)


class StoppedError(SensError):
    """A service was told to stop while it waited for something it needs."""

    exit_code = 0


class SchemaError(SensError):
    """The database's schema can't be used or brought up to date."""

    exit_code = 70  # EX_SOFTWARE, sysexits(3)


class RejectedMessageError(SensError):
    """A message that goes to the dead letters.

    Attributes:
        reason: One of `sens_common.dead_letters.Reason`.
        detail: A sentence for the person who looks at the dead letter.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


def words_of(error: BaseException) -> str:
    """Return what an error says, for people; never an empty text.

    >>> words_of(TimeoutError()), words_of(ConnectionResetError()), words_of(ValueError("too short"))
    ('no answer in time', 'ConnectionResetError', 'too short')
    """
    # JetStream's errors name themselves in full and carry their sentence as `description`.
    description = getattr(error, "description", None)
    silent = "no answer in time" if isinstance(error, TimeoutError) else type(error).__name__
    return str(description or error) or silent
