"""One classification of asyncpg's errors, by the remedy.

SQLSTATE codes and their classes are those of the PostgreSQL documentation, appendix A.
"""

from enum import StrEnum
from typing import Final

import asyncpg

from sens_common.errors import words_of

DRIVER_ERRORS: Final = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)
"""Everything that connecting or a statement raises for what the server or the network does; a `TimeoutError` is an `OSError`."""


class DatabaseFault(StrEnum):
    """The kinds of errors, each with its remedy."""

    TRANSIENT = "transient"
    """The server can't be reached, or can't work just now: the same can be tried again, and helps once its state has changed."""
    TOO_SLOW = "too_slow"
    """A statement took longer than it may: the same can be tried again, and less at once may be faster."""
    OUTDATED = "outdated"
    """What the rows refer to was deleted meanwhile: read it again, then try again."""
    REFUSED = "refused"
    """The data is refused for what they are: trying the same again does not help."""
    SCHEMA = "schema"
    """A table, a column, or a function is missing: work halts until the migrations have run."""
    FORBIDDEN = "forbidden"
    """The login, its role, a right or the database is missing or wrong: work halts until somebody has changed that."""
    UNFORESEEN = "unforeseen"
    """Anything else that the server refuses: a fault of this program, or of the server."""


_BY_STATE: Final = {
    "57014": DatabaseFault.TOO_SLOW,  # query_canceled: statement_timeout, or somebody cancelled it
    "25P03": DatabaseFault.TOO_SLOW,  # idle_in_transaction_session_timeout
    "23503": DatabaseFault.OUTDATED,  # foreign_key_violation
    "25006": DatabaseFault.TRANSIENT,  # read_only_sql_transaction: a standby, or a server that is being replaced
    "55P03": DatabaseFault.TRANSIENT,  # lock_not_available
    "42501": DatabaseFault.FORBIDDEN,  # insufficient_privilege
    "42P01": DatabaseFault.SCHEMA,  # undefined_table
    "42703": DatabaseFault.SCHEMA,  # undefined_column
    "42704": DatabaseFault.SCHEMA,  # undefined_object
    "42883": DatabaseFault.SCHEMA,  # undefined_function
}
_BY_CLASS: Final = {
    "08": DatabaseFault.TRANSIENT,  # connection exception
    "40": DatabaseFault.TRANSIENT,  # transaction rollback: serialization, deadlock
    "53": DatabaseFault.TRANSIENT,  # insufficient resources
    "57": DatabaseFault.TRANSIENT,  # operator intervention
    "58": DatabaseFault.TRANSIENT,  # system error
    "22": DatabaseFault.REFUSED,  # data exception
    "23": DatabaseFault.REFUSED,  # integrity constraint violation
    "54": DatabaseFault.REFUSED,  # program limit exceeded
    "P0": DatabaseFault.REFUSED,  # raised by a function or a trigger
    "3F": DatabaseFault.SCHEMA,  # invalid schema name
    "0L": DatabaseFault.FORBIDDEN,  # invalid grantor
    "0P": DatabaseFault.FORBIDDEN,  # invalid role specification
    "28": DatabaseFault.FORBIDDEN,  # invalid authorization specification
    "3D": DatabaseFault.FORBIDDEN,  # invalid catalog name
}


def fault_of(error: BaseException, *, connected: bool = True) -> DatabaseFault:
    """Return the kind of one of `DRIVER_ERRORS`; `UNFORESEEN` for any other error.

    Args:
        error: What was raised.
        connected: Whether it was raised while a connection was in use. While one is being opened, or waited for, nothing speaks of data:
            what else would be refused data speaks of the login and its role, and a time-out says that the server can't be reached.
    """
    if isinstance(error, asyncpg.PostgresError):
        state = str(error.sqlstate or "")
        fault = _BY_STATE.get(state) or _BY_CLASS.get(state[:2], DatabaseFault.UNFORESEEN)
        if connected:
            return fault
        return DatabaseFault.FORBIDDEN if fault is DatabaseFault.REFUSED else fault
    if isinstance(error, asyncpg.InterfaceError) and isinstance(
        error, ValueError
    ):  # an argument of the statement, or of the connection
        return DatabaseFault.REFUSED if connected else DatabaseFault.FORBIDDEN
    if isinstance(error, TimeoutError):
        return DatabaseFault.TOO_SLOW if connected else DatabaseFault.TRANSIENT
    if isinstance(error, (asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)):
        return DatabaseFault.TRANSIENT
    return DatabaseFault.UNFORESEEN


def words_of_fault(error: BaseException, *, connected: bool = True) -> str:
    """Return what one of `DRIVER_ERRORS` says, for people.

    The driver's words for a session that ended in the middle of something speak of its inner state; they are replaced.
    """
    is_of_session = isinstance(error, (asyncpg.InterfaceError, asyncpg.InternalClientError))
    if connected and is_of_session and fault_of(error) is DatabaseFault.TRANSIENT:
        return "the connection was lost"
    return words_of(error)
