"""``/api/v1/devices/{device}/measurements``."""

from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Header, Query
from starlette.responses import Response

from sens_platform_api.errors import NotAcceptableError, NotFoundError
from sens_platform_api.keys.endpoints import Owner
from sens_platform_api.measurements import schemas, service
from sens_platform_api.measurements.rendering import CSV_TYPE, JSON_TYPE, as_csv, as_json
from sens_platform_api.parameters import DevicePath, preferred_type
from sens_platform_api.problems import data_responses
from sens_platform_api.services import ServicesOf
from sens_platform_api.streaming import ClosingStream, begin

router = APIRouter(prefix="/api/v1/devices", tags=["measurements"])


@router.get(
    "/{device}/measurements",
    operation_id="get_measurements",
    summary="Read measurements of a time range",
    response_class=Response,
    responses={
        200: {
            "description": "Measurements by time; as CSV for `Accept: text/csv`, with `# next: <cursor>` as last line"
            " when there are more than the limit",
            "content": {
                JSON_TYPE: {"schema": {"$ref": "#/components/schemas/MeasurementList"}},
                CSV_TYPE: {"schema": {"type": "string"}, "example": schemas.CSV_EXAMPLE},
            },
        },
        **data_responses(NotFoundError, NotAcceptableError),
    },
)
async def get_measurements(
    owner: Owner,
    services: ServicesOf,
    device: DevicePath,
    query: Annotated[schemas.MeasurementParameters, Query()],
    accept: Annotated[str, Header(include_in_schema=False)] = "*/*",
) -> Response:
    """Stored values, or with `bucket` one row for every bucket that has values.

    The answer is streamed. An answer that breaks off, without the end of its JSON document or of its HTTP body, is not complete.
    """
    wanted = query.query(services.limits, datetime.now(UTC))
    media_type = preferred_type(accept, (JSON_TYPE, CSV_TYPE))
    items = service.read(services.pool, owner, device, wanted)
    render = as_csv if media_type == CSV_TYPE else as_json
    body = await begin(services.answers.counted(owner.tenant_id, render(items, wanted.aggregates)))
    return ClosingStream(body, media_type=media_type, seconds=services.limits.stream_seconds)
