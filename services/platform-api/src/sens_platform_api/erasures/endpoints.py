"""``/api/v1/erasures``."""

from http import HTTPStatus
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Path, Query

from sens_platform_api.current_caller import CallersDatabase, CurrentCaller
from sens_platform_api.erasures import schemas, service
from sens_platform_api.erasures.repository import TenantErasures
from sens_platform_api.errors import NotFoundError
from sens_platform_api.parameters import no_parameters
from sens_platform_api.problems import data_responses
from sens_platform_api.settings import ErasureSettings
from sens_platform_api.state import Part

router = APIRouter(prefix="/api/v1/erasures", tags=["erasures"])

CONTROL: Final = Part[service.Control]("control")
ERASURE: Final = Part[ErasureSettings]("erasure")


async def _erasures(database: CallersDatabase, caller: CurrentCaller) -> service.Erasures:
    return TenantErasures(database, caller)


OwnErasures = Annotated[service.Erasures, Depends(_erasures)]
TheControl = Annotated[service.Control, Depends(CONTROL)]
TheSettings = Annotated[ErasureSettings, Depends(ERASURE)]


@router.post(
    "",
    operation_id="erase_device",
    summary="Erase what is stored of a device",
    status_code=HTTPStatus.ACCEPTED,
    responses=data_responses(NotFoundError),
)
async def erase_device(
    erasures: OwnErasures,
    control: TheControl,
    settings: TheSettings,
    query: Annotated[schemas.ErasureParameters, Query()],
) -> schemas.ErasureReceipt:
    """Its readings, aggregates and dead letters are deleted in steps. It can't be undone.

    No message that was received before is stored again: not from the stream's history, not by a replay, not after a restore of the database.

    What the device sends from now on is stored for a new device of this name.
    """
    erasure = await service.erase(erasures, control, query.device)
    return schemas.ErasureReceipt.of(await service.receipt(erasures, erasure, settings))


@router.get("", operation_id="list_erasures", summary="List erasures", responses=data_responses())
async def list_erasures(
    erasures: OwnErasures, settings: TheSettings, query: Annotated[schemas.ErasureListParameters, Query()]
) -> schemas.ErasureList:
    """With their receipts, the newest first."""
    found = await service.receipts(erasures, query.limit, settings)
    return schemas.ErasureList(erasures=[schemas.ErasureReceipt.of(receipt) for receipt in found])


@router.get(
    "/{erasure:int}",
    operation_id="get_erasure",
    summary="Show the receipt of an erasure",
    dependencies=[Depends(no_parameters)],
    responses=data_responses(NotFoundError),
)
async def get_erasure(
    erasures: OwnErasures,
    settings: TheSettings,
    erasure: Annotated[int, Path(description="Number of the erasure.", ge=1, le=2**53, examples=[3])],
) -> schemas.ErasureReceipt:
    """It counts what went so far, and names the times from which on nothing is left elsewhere."""
    return schemas.ErasureReceipt.of(await service.receipt(erasures, erasure, settings))
