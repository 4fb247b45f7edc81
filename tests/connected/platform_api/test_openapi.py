"""The running API and its OpenAPI document agree, for any input, right or wrong."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import CheckFunction
from schemathesis.specs.openapi.checks import positive_data_acceptance

from sens_platform_api.app import openapi_document
from support.api import RunningApi, store
from support.depth import tries
from support.letters import dead_letter, put_dead_letters
from support.stored_rows import Value

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def key(api: RunningApi) -> str:
    """A key of a tenant that has something of everything."""
    tenant, key = api.new_tenant()
    minutes = [NOW + timedelta(minutes=minute) for minute in range(5)]
    values: list[tuple[str, Value]] = [("t", 21.5), ("door", True), ("firmware", "1.2")]
    store(
        api.database,
        tenant,
        [("sensor-0001", metric, time, value) for time in minutes for metric, value in values],
    )
    put_dead_letters(api.database, [dead_letter(tenant=tenant) for _ in range(20)])
    return key


# A cursor is a text that the API made, and times and aggregates have to fit each other.
NOT_SAID_BY_A_SCHEMA: list[CheckFunction] = [positive_data_acceptance]


@pytest.fixture(scope="module")
def document() -> "schemathesis.BaseSchema":
    """The API's document."""
    schema = schemathesis.openapi.from_dict(openapi_document())
    # Wrong input that is too long is refused for its length (RFC 6585, section 5), which schemathesis does not count as a refusal.
    schema.config.checks.negative_data_rejection.expected_statuses = [
        *schema.config.checks.negative_data_rejection.expected_statuses,
        "431",
    ]
    return schema


@pytest.fixture(autouse=True)
def _id_of_the_test(request: pytest.FixtureRequest) -> None:
    """Schemathesis 4.32 names operations in an attribute that tests of pytest 9.2 have no more."""
    request.node._nodeid = request.node.nodeid


# Without live data, whose answer has no end. Made when it runs: the cases of all operations take seconds, in each process that finds
# the tests.
@pytest.mark.timeout(tries(600, 14_400))  # of all operations together
@schemathesis.pytest.from_fixture("document").exclude(path="/api/v1/live").parametrize()
@settings(max_examples=tries(10, 200), suppress_health_check=list(HealthCheck))
def test_every_operation_answers_as_documented(case: "schemathesis.Case[Any]", api: RunningApi, key: str) -> None:
    case.call_and_validate(
        base_url=api.url, headers={"Authorization": f"Bearer {key}"}, timeout=20, excluded_checks=NOT_SAID_BY_A_SCHEMA
    )
