"""``/api/v1/imports``."""

import hashlib
from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Depends

from sens_platform_api.current_caller import CallersDatabase, CurrentCaller
from sens_platform_api.errors import NotFoundError
from sens_platform_api.imports import schemas, service
from sens_platform_api.imports.pace import Pace, TooManyImportsError
from sens_platform_api.imports.repository import ImportingTenant
from sens_platform_api.parameters import EPOCH, no_parameters
from sens_platform_api.problems import data_responses
from sens_platform_api.state import Part

IMPORTS = Part[service.Stream]("imports")
PACE = Part[Pace]("pace of imports")

router = APIRouter(prefix="/api/v1/imports", tags=["imports"])


async def _tenants(database: CallersDatabase, caller: CurrentCaller) -> service.Tenants:
    return ImportingTenant(database, caller)


@router.post(
    "",
    operation_id="import_lines",
    summary="Import lines of a history",
    response_model_exclude_unset=False,
    dependencies=[Depends(no_parameters)],
    responses=data_responses(NotFoundError, TooManyImportsError),
)
async def import_lines(
    *,
    tenants: Annotated[service.Tenants, Depends(_tenants)],
    stream: Annotated[service.Stream, Depends(IMPORTS)],
    pace: Annotated[Pace, Depends(PACE)],
    caller: CurrentCaller,
    body: schemas.ImportDocument,
) -> schemas.ImportResult:
    """Lines that can be read are in the stream when the answer comes, and are stored like all other messages; the others are named.

    Each line tells its own time. To send the same lines again has no effect: what is stored already is a duplicate.
    """
    content = hashlib.sha256(repr([(each.line, each.device, each.payload) for each in body.lines]).encode()).hexdigest()
    imported = await service.import_lines(
        tenants,
        stream,
        pace,
        body.of_lines(),
        tenant=caller.tenant,
        identity=f"{caller.tenant_id} {body.name} {body.source} {body.topic} {content}",
        source=body.source,
        topic=body.topic,
        received_at=(datetime.now(UTC) - EPOCH) // EPOCH.resolution,
        dry_run=body.dry_run,
    )
    return schemas.ImportResult.of(imported, with_rows=body.dry_run)
