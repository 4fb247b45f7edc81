"""``/api/v1/overview``."""

from typing import Annotated

from fastapi import APIRouter, Depends

from sens_platform_api.current_caller import CallersDatabase, CurrentCaller
from sens_platform_api.overview import schemas, service
from sens_platform_api.overview.repository import TenantNumbers
from sens_platform_api.parameters import no_parameters
from sens_platform_api.problems import data_responses

router = APIRouter(prefix="/api/v1/overview", tags=["overview"])


async def _numbers(database: CallersDatabase) -> service.Numbers:
    return TenantNumbers(database)


OwnNumbers = Annotated[service.Numbers, Depends(_numbers)]


@router.get(
    "",
    operation_id="get_overview",
    summary="Show what the tenant has, and what came of today's messages",
    dependencies=[Depends(no_parameters)],
    responses=data_responses(),
)
async def get_overview(caller: CurrentCaller, numbers: OwnNumbers) -> schemas.Overview:
    """The numbers change with each batch that is stored."""
    return schemas.Overview.of(caller.tenant, await service.overview(numbers))
