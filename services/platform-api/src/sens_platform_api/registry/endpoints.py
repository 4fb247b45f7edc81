"""``/api/v1/metrics``, and the deletion of metrics and devices."""

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Depends, Query

from sens_platform_api.current_caller import CallersDatabase, CurrentCaller
from sens_platform_api.errors import NotFoundError
from sens_platform_api.parameters import decode_cursor, encode_cursor, no_parameters
from sens_platform_api.path_parameters import DevicePath
from sens_platform_api.problems import data_responses
from sens_platform_api.registry import schemas, service
from sens_platform_api.registry.repository import TenantNames

router = APIRouter(prefix="/api/v1", tags=["devices"])


async def _names(database: CallersDatabase, caller: CurrentCaller) -> service.Names:
    return TenantNames(database, caller)


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
