"""The operations paths, which every service answers in the same form (`sens_common.operations`), and ``/test``: open to everybody."""

from typing import Annotated, Any, Final

import structlog
from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import Response

from sens_common.operations import Operations
from sens_platform_api.operations.schemas import Health, Readiness, TestAnswer, VersionAnswer
from sens_platform_api.parameters import no_parameters
from sens_platform_api.problems import common_responses
from sens_platform_api.state import Part

log = structlog.get_logger()

SERVICE: Final = "platform-api"
TEST_MESSAGE: Final = "test endpoint called"
OPERATIONS: Final = Part[Operations]("operations")

TheOperations = Annotated[Operations, Depends(OPERATIONS)]

router = APIRouter(tags=["operations"], dependencies=[Depends(no_parameters)], responses=common_responses())


def _answers(model: type[Any], failed: str | None = None) -> dict[int | str, dict[str, Any]]:
    answers: dict[int | str, dict[str, Any]] = {200: {"model": model, "description": "Successful Response"}}
    if failed is not None:
        answers[503] = {"model": model, "description": failed}
    return answers


@router.get(
    "/healthz",
    operation_id="health",
    summary="Tell whether the process works",
    response_class=Response,
    responses=_answers(Health, "It does not work"),
)
async def healthz(request: Request, operations: TheOperations) -> Response:
    """Its event loop turns; no other server is asked."""
    return await operations.healthz(request)


@router.get(
    "/readyz",
    operation_id="readiness",
    summary="Tell whether it can do its work",
    response_class=Response,
    responses=_answers(Readiness, "It can't work just now"),
)
async def readyz(request: Request, operations: TheOperations) -> Response:
    """Checks the database, its schema and NATS, by name; the answer is at most a second old.

    `degraded`, with 200, is an API of which a part does not work just now: without NATS there are no live data and no replay, while
    everything else is answered.
    """
    return await operations.readyz(request)


@router.get(
    "/version",
    operation_id="version",
    summary="Tell what is running",
    response_class=Response,
    responses=_answers(VersionAnswer),
)
async def version(request: Request, operations: TheOperations) -> Response:
    """Name, version and commit."""
    return await operations.version(request)


@router.get("/test", operation_id="test", summary="Write a log entry")
async def test() -> TestAnswer:
    """Writes a structured log entry whose message is `test endpoint called`, to check that logs arrive."""
    log.info(TEST_MESSAGE)
    return TestAnswer(message=TEST_MESSAGE)


@router.get(
    "/metrics",
    operation_id="metrics",
    summary="Metrics in Prometheus' text format",
    response_class=Response,
    responses={200: {"description": "The metrics", "content": {"text/plain": {"schema": {"type": "string"}}}}},
)
async def metrics(request: Request, operations: TheOperations) -> Response:
    """Counters, gauges and histograms of this process."""
    return await operations.metrics(request)
