"""``/api/v1/codec-runs``."""

from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query

from sens_platform_api.codec_runs import schemas, service
from sens_platform_api.codec_runs.repository import TenantRuns
from sens_platform_api.current_caller import CallersDatabase, CurrentCaller
from sens_platform_api.errors import InUseError, NotFoundError
from sens_platform_api.pages import newest_page
from sens_platform_api.parameters import no_parameters, parse_time
from sens_platform_api.problems import data_responses

router = APIRouter(prefix="/api/v1/codec-runs", tags=["codec-runs"])


async def _runs(database: CallersDatabase, caller: CurrentCaller) -> service.Runs:
    return TenantRuns(database, caller)


OwnRuns = Annotated[service.Runs, Depends(_runs)]
Number = Annotated[int, Path(description="Number of the run.", ge=1, le=2**63 - 1, examples=[17])]


@router.get("", operation_id="list_codec_runs", summary="List runs of codecs", responses=data_responses())
async def list_codec_runs(runs: OwnRuns, query: Annotated[schemas.RunListParameters, Query()]) -> schemas.CodecRunList:
    """What was decoded again or compared, the newest first; 200 are kept."""
    page = await newest_page(runs.newest, query.cursor, query.limit)
    return schemas.CodecRunList(
        runs=[schemas.CodecRun.of(run) for run in page.items],
        next=page.next,
    )


@router.post(
    "",
    operation_id="begin_codec_run",
    summary="Decode messages again, or compare two versions of a codec",
    status_code=HTTPStatus.ACCEPTED,
    dependencies=[Depends(no_parameters)],
    responses=data_responses(NotFoundError, InUseError),
)
async def begin_codec_run(runs: OwnRuns, body: schemas.NewRun) -> schemas.CodecRun:
    """A run takes the messages that the device's source keeps, and those that the stream still has; it works in steps, one run of a tenant at a time.

    Asked for again before it is finished, it is the same run. What messages say now takes the place of what they had led to; a message that can't
    be decoded changes nothing.
    """
    now = datetime.now(UTC)
    past = now if body.to is None else parse_time("to", body.to, now)
    order = body.order(parse_time("from", body.from_, now), past)
    return schemas.CodecRun.of(await service.begin(runs, order, now=now, is_open=body.to is None))


@router.get(
    "/{run}",
    operation_id="get_codec_run",
    summary="Show a run of a codec",
    dependencies=[Depends(no_parameters)],
    responses=data_responses(NotFoundError),
)
async def get_codec_run(runs: OwnRuns, run: Number) -> schemas.CodecRun:
    """How far it is, and what it has found: counts, the first 20 differences and errors, and what it could not cover."""
    return schemas.CodecRun.of(await service.get(runs, run))


@router.delete(
    "/{run}",
    operation_id="cancel_codec_run",
    summary="Cancel a run of a codec",
    dependencies=[Depends(no_parameters)],
    responses=data_responses(NotFoundError),
)
async def cancel_codec_run(runs: OwnRuns, run: Number) -> schemas.CodecRun:
    """What it has stored stays."""
    return schemas.CodecRun.of(await service.cancel(runs, run))
