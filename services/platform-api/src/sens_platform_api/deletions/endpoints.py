"""``/api/v1/deletions``, and the deletion of readings of a time range."""

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Depends, Query

from sens_platform_api.current_caller import CallersDatabase, CurrentCaller
from sens_platform_api.deletions import schemas, service
from sens_platform_api.deletions.repository import TenantDeletions
from sens_platform_api.errors import NotFoundError, StillMovingError
from sens_platform_api.pages import newest_page
from sens_platform_api.parameters import parse_time
from sens_platform_api.path_parameters import DevicePath
from sens_platform_api.problems import data_responses

router = APIRouter(prefix="/api/v1", tags=["deletions"])


async def _deletions(database: CallersDatabase, caller: CurrentCaller) -> service.Deletions:
    return TenantDeletions(database, caller)


OwnDeletions = Annotated[service.Deletions, Depends(_deletions)]


@router.delete(
    "/devices/{device}/measurements",
    operation_id="delete_measurements",
    summary="Delete measurements of a device in a time range",
    status_code=HTTPStatus.ACCEPTED,
    responses=data_responses(NotFoundError, StillMovingError),
)
async def delete_measurements(
    deletions: OwnDeletions, device: DevicePath, query: Annotated[schemas.RangeParameters, Query()]
) -> schemas.RequestedDeletion:
    """All of them, or those of one metric. They are deleted in steps; it can't be undone.

    What is stored in the range meanwhile may stay. A single reading is the range of a microsecond. Aggregates of hours and days follow; the
    answer names those that can't.
    """
    first, past = parse_time("from", query.from_), parse_time("to", query.to)
    requested = await service.delete_range(deletions, device, query.metric, first, past)
    return schemas.RequestedDeletion.of(requested)


@router.get("/deletions", operation_id="list_deletions", summary="List deletions", responses=data_responses())
async def list_deletions(
    deletions: OwnDeletions, query: Annotated[schemas.DeletionListParameters, Query()]
) -> schemas.DeletionList:
    """Of devices, metrics and time ranges: how far they are, and what they have deleted; the newest first."""
    page = await newest_page(deletions.newest, query.cursor, query.limit)
    return schemas.DeletionList(
        deletions=[schemas.DeletionProgress.of(deletion) for deletion in page.items],
        next=page.next,
    )
