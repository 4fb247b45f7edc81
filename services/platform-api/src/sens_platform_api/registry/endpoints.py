"""``/api/v1/metrics``, and what is deleted below ``/api/v1``."""

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Depends, Query

from sens_platform_api.errors import NotFoundError
from sens_platform_api.keys.endpoints import Owner
from sens_platform_api.parameters import decode_cursor, encode_cursor, no_parameters
from sens_platform_api.path_parameters import DevicePath
from sens_platform_api.problems import data_responses
from sens_platform_api.registry import schemas, service
from sens_platform_api.services import ServicesOf

router = APIRouter(prefix="/api/v1", tags=["devices"])


@router.get("/metrics", operation_id="list_metrics", summary="List metrics", responses=data_responses())
async def list_metrics(
    owner: Owner, services: ServicesOf, query: Annotated[schemas.MetricListParameters, Query()]
) -> schemas.TenantMetricList:
    """All devices' metrics. They register themselves with their first message, and are listed by name, in pages."""
    name, kind = decode_cursor(query.cursor, 2) if query.cursor else ("", "")
    page = await service.list_metrics(services.pool, owner, after=(name, kind), prefix=query.prefix, limit=query.limit)
    return schemas.TenantMetricList(
        metrics=[schemas.TenantMetric.of(metric) for metric in page.metrics],
        next=encode_cursor(page.last.name, page.last.kind) if page.last is not None else None,
    )


@router.delete(
    "/metrics",
    operation_id="delete_metric",
    summary="Delete a metric of all devices",
    status_code=HTTPStatus.ACCEPTED,
    responses=data_responses(NotFoundError),
)
async def delete_metric(
    owner: Owner, services: ServicesOf, query: Annotated[schemas.DeletionParameters, Query()]
) -> schemas.DeletedMetric:
    """It is out of sight at once, and its measurements are deleted after that, in steps. It can't be undone.

    When a message has a metric of this name again, that is a new one.
    """
    kinds = await service.delete_metric(services.pool, owner, query.metric, query.kind)
    return schemas.DeletedMetric(metric=query.metric, kinds=kinds)


@router.delete(
    "/devices/{device}",
    operation_id="delete_device",
    summary="Delete a device",
    status_code=HTTPStatus.ACCEPTED,
    dependencies=[Depends(no_parameters)],
    responses=data_responses(NotFoundError),
)
async def delete_device(owner: Owner, services: ServicesOf, device: DevicePath) -> schemas.DeletedDevice:
    """It is out of sight at once, and its measurements are deleted after that, in steps. It can't be undone.

    Its dead letters stay. When it sends again, it is a new device.
    """
    return schemas.DeletedDevice(device=await service.delete_device(services.pool, owner, device))
