"""``/api/v1/metrics``, and the deletion of metrics and devices."""

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Query

from sens_common.keys import KEY_PATTERN
from sens_platform_api.current_caller import CallersDatabase, CurrentCaller
from sens_platform_api.errors import AlreadyExistsError, NotFoundError, ReadOnlyKeyError
from sens_platform_api.parameters import canonical_device, decode_cursor, encode_cursor, no_parameters
from sens_platform_api.path_parameters import DevicePath
from sens_platform_api.problems import data_responses
from sens_platform_api.registry import schemas, service
from sens_platform_api.registry.repository import TenantNames

router = APIRouter(prefix="/api/v1", tags=["devices"])


async def _names(database: CallersDatabase, caller: CurrentCaller) -> service.Names:
    return TenantNames(database, caller)


async def _devices(database: CallersDatabase, caller: CurrentCaller) -> service.RenamedDevices:
    return TenantNames(database, caller)


RenamedDevices = Annotated[service.RenamedDevices, Depends(_devices)]


async def _moved(database: CallersDatabase, caller: CurrentCaller) -> service.MovedDevices:
    return TenantNames(database, caller)


MovedDevices = Annotated[service.MovedDevices, Depends(_moved)]
OwnNames = Annotated[service.Names, Depends(_names)]


@router.get("/metrics", operation_id="list_metrics", summary="List metrics", responses=data_responses())
async def list_metrics(
    names: OwnNames, query: Annotated[schemas.MetricListParameters, Query()]
) -> schemas.TenantMetricList:
    """All devices' metrics. They register themselves with their first message, and are listed by name, in pages."""
    name, kind = decode_cursor(query.cursor, 2) if query.cursor else ("", "")
    page = await service.list_metrics(names, after=(name, kind), prefix=query.prefix, limit=query.limit)
    return schemas.TenantMetricList(
        metrics=[schemas.TenantMetric.of(metric) for metric in page.metrics],
        next=encode_cursor(*page.after) if page.after is not None else None,
    )


@router.delete(
    "/metrics",
    operation_id="delete_metric",
    summary="Delete a metric of all devices",
    status_code=HTTPStatus.ACCEPTED,
    responses=data_responses(NotFoundError),
)
async def delete_metric(
    names: OwnNames, query: Annotated[schemas.DeletionParameters, Query()]
) -> schemas.DeletedMetric:
    """It is out of sight at once, and its measurements are deleted after that, in steps. It can't be undone.

    When a message has a metric of this name again, that is a new one.
    """
    kinds = await service.delete_metric(names, query.metric, query.kind)
    return schemas.DeletedMetric(metric=query.metric, kinds=kinds)


@router.post(
    "/devices/{device}/rename",
    operation_id="rename_device",
    summary="Give a device another name",
    responses=data_responses(NotFoundError, AlreadyExistsError),
)
async def rename_device(
    devices: RenamedDevices, device: DevicePath, query: Annotated[schemas.RenamingParameters, Query()]
) -> schemas.RenamedDevice:
    """It keeps its measurements. A message with the old name in its topic is of a new device of that name.

    So a device is replaced under its name: rename the old one, and let the new one send.
    """
    return schemas.RenamedDevice(device=await service.rename_device(devices, device, query.name))


@router.post(
    "/devices/{device}/move",
    operation_id="move_device",
    summary="Move a device to another tenant",
    status_code=HTTPStatus.ACCEPTED,
    responses=data_responses(NotFoundError, AlreadyExistsError, ReadOnlyKeyError),
)
async def move_device(
    devices: MovedDevices,
    device: DevicePath,
    query: Annotated[schemas.MovingParameters, Query()],
    target_key: Annotated[
        str,
        Header(
            alias=service.TARGET_KEY,
            description="A key of the other tenant that may write.",
            max_length=100,
            pattern=KEY_PATTERN,
            examples=["sens_0123456789012345678901234567890123456789012"],
        ),
    ],
) -> schemas.MovedDevice:
    """It belongs to the tenant of the other key at once, and its history follows in steps, with its aggregates.

    Its dead letters, its rules of retention and its rows of the audit stay behind. It has to publish under the other tenant's topics: a message
    under the old one is of a new device there.
    """
    move = await service.move_device(devices, device, query.name, target_key)
    assert move.tenant is not None and move.deletion is not None  # noqa: S101, PT018 - for the type checker: it is moved
    return schemas.MovedDevice(
        device=canonical_device(query.name or device), tenant=move.tenant, deletion=move.deletion
    )


@router.delete(
    "/devices/{device}",
    operation_id="delete_device",
    summary="Delete a device",
    status_code=HTTPStatus.ACCEPTED,
    dependencies=[Depends(no_parameters)],
    responses=data_responses(NotFoundError),
)
async def delete_device(names: OwnNames, device: DevicePath) -> schemas.DeletedDevice:
    """It is out of sight at once, and its measurements are deleted after that, in steps. It can't be undone.

    Its dead letters stay. When it sends again, it is a new device.
    """
    return schemas.DeletedDevice(device=await service.delete_device(names, device))
