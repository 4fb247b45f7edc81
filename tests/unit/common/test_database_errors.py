"""What can be done about the driver's errors."""

import asyncpg
import pytest

from sens_common.database_errors import DRIVER_ERRORS, DatabaseFault, fault_of, words_of_fault
from sens_common.errors import words_of


class TestFaultOf:
    @pytest.mark.parametrize(
        ("fault", "errors"),
        [
            (
                DatabaseFault.TRANSIENT,
                [
                    asyncpg.PostgresConnectionError(),
                    asyncpg.CannotConnectNowError(),
                    asyncpg.AdminShutdownError(),
                    asyncpg.OperatorInterventionError(),
                    asyncpg.TooManyConnectionsError(),
                    asyncpg.DiskFullError(),
                    asyncpg.DeadlockDetectedError(),
                    asyncpg.SerializationError(),
                    asyncpg.LockNotAvailableError(),
                    asyncpg.ReadOnlySQLTransactionError(),
                    asyncpg.InterfaceError("connection is closed"),
                    asyncpg.InternalClientError("got result for unknown protocol state 3"),
                    ConnectionRefusedError(),
                    OSError(),
                ],
            ),
            (
                DatabaseFault.TOO_SLOW,
                [asyncpg.QueryCanceledError(), asyncpg.IdleInTransactionSessionTimeoutError(), TimeoutError()],
            ),
            (DatabaseFault.OUTDATED, [asyncpg.ForeignKeyViolationError()]),
            (
                DatabaseFault.REFUSED,
                [
                    asyncpg.UniqueViolationError(),
                    asyncpg.CheckViolationError(),
                    asyncpg.NumericValueOutOfRangeError(),
                    asyncpg.CharacterNotInRepertoireError(),
                    asyncpg.ProgramLimitExceededError(),
                    asyncpg.RaiseError(),
                ],
            ),
            (
                DatabaseFault.SCHEMA,
                [
                    asyncpg.UndefinedTableError(),
                    asyncpg.UndefinedColumnError(),
                    asyncpg.UndefinedFunctionError(),
                    asyncpg.InvalidSchemaNameError(),
                ],
            ),
            (
                DatabaseFault.FORBIDDEN,
                [
                    asyncpg.InvalidAuthorizationSpecificationError(),
                    asyncpg.InvalidPasswordError(),
                    asyncpg.InvalidCatalogNameError(),
                    asyncpg.InsufficientPrivilegeError(),
                    asyncpg.InvalidRoleSpecificationError(),
                ],
            ),
            (
                DatabaseFault.UNFORESEEN,
                [asyncpg.PostgresSyntaxError(), asyncpg.InternalServerError(), asyncpg.PostgresError(), KeyError()],
            ),
        ],
    )
    def test_by_what_can_be_done(self, fault: DatabaseFault, errors: list[Exception]) -> None:
        assert {type(error).__name__: fault_of(error) for error in errors} == {
            type(error).__name__: fault for error in errors
        }

    @pytest.mark.parametrize(
        ("error", "fault"),
        [
            (asyncpg.InvalidParameterValueError("role does not exist"), DatabaseFault.FORBIDDEN),
            (TimeoutError(), DatabaseFault.TRANSIENT),
            (asyncpg.TooManyConnectionsError(), DatabaseFault.TRANSIENT),
            (asyncpg.InvalidPasswordError(), DatabaseFault.FORBIDDEN),
        ],
    )
    def test_without_a_connection_nothing_speaks_of_data(self, error: Exception, fault: DatabaseFault) -> None:
        assert fault_of(error, connected=False) is fault

    def test_an_argument_that_the_driver_refuses_is_refused(self) -> None:
        class ArgumentError(asyncpg.InterfaceError, ValueError):
            """As the driver's own, which has no public name."""

        assert fault_of(ArgumentError("value out of int32 range")) is DatabaseFault.REFUSED
        assert words_of_fault(ArgumentError("value out of int32 range")) == "value out of int32 range"

    def test_every_error_of_the_driver_can_be_caught(self) -> None:
        raised = [getattr(asyncpg, name) for name in dir(asyncpg) if name.endswith("Error")]

        assert raised
        assert [error for error in raised if not issubclass(error, DRIVER_ERRORS)] == []
        assert issubclass(TimeoutError, DRIVER_ERRORS)


class TestWords:
    def test_a_lost_session_is_called_so(self) -> None:
        error = asyncpg.InternalClientError("got result for unknown protocol state 3")

        assert words_of_fault(error) == "the connection was lost"
        assert words_of_fault(error, connected=False) == "got result for unknown protocol state 3"

    def test_an_error_without_words_is_called_by_its_name(self) -> None:
        assert words_of_fault(ConnectionResetError()) == "ConnectionResetError"

    def test_a_time_out_says_so(self) -> None:
        assert words_of(TimeoutError()) == "no answer in time"

    def test_jetstreams_own_sentence_is_taken(self) -> None:
        class ApiError(Exception):
            description = "maximum bytes exceeded"

        assert words_of(ApiError("nats: code=503 err_code=10077")) == "maximum bytes exceeded"
