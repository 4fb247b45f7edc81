"""``/api/v1/devices/{device}/measurements``."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Header, Query
from starlette.requests import Request
from starlette.responses import Response

from sens_platform_api.current_caller import CallersDatabase, CurrentCaller
from sens_platform_api.errors import NotAcceptableError, NotFoundError
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
from sens_platform_api.measurements.repository import TenantMeasurements
from sens_platform_api.parameters import canonical_device, preferred_type
from sens_platform_api.path_parameters import DevicePath
from sens_platform_api.problems import data_responses
from sens_platform_api.settings import LimitSettings
from sens_platform_api.state import LIMITS, Part
from sens_platform_api.streaming import AnswerCounter, ClosingStream, begin

router = APIRouter(prefix="/api/v1/devices", tags=["measurements"])

ANSWERS: Final = Part[AnswerCounter]("answers")


async def _measurements(database: CallersDatabase) -> service.Measurements:
    return TenantMeasurements(database)


OwnMeasurements = Annotated[service.Measurements, Depends(_measurements)]


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
    *,
    request: Request,
    caller: CurrentCaller,
    measurements: OwnMeasurements,
    answers: Annotated[AnswerCounter, Depends(ANSWERS)],
    limits: Annotated[LimitSettings, Depends(LIMITS)],
    device: DevicePath,
    query: Annotated[schemas.MeasurementParameters, Query()],
    accept: Annotated[str, Header(include_in_schema=False)] = "*/*",
) -> Response:
    """Stored values, or with `bucket` one row for every bucket that has values.

    The answer is streamed. An answer that breaks off, without the end of its JSON document or of its HTTP body, is not complete. CSV over
    HTTP/1.0, as some proxies ask for it, has no such end: there the last line is `# end`, and the header `Sens-Last-Line` says so.
    """
    wanted = query.query(limits, datetime.now(UTC))
    media_type = CSV_TYPE if query.spreadsheet is not None else preferred_type(accept, (JSON_TYPE, CSV_TYPE))
    headers = {}
    if media_type == CSV_TYPE:
        style = CsvStyle(query.spreadsheet, end_line=request.scope["http_version"] == "1.0")
        render = partial(as_csv, aggregates=wanted.aggregates, style=style)
        if style.end_line:
            headers[END_HEADER] = END_LINE
        if style.spreadsheet is not None:
            headers["Content-Disposition"] = f'attachment; filename="{canonical_device(device)}.csv"'
    else:
        render = partial(as_json, aggregates=wanted.aggregates)

    async def chunks() -> AsyncGenerator[bytes]:
        with answers.counted(caller.tenant_id):
            answer = await service.read(measurements, device, wanted)
            async with aclosing(render(answer)) as rendered:
                async for chunk in rendered:
                    yield chunk

    return ClosingStream(await begin(chunks()), media_type=media_type, seconds=limits.stream_seconds, headers=headers)
