"""``/api/v1/overview``."""

from fastapi import APIRouter, Depends

from sens_platform_api.keys.endpoints import Owner
from sens_platform_api.overview import schemas, service
from sens_platform_api.parameters import no_parameters
from sens_platform_api.problems import data_responses
from sens_platform_api.services import ServicesOf

router = APIRouter(prefix="/api/v1/overview", tags=["overview"])


@router.get(
    "",
    operation_id="get_overview",
    summary="Show what the tenant has, and what came of today's messages",
    dependencies=[Depends(no_parameters)],
    responses=data_responses(),
)
async def get_overview(owner: Owner, services: ServicesOf) -> schemas.Overview:
    """The numbers change with each batch that is stored."""
    return schemas.Overview.of(owner.tenant, await service.overview(services.pool, owner))
