"""``/api/v1/devices`` and ``/api/v1/latest``."""

from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Query
from starlette.responses import Response

from sens_platform_api.calibrations.schemas import CalibrationParameters
from sens_platform_api.current_caller import CallersDatabase
from sens_platform_api.devices import schemas, service
from sens_platform_api.devices.repository import TenantDevices
from sens_platform_api.errors import NotFoundError
from sens_platform_api.parameters import decode_cursor, encode_cursor, no_parameters
from sens_platform_api.path_parameters import DevicePath
from sens_platform_api.problems import data_responses

router = APIRouter(prefix="/api/v1", tags=["devices"])


async def _devices(database: CallersDatabase) -> service.Devices:
    return TenantDevices(database)


OwnDevices = Annotated[service.Devices, Depends(_devices)]


def _calibrated(devices: service.Devices, query: CalibrationParameters) -> service.Devices:
    setting = query.calibration_setting(datetime.now(UTC))
    return devices.with_calibration(setting) if setting else devices


@router.get("/devices", operation_id="list_devices", summary="List devices", responses=data_responses())
async def list_devices(
    devices: OwnDevices, query: Annotated[schemas.DeviceListParameters, Query()]
) -> schemas.DeviceList:
    """Devices register themselves with their first message. They are listed by name, in pages."""
    after = decode_cursor(query.cursor, 1)[0] if query.cursor else ""
    page = await service.list_page(devices, after=after, prefix=query.prefix, limit=query.limit)
    return schemas.DeviceList(
        devices=[schemas.DeviceSummary.of(device) for device in page.devices],
        next=encode_cursor(page.after) if page.after is not None else None,
    )


@router.get(
    "/devices/{device}",
    operation_id="get_device",
    summary="Show a device and its metrics",
    dependencies=[Depends(no_parameters)],
    response_model_exclude_unset=True,
    responses=data_responses(NotFoundError),
)
async def get_device(devices: OwnDevices, device: DevicePath) -> schemas.DeviceDetails:
    """A name that comes with values of several kinds is several metrics."""
    return schemas.DeviceDetails.with_metrics(await service.latest(devices, device))


@router.get(
    "/devices/{device}/latest",
    operation_id="get_latest",
    summary="Show the latest value of each metric",
    response_model_exclude_unset=True,
    responses=data_responses(NotFoundError),
)
async def get_latest(
    devices: OwnDevices, device: DevicePath, query: Annotated[CalibrationParameters, Query()]
) -> schemas.LatestValues:
    """Latest means latest measured: a backlog that arrives today does not hide a newer value that came before it."""
    return schemas.LatestValues.of(await service.latest(_calibrated(devices, query), device))


@router.get(
    "/latest",
    operation_id="list_latest",
    summary="Show the latest values of all devices",
    response_model=schemas.LatestList,
    responses=data_responses(),
)
async def list_latest(devices: OwnDevices, query: Annotated[schemas.LatestListParameters, Query()]) -> Response:
    """Devices by name, in pages, with the latest value of each of their metrics."""
    after = decode_cursor(query.cursor, 1)[0] if query.cursor else ""
    page = await service.latest_page(_calibrated(devices, query), after=after, prefix=query.prefix, limit=query.limit)
    following = encode_cursor(page.after) if page.after is not None else None
    return Response(schemas.render_latest(page, following), media_type="application/json")
