"""``/api/v1/devices/{device}/measurements``."""

from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Header, Query
from starlette.requests import Request
from starlette.responses import Response

from sens_platform_api.errors import NotAcceptableError, NotFoundError
from sens_platform_api.keys.endpoints import Owner
from sens_platform_api.measurements import schemas, service
from sens_platform_api.measurements.rendering import (
    CSV_TYPE,
    END_HEADER,
    END_LINE,
    JSON_TYPE,
    CsvStyle,
    as_csv,
    as_json,
)
from sens_platform_api.parameters import canonical_device, preferred_type
from sens_platform_api.path_parameters import DevicePath
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
    request: Request,
    owner: Owner,
    services: ServicesOf,
    device: DevicePath,
    query: Annotated[schemas.MeasurementParameters, Query()],
    *,
    accept: Annotated[str, Header(include_in_schema=False)] = "*/*",
) -> Response:
    """Stored values, or with `bucket` one row for every bucket that has values.

    The answer is streamed. An answer that breaks off, without the end of its JSON document or of its HTTP body, is not complete. CSV over
    HTTP/1.0, as some proxies ask for it, has no such end: there the last line is `# end`, and the header `Sens-Last-Line` says so.
    """
    wanted = query.query(services.limits, datetime.now(UTC))
    offered = (JSON_TYPE, CSV_TYPE)
    media_type = CSV_TYPE if query.spreadsheet is not None else preferred_type(accept, offered)
    items = service.read(services.pool, owner, device, wanted)
    headers = {}
    if media_type == CSV_TYPE:
        style = CsvStyle(query.spreadsheet, end_line=request.scope["http_version"] == "1.0")
        rendered = as_csv(items, wanted.aggregates, style)
        if style.end_line:
            headers[END_HEADER] = END_LINE
        if style.spreadsheet is not None:
            headers["Content-Disposition"] = f'attachment; filename="{canonical_device(device)}.csv"'
    else:
        rendered = as_json(items, wanted.aggregates)
    body = await begin(services.answers.counted(owner.tenant_id, rendered))
    return ClosingStream(body, media_type=media_type, seconds=services.limits.stream_seconds, headers=headers)
