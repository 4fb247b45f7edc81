"""Measurements in requests and answers."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from sens_common.times import TIME_FORMS, parse_width
from sens_platform_api.errors import InvalidRequestError
from sens_platform_api.fields import DeviceName, Kind, MetricName, Time, Value
from sens_platform_api.measurements.query import Aggregate, Position, Query, Source, Span
from sens_platform_api.measurements.service import MAX_SERIES
from sens_platform_api.parameters import (
    EPOCH,
    METRIC_PATTERN,
    METRIC_WORDS,
    Parameters,
    bad_cursor,
    cursor_field,
    cursor_number,
    decode_cursor,
    encode_cursor,
    in_words,
    parse_time,
)
from sens_platform_api.settings import LimitSettings

DEFAULT_RANGE: Final = timedelta(hours=24)
DEFAULT_LIMIT: Final = 10_000
MAX_LIMIT: Final = 100_000_000
BUCKET_PATTERN: Final = r"^[1-9][0-9]{0,7}[smhdw]$"
AGGREGATE_PATTERN: Final = r"^(?:avg|min|max|count)(?:,(?:avg|min|max|count)){0,3}$"
AGGREGATE_WORDS: Final = "it takes avg, min, max and count, with commas between, for example avg,max"
_MAX_BUCKET = timedelta(days=366)
_MICROSECOND = timedelta(microseconds=1)

TimeText = Annotated[str, Field(max_length=40)]


class MeasurementParameters(Parameters):
    """Selects measurements."""

    metric: Annotated[
        list[
            Annotated[
                str,
                Field(max_length=255, json_schema_extra={"pattern": METRIC_PATTERN}),
                in_words(METRIC_PATTERN, METRIC_WORDS),
            ]
        ],
        Field(
            description="Name of a metric; may be repeated. Without it, all of the device's.",
            max_length=MAX_SERIES,
            examples=[["temperature"]],
        ),
    ] = Field(default_factory=list)
    start: Annotated[
        TimeText | None,
        Field(
            alias="from",
            description=f"First time: {TIME_FORMS}. Days begin at midnight UTC. Without it, 24 hours before `to`.",
            examples=["2026-11-24T00:00:00Z", "-1h", "today"],
        ),
    ] = None
    end: Annotated[
        TimeText | None,
        Field(
            alias="to",
            description="End, which does not belong to the range. Without it, now.",
            examples=["2026-11-25T00:00:00Z"],
        ),
    ] = None
    bucket: Annotated[
        str | None,
        Field(
            description="Width of the buckets to aggregate in: a number and s, m, h, d or w, 366 days at most.",
            max_length=9,
            examples=["5m"],
            json_schema_extra={"pattern": BUCKET_PATTERN},
        ),
    ] = None
    aggregate: Annotated[
        str | None,
        Field(
            description="Aggregates of each bucket, with commas between: avg, min, max, count. Texts have only count.",
            max_length=20,
            examples=["avg,min,max,count"],
            json_schema_extra={"pattern": AGGREGATE_PATTERN},
        ),
        in_words(AGGREGATE_PATTERN, AGGREGATE_WORDS),
    ] = None
    limit: Annotated[
        int,
        Field(description="Rows in the answer.", ge=1, le=MAX_LIMIT, examples=[1000]),
    ] = DEFAULT_LIMIT
    order: Annotated[
        Literal["asc", "desc"], Field(description="By time, oldest or newest first.", examples=["asc"])
    ] = "asc"
    spreadsheet: Annotated[
        Literal["point", "comma"] | None,
        Field(
            description="CSV to open in a spreadsheet, with this sign before decimals: with a byte order mark, cells parted by semicolons"
            " for comma, times without T and Z, and texts that begin like a formula made harmless by an apostrophe. The plain form,"
            " `Accept: text/csv`, is exact.",
            examples=["point"],
        ),
    ] = None
    cursor: Annotated[
        str | None,
        cursor_field(
            "MTE3OTU1MjE2MDAwMDAwMDAAMTE3OTU0Nzg0MDAwMDAwMDAAMTE3OTU1NjQ4MDAwMDAwMDAAdGVtcGVyYXR1cmUAbnVtYmVy"
        ),
    ] = None

    def query(self, limits: LimitSettings, now: datetime) -> Query:
        """Return the query that the parameters stand for.

        Raises:
            InvalidRequestError: The parameters do not fit together, or are over the limits.
        """
        end = parse_time("to", self.end, now) if self.end is not None else now.astimezone(UTC)
        start = parse_time("from", self.start, now) if self.start is not None else end - DEFAULT_RANGE
        bucket = _bucket(self.bucket) if self.bucket is not None else None
        if self.aggregate is not None and bucket is None:
            raise InvalidRequestError.in_query("aggregate", "it needs a bucket")
        aggregates: list[Aggregate] = []
        if bucket is not None:
            aggregates = [_AGGREGATES[name] for name in dict.fromkeys((self.aggregate or "avg").split(","))]
        position = _position(self.cursor) if self.cursor is not None else None
        if position is not None:
            start, end = position.span
        if start >= end:
            raise InvalidRequestError.in_query("from", "it has to be before to")
        if end - start > timedelta(days=limits.range_days):
            raise InvalidRequestError.in_query("from", f"from and to may be {limits.range_days} days apart at most")
        if self.limit > limits.measurements:
            raise InvalidRequestError.in_query("limit", f"it may be {limits.measurements} at most")
        return Query(
            metrics=list(dict.fromkeys(self.metric)),
            span=Span(start, end),
            bucket=bucket,
            aggregates=aggregates,
            order=self.order,
            limit=self.limit,
            after=position,
        )


_AGGREGATES: Final[dict[str, Aggregate]] = {"avg": "avg", "min": "min", "max": "max", "count": "count"}


def _bucket(text: str) -> timedelta:
    try:
        width = parse_width(text)
    except ValueError as error:
        raise InvalidRequestError.in_query("bucket", str(error)) from None
    if width > _MAX_BUCKET:
        raise InvalidRequestError.in_query("bucket", "a bucket may be 366 days wide at most")
    return width


def render_position(position: Position) -> str:
    """Return the cursor of a position."""
    times = (position.time, *position.span)
    return encode_cursor(*(str((time - EPOCH) // _MICROSECOND + _CURSOR_BIAS) for time in times), *position.series)


_CURSOR_BIAS = 10**16
"""Makes the times in cursors, µs since the epoch, positive; the earliest is in 1900."""


def _position(cursor: str) -> Position:
    *times, name, kind = decode_cursor(cursor, 5)
    try:
        time, start, end = (EPOCH + (cursor_number(text) - _CURSOR_BIAS) * _MICROSECOND for text in times)
    except OverflowError:
        raise bad_cursor() from None
    if not start - _MAX_BUCKET < time <= end:  # a bucket may begin before the range does
        raise bad_cursor()
    return Position(time, (name, kind), Span(start, end))


class Measurement(BaseModel):
    """A stored value."""

    model_config = ConfigDict(extra="forbid")

    time: Time
    metric: MetricName
    value: Value


class MeasurementBucket(BaseModel):
    """The aggregates of a bucket: those that were asked for. Those of booleans count false as 0 and true as 1."""

    model_config = ConfigDict(extra="forbid")

    time: Annotated[Time, Field(description="Beginning of the bucket.")]
    metric: MetricName
    kind: Kind
    avg: float | None = None
    min: float | None = None
    max: float | None = None
    count: Annotated[int | None, Field(ge=1)] = None


class MeasurementList(BaseModel):
    """Measurements of a device by time; with `bucket`, aggregates."""

    model_config = ConfigDict(extra="forbid")

    device: DeviceName
    measurements: list[Measurement | MeasurementBucket]
    next: Annotated[str | None, Field(description="Cursor of what is over the limit, else null.", examples=[None])]
    sources: Annotated[
        list[Source] | None,
        Field(
            description="With `bucket`: what the aggregates are made of, the coarsest that answers exactly: rollups of days (UTC) or of hours,"
            " or stored values. Counts of texts are made of stored values.",
            examples=[["1d", "raw"]],
        ),
    ] = None


CSV_EXAMPLE = "time,metric,value\r\n2026-11-24T22:15:00Z,temperature,21.5\r\n"
