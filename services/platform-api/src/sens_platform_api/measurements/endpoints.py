"""``/api/v1/devices/{device}/measurements`` and ``/api/v1/measurements``."""

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Header, Query
from starlette.requests import Request
from starlette.responses import Response

from sens_platform_api.current_caller import CallersDatabase, CurrentCaller
from sens_platform_api.errors import NotAcceptableError, NotFoundError
from sens_platform_api.measurements import schemas, service
from sens_platform_api.measurements.loading import load_renderer
from sens_platform_api.measurements.rendering import (
    ARROW_TYPE,
    CSV_TYPE,
    END_HEADER,
    END_LINE,
    JSON_TYPE,
    PARQUET_TYPE,
    CsvStyle,
    Shape,
    as_csv,
    as_json,
)
from sens_platform_api.measurements.repository import TenantMeasurements
from sens_platform_api.measurements.value_rows import values_as_csv
from sens_platform_api.parameters import canonical_device, preferred_type
from sens_platform_api.path_parameters import DevicePath
from sens_platform_api.problems import data_responses
from sens_platform_api.settings import LimitSettings
from sens_platform_api.state import LIMITS, Part
from sens_platform_api.streaming import AnswerCounter, ClosingStream, begin

router = APIRouter(prefix="/api/v1", tags=["measurements"])

ANSWERS: Final = Part[AnswerCounter]("answers")
TABLES: Final = Part[AnswerCounter]("tables")


async def _measurements(database: CallersDatabase) -> service.Measurements:
    return TenantMeasurements(database)


OwnMeasurements = Annotated[service.Measurements, Depends(_measurements)]


def _described(schema: str, example: str) -> dict[int | str, dict[str, Any]]:
    return {
        200: {
            "description": "Measurements by time. As CSV for `Accept: text/csv`, with `# next: <cursor>` as last line when there are more than the"
            " limit. As an Arrow IPC stream or as Parquet with a row for each device and time and a column for each metric; the cursor is"
            " `sens.next` in the metadata of the last batch, or of the file",
            "content": {
                JSON_TYPE: {"schema": {"$ref": f"#/components/schemas/{schema}"}},
                CSV_TYPE: {"schema": {"type": "string"}, "example": example},
                ARROW_TYPE: {"schema": {"type": "string", "format": "binary"}},
                PARQUET_TYPE: {"schema": {"type": "string", "format": "binary"}},
            },
        },
        **data_responses(NotFoundError, NotAcceptableError),
    }


@dataclass(frozen=True, slots=True)
class Answering:
    """What an answer is made with."""

    request: Request
    caller: CurrentCaller
    measurements: OwnMeasurements
    answers: Annotated[AnswerCounter, Depends(ANSWERS)]
    tables: Annotated[AnswerCounter, Depends(TABLES)]
    limits: Annotated[LimitSettings, Depends(LIMITS)]
    accept: Annotated[str, Header(include_in_schema=False)] = "*/*"


OwnAnswering = Annotated[Answering, Depends()]


@router.get(
    "/devices/{device}/measurements",
    operation_id="get_measurements",
    summary="Read measurements of a time range",
    response_class=Response,
    responses=_described("MeasurementList", schemas.CSV_EXAMPLE),
)
async def get_measurements(
    answering: OwnAnswering, device: DevicePath, query: Annotated[schemas.MeasurementParameters, Query()]
) -> Response:
    """Stored values, or with `bucket` one row for every bucket that has values.

    The answer is streamed. An answer that breaks off, without the end of its JSON document or of its HTTP body, is not complete. CSV over
    HTTP/1.0, as some proxies ask for it, has no such end: there the last line is `# end`, and the header `Sens-Last-Line` says so.
    """
    return await _answer(answering, query, [device], Shape())


@router.get(
    "/measurements",
    operation_id="get_measurements_of_devices",
    summary="Read measurements of several devices",
    response_class=Response,
    responses=_described("MeasurementsOfDevices", schemas.CSV_EXAMPLE_OF_DEVICES),
)
async def get_measurements_of_devices(
    answering: OwnAnswering, query: Annotated[schemas.ManyMeasurementParameters, Query()]
) -> Response:
    """The same as of one device, of all of these together: by time, equal times by device and metric; each row names its device.

    A metric has to be one of some device, not of all. An answer is made of 100 series at most, a metric of a device each.
    """
    return await _answer(answering, query, query.device, Shape(names_devices=True))


_TABLE_TYPES: Final = (ARROW_TYPE, PARQUET_TYPE)


async def _answer(
    it: Answering, query: schemas.MeasurementParameters, devices: Sequence[str], shape: Shape
) -> Response:
    offered = (JSON_TYPE, CSV_TYPE, *_TABLE_TYPES)
    media_type = CSV_TYPE if query.spreadsheet is not None else preferred_type(it.accept, offered)
    now = datetime.now(UTC)
    wanted = query.query(it.limits, now, table=media_type in _TABLE_TYPES)
    calibration = query.calibration_setting(now)
    measurements = it.measurements.with_calibration(calibration) if calibration else it.measurements
    shape = shape._replace(aggregates=wanted.aggregates, with_units=query.units)
    headers = {}
    render: Callable[[service.Answer], AsyncGenerator[bytes]] = partial(as_json, shape=shape)
    style = CsvStyle(query.spreadsheet, end_line=it.request.scope["http_version"] == "1.0")
    if media_type == CSV_TYPE:
        render = partial(as_csv, shape=shape, style=style)
        if style.end_line:
            headers[END_HEADER] = END_LINE
        if style.spreadsheet is not None:
            name = "measurements" if shape.names_devices else canonical_device(devices[0])
            headers["Content-Disposition"] = f'attachment; filename="{name}.csv"'

    stored = wanted.buckets is None and wanted.shape_points is None

    async def rows() -> AsyncGenerator[bytes]:
        if media_type == CSV_TYPE and stored:
            readings = await service.read_values(measurements, devices, wanted)
            return values_as_csv(readings, wanted, shape, style)
        return render(await service.read(measurements, devices, wanted))

    async def table() -> AsyncGenerator[bytes]:
        render = await load_renderer("arrow" if media_type == ARROW_TYPE else "parquet")
        from sens_platform_api.measurements import arrow  # noqa: PLC0415 - see `loading`

        if stored:
            return render(arrow.ReadingTable(await service.read_readings(measurements, devices, wanted)))
        return render(arrow.RowTable(await service.read(measurements, devices, wanted), shape))

    async def chunks() -> AsyncGenerator[bytes]:
        counter = it.tables if media_type in _TABLE_TYPES else it.answers
        with counter.counted(it.caller.tenant_id):
            async with aclosing(await (table if media_type in _TABLE_TYPES else rows)()) as rendered:
                async for chunk in rendered:
                    yield chunk

    return ClosingStream(
        await begin(chunks()), media_type=media_type, seconds=it.limits.stream_seconds, headers=headers
    )
