"""``/api/v1/devices``."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query

from sens_platform_api.devices import schemas, service
from sens_platform_api.errors import NotFoundError
from sens_platform_api.keys.endpoints import Owner
from sens_platform_api.parameters import decode_cursor, encode_cursor, no_parameters
from sens_platform_api.path_parameters import DevicePath
from sens_platform_api.problems import data_responses
from sens_platform_api.services import ServicesOf

router = APIRouter(prefix="/api/v1/devices", tags=["devices"])


@router.get("", operation_id="list_devices", summary="List devices", responses=data_responses())
async def list_devices(
    owner: Owner, services: ServicesOf, query: Annotated[schemas.DeviceListParameters, Query()]
) -> schemas.DeviceList:
    """Devices register themselves with their first message. They are listed by name, in pages."""
    after = decode_cursor(query.cursor, 1)[0] if query.cursor else ""
    page = await service.list_page(services.pool, owner, after=after, prefix=query.prefix, limit=query.limit)
    return schemas.DeviceList(
        devices=[schemas.DeviceSummary.of(device) for device in page.devices],
        next=encode_cursor(page.last) if page.last is not None else None,
    )


@router.get(
    "/{device}",
    operation_id="get_device",
    summary="Show a device and its metrics",
    dependencies=[Depends(no_parameters)],
    responses=data_responses(NotFoundError),
)
async def get_device(owner: Owner, services: ServicesOf, device: DevicePath) -> schemas.DeviceDetails:
    """A name that comes with values of several kinds is several metrics."""
    found, latest = await service.latest(services.pool, owner, device)
    return schemas.details(found, latest)


@router.get(
    "/{device}/latest",
    operation_id="get_latest",
    summary="Show the latest value of each metric",
    dependencies=[Depends(no_parameters)],
    responses=data_responses(NotFoundError),
)
async def get_latest(owner: Owner, services: ServicesOf, device: DevicePath) -> schemas.LatestValues:
    """Latest means latest measured: a backlog that arrives today does not hide a newer value that came before it."""
    found, latest = await service.latest(services.pool, owner, device)
    return schemas.LatestValues(device=found.name, latest=[schemas.LatestValue.of(one) for one in latest])
