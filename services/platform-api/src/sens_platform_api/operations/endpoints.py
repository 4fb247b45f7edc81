"""What the platform asks of the process: open to whoever can reach it."""

from http import HTTPStatus
from typing import Annotated, Any, Final

import structlog
from fastapi import APIRouter, Depends
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.responses import Response

from sens_common.operations import HEALTHY_WITHIN_SECONDS, Heartbeat
from sens_common.version import service_version
from sens_platform_api.operations.schemas import Health, Readiness, TestAnswer, VersionAnswer
from sens_platform_api.operations.service import ApiReadiness
from sens_platform_api.parameters import no_parameters
from sens_platform_api.problems import common_responses
from sens_platform_api.state import Part

log = structlog.get_logger()

SERVICE = "platform-api"
HEARTBEAT: Final = Part[Heartbeat]("heartbeat")
READINESS: Final = Part[ApiReadiness]("readiness")
TEST_MESSAGE = "test endpoint called"

router = APIRouter(tags=["operations"], dependencies=[Depends(no_parameters)], responses=common_responses())
_FAILED: dict[int | str, dict[str, Any]] = {503: {"model": Health, "description": "It does not work"}}
_NOT_READY: dict[int | str, dict[str, Any]] = {503: {"model": Readiness, "description": "It can't work just now"}}


@router.get("/healthz", operation_id="health", summary="Tell whether the process works", responses=_FAILED)
async def healthz(heartbeat: Annotated[Heartbeat, Depends(HEARTBEAT)], response: Response) -> Health:
    """Its loop went round lately; no other server is asked."""
    age = heartbeat.age_seconds
    if age < HEALTHY_WITHIN_SECONDS:
        return Health(status="ok")
    response.status_code = HTTPStatus.SERVICE_UNAVAILABLE
    return Health(status="failed", detail=f"the loop last went round {age:.0f} s ago")


@router.get(
    "/readyz",
    operation_id="readiness",
    summary="Tell whether it can do its work",
    responses=_NOT_READY,
    response_model_exclude_none=True,
)
async def readyz(readiness: Annotated[ApiReadiness, Depends(READINESS)], response: Response) -> Readiness:
    """Checks the database, its schema and NATS, by name; what it says is at most a second old.

    `degraded`, with 200, is an API of which a part does not work just now: without NATS there are no live data and no replay, while
    everything else is answered.
    """
    look = await readiness.look()
    if look.status == "failed":
        response.status_code = HTTPStatus.SERVICE_UNAVAILABLE
    return Readiness(status=look.status, checks=look.checks, notes=look.notes or None)


@router.get("/version", operation_id="version", summary="Tell what is running")
async def version() -> VersionAnswer:
    """Name, version and commit."""
    running = service_version(SERVICE)
    return VersionAnswer(name=running.name, version=running.version, product_commit=running.product_commit)


@router.get("/test", operation_id="test", summary="Write a log entry")
async def test() -> TestAnswer:
    """Writes a structured log entry whose message is `test endpoint called`, for checking the way of the logs."""
    log.info(TEST_MESSAGE)
    return TestAnswer(message=TEST_MESSAGE)


@router.get(
    "/metrics",
    operation_id="metrics",
    summary="Metrics in Prometheus' text format",
    response_class=Response,
    responses={200: {"description": "The metrics", "content": {"text/plain": {"schema": {"type": "string"}}}}},
)
async def metrics() -> Response:
    """Counters, gauges and histograms of this process."""
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)
