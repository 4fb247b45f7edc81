"""``/api/v1/audit``."""

from typing import Annotated

from fastapi import APIRouter, Query

from sens_platform_api.audit import schemas, service
from sens_platform_api.keys.endpoints import Owner
from sens_platform_api.parameters import cursor_number, decode_cursor, encode_cursor
from sens_platform_api.problems import data_responses
from sens_platform_api.services import ServicesOf

router = APIRouter(prefix="/api/v1/audit", tags=["audit"])


@router.get("", operation_id="list_audit", summary="List who changed what", responses=data_responses())
async def list_audit(
    owner: Owner, services: ServicesOf, query: Annotated[schemas.AuditParameters, Query()]
) -> schemas.AuditEventList:
    """Keys, limits and data of the tenant that were changed, the newest change first."""
    before = cursor_number(decode_cursor(query.cursor, 1)[0]) if query.cursor else None
    page = await service.list_page(services.pool, owner, before=before, limit=query.limit)
    return schemas.AuditEventList(
        events=[schemas.AuditEvent.of(event) for event in page.events],
        next=encode_cursor(str(page.last)) if page.last is not None else None,
    )
