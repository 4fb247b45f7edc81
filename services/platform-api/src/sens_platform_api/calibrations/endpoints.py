"""``/api/v1/devices/{device}/calibrations``."""

from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query

from sens_platform_api.calibrations import schemas, service
from sens_platform_api.calibrations.repository import TenantCalibrations
from sens_platform_api.current_caller import CallersDatabase, CurrentCaller
from sens_platform_api.errors import NotFoundError, TooManyError
from sens_platform_api.parameters import canonical_device, no_parameters
from sens_platform_api.path_parameters import DevicePath
from sens_platform_api.problems import data_responses

router = APIRouter(prefix="/api/v1/devices/{device}/calibrations", tags=["calibrations"])


async def _calibrations(database: CallersDatabase, caller: CurrentCaller) -> service.Calibrations:
    return TenantCalibrations(database, caller)


OwnCalibrations = Annotated[service.Calibrations, Depends(_calibrations)]


@router.get(
    "",
    operation_id="list_calibrations",
    summary="List the calibrations of a device",
    responses=data_responses(NotFoundError),
)
async def list_calibrations(
    calibrations: OwnCalibrations, device: DevicePath, query: Annotated[schemas.CalibrationListParameters, Query()]
) -> schemas.CalibrationList:
    """By metric and time: each is valid from its time on, until the next one of the same metric."""
    found = await service.of_device(calibrations, device, with_removed=query.removed)
    return schemas.CalibrationList(
        device=canonical_device(device), calibrations=[schemas.CalibrationDocument.of(each) for each in found]
    )


@router.post(
    "",
    operation_id="add_calibration",
    summary="Add a calibration",
    status_code=HTTPStatus.CREATED,
    dependencies=[Depends(no_parameters)],
    responses=data_responses(NotFoundError, TooManyError),
)
async def add_calibration(
    calibrations: OwnCalibrations, device: DevicePath, body: schemas.CalibrationChange
) -> schemas.CalibrationDocument:
    """Values from its time on are read as what is stored, times the scale, plus the offset. What is stored stays as it is.

    One that is valid from the same time is replaced; both stay known (`calibration_as_of`).
    """
    new = body.calibration(datetime.now(UTC))
    return schemas.CalibrationDocument.of(await service.add(calibrations, device, new))


@router.delete(
    "/{calibration}",
    operation_id="remove_calibration",
    summary="Remove a calibration",
    status_code=HTTPStatus.NO_CONTENT,
    dependencies=[Depends(no_parameters)],
    responses=data_responses(NotFoundError),
)
async def remove_calibration(
    calibrations: OwnCalibrations,
    device: DevicePath,
    calibration: Annotated[int, Path(description="Its id.", ge=1, le=2_147_483_647, examples=[7])],
) -> None:
    """The one before it is valid again, if there is one. That it held stays known (`calibration_as_of`, the audit)."""
    await service.remove(calibrations, device, calibration)
