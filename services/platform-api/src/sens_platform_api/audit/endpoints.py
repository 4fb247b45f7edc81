"""``/api/v1/audit``."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query

from sens_platform_api.audit import schemas, service
from sens_platform_api.audit.repository import TenantEvents
from sens_platform_api.current_caller import CallersDatabase
from sens_platform_api.pages import newest_page
from sens_platform_api.problems import data_responses

router = APIRouter(prefix="/api/v1/audit", tags=["audit"])


async def _events(database: CallersDatabase) -> service.Events:
    return TenantEvents(database)


OwnEvents = Annotated[service.Events, Depends(_events)]


@router.get("", operation_id="list_audit", summary="List who changed what", responses=data_responses())
async def list_audit(events: OwnEvents, query: Annotated[schemas.AuditParameters, Query()]) -> schemas.AuditEventList:
    """Keys, limits and data of the tenant that were changed, the newest change first."""
    page = await newest_page(events.newest, query.cursor, query.limit)
    return schemas.AuditEventList(
        events=[schemas.AuditEvent.of(event) for event in page.items],
        next=page.next,
    )
