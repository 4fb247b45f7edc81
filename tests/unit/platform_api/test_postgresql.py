"""What the driver's errors become at the edge."""

import asyncpg
import pytest

from sens_common.errors import SchemaError, UnavailableError
from sens_platform_api.errors import NumberTooLargeError, TooSlowError
from sens_platform_api.postgresql import translated_errors


class TestErrorsOfTheDriver:
    @pytest.mark.parametrize(
        ("error", "expected"),
        [
            (TimeoutError(), TooSlowError),
            (asyncpg.QueryCanceledError("statement timeout"), TooSlowError),
            (asyncpg.UndefinedTableError("no table"), SchemaError),
            (asyncpg.UndefinedColumnError("no column"), SchemaError),
            (asyncpg.NumericValueOutOfRangeError("out of range"), NumberTooLargeError),
            (asyncpg.ConnectionDoesNotExistError("closed"), UnavailableError),
            (asyncpg.InterfaceError("the connection is closed"), UnavailableError),
            (asyncpg.InternalClientError("unexpected state"), UnavailableError),
            (asyncpg.ReadOnlySQLTransactionError("read-only"), UnavailableError),
            (asyncpg.InsufficientPrivilegeError("permission denied"), UnavailableError),
            (asyncpg.AdminShutdownError("shutting down"), UnavailableError),
            (asyncpg.DeadlockDetectedError("deadlock"), UnavailableError),
            (ConnectionResetError(), UnavailableError),
        ],
    )
    def test_become_those_of_the_edge(self, error: Exception, expected: type[Exception]) -> None:
        with pytest.raises(expected), translated_errors():
            raise error

    def test_of_getting_a_connection_all_say_that_the_database_can_not_be_used(self) -> None:
        for error in (TimeoutError(), asyncpg.InvalidParameterValueError('role "sens_api" does not exist')):
            with (
                pytest.raises(UnavailableError, match="the database can't be used"),
                translated_errors(connected=False),
            ):
                raise error

    @pytest.mark.parametrize("error", [asyncpg.UniqueViolationError("a fault"), ValueError("of this program")])
    def test_that_are_faults_of_this_program_pass(self, error: Exception) -> None:
        with pytest.raises(type(error)), translated_errors():
            raise error
