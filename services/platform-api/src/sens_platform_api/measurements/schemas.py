"""Measurements in requests and answers."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Final, Literal, get_args
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict, Field

from sens_common.times import TIME_FORMS
from sens_platform_api.calibrations.schemas import CalibrationParameters
from sens_platform_api.errors import InvalidRequestError
from sens_platform_api.fields import DeviceName, Kind, MetricName, Time, Unit, UnitText, Value
from sens_platform_api.measurements.buckets import BUCKET_PATTERN, Buckets, parse_buckets, parse_zone
from sens_platform_api.measurements.cursors import read_position
from sens_platform_api.measurements.points import MOST_POINTS, POINT_AGGREGATES, buckets_for
from sens_platform_api.measurements.query import Aggregate, Fill, Query, Source
from sens_platform_api.measurements.service import MAX_SERIES
from sens_platform_api.measurements.shapes import MOST_SHAPE_POINTS
from sens_platform_api.measurements.spans import Span
from sens_platform_api.measurements.triangles import FEWEST
from sens_platform_api.parameters import (
    DEVICE_PATTERN,
    DEVICE_WORDS,
    METRIC_PATTERN,
    METRIC_WORDS,
    cursor_field,
    in_words,
    parse_time,
)
from sens_platform_api.settings import LimitSettings

DEFAULT_RANGE: Final = timedelta(hours=24)
DEFAULT_LIMIT: Final = 10_000
MAX_LIMIT: Final = 1_000_000_000
_AGGREGATE = "(?:avg|sum|min|max|first|last|count|difference|p50|p95|p99|time_weighted_avg)"
AGGREGATE_PATTERN: Final = rf"^{_AGGREGATE}(?:,{_AGGREGATE}){{0,11}}$"
AGGREGATE_WORDS: Final = (
    "it takes avg, sum, min, max, first, last, count, difference, p50, p95, p99 and time_weighted_avg, with commas between, for example"
    " avg,max"
)

TimeText = Annotated[str, Field(max_length=40)]


class MeasurementParameters(CalibrationParameters):
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
            description=f"First time: {TIME_FORMS}. Days begin at midnight UTC, or of `tz`. Without it, 24 hours before `to`.",
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
            description="Width of the buckets to aggregate in: a number and s, m, h, d, w or mo (months), 366 days at most. Days, weeks (from"
            " Monday) and months begin at midnight UTC, or of `tz`.",
            max_length=10,
            examples=["5m"],
            json_schema_extra={"pattern": BUCKET_PATTERN},
        ),
    ] = None
    aggregate: Annotated[
        str | None,
        Field(
            description="Aggregates of each bucket, with commas between: avg, sum, min, max, first, last, count, difference (how much a counter"
            " has counted from the first value to the last; a value below the one before counts from zero), p50, p95 and p99 (interpolated"
            " between values), time_weighted_avg (each value holds until the next one of the bucket, the last until its end). Texts have only"
            " count.",
            max_length=100,
            examples=["avg,min,max,count"],
            json_schema_extra={"pattern": AGGREGATE_PATTERN},
        ),
        in_words(AGGREGATE_PATTERN, AGGREGATE_WORDS),
    ] = None
    tz: Annotated[
        str | None,
        Field(
            description="Time zone (a name of the IANA database) in which buckets of days, weeks, months and parts of a day begin, and whose"
            " days `from` and `to` name. With daylight saving time a day has 23 or 25 hours. Times in the answer stay in UTC.",
            max_length=64,
            examples=["Europe/Vienna"],
        ),
    ] = None
    fill: Annotated[
        Fill | None,
        Field(
            description="Give buckets without values as well, from the one with `from` to the one with `to`: with null, with what the bucket before"
            " has (previous), or with what is on the line between the neighbours that have values (linear). Their count is 0. Without"
            " it, they are left out.",
            examples=["previous"],
        ),
    ] = None
    points: Annotated[
        int | None,
        Field(
            description="For a chart of so many points: buckets of the narrowest round width of which the range has no more than these. Without"
            " `aggregate` they have min, max and avg, so that no peak is lost. It takes the place of `bucket`.",
            ge=2,
            le=MOST_POINTS,
            examples=[1000],
        ),
    ] = None
    points_method: Annotated[
        Literal["minmax", "lttb"] | None,
        Field(
            description="How `points` are chosen: `minmax`, the default, gives buckets; `lttb` gives so many stored values of each metric of numbers"
            f" that keep the shape of the line (Largest-Triangle-Three-Buckets), {MOST_SHAPE_POINTS:,} at most. Texts are left out.",
            examples=["lttb"],
        ),
    ] = None
    limit: Annotated[
        int | None,
        Field(
            description=f"Rows in the answer. Without it, {DEFAULT_LIMIT:,}; of Arrow and Parquet, all that there are, as far as the API's settings let one answer go.",
            ge=1,
            le=MAX_LIMIT,
            examples=[1000],
        ),
    ] = None
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
    units: Annotated[
        bool,
        Field(
            description="CSV with a last column `unit`: the unit of the metric as people write it, empty where none is known. JSON, Arrow and"
            " Parquet tell units without it.",
            examples=[True],
        ),
    ] = False
    cursor: Annotated[
        str | None,
        cursor_field(
            "MTE3OTU1MjE2MDAwMDAwMDAAMTE3OTU0Nzg0MDAwMDAwMDAAMTE3OTU1NjQ4MDAwMDAwMDAAdGVtcGVyYXR1cmUAbnVtYmVy"
        ),
    ] = None

    def query(self, limits: LimitSettings, now: datetime, *, table: bool = False) -> Query:
        """Return the query that the parameters stand for, with the limits of rows or of tables.

        Raises:
            InvalidRequestError: The parameters do not fit together, or are over the limits.
        """
        zone = _zone(self.tz) if self.tz is not None else None
        end = parse_time("to", self.end, now, zone) if self.end is not None else now.astimezone(UTC)
        start = parse_time("from", self.start, now, zone) if self.start is not None else end - DEFAULT_RANGE
        position = read_position(self.cursor) if self.cursor is not None else None
        if position is not None:
            start, end = position.span
        if start >= end:
            raise InvalidRequestError.in_query("from", "it has to be before to")
        if end - start > timedelta(days=limits.range_days):
            raise InvalidRequestError.in_query("from", f"from and to may be {limits.range_days} days apart at most")
        buckets, aggregates = self._aggregation(Span(start, end), zone)
        most = limits.readings if table else limits.measurements
        if self.limit is not None and self.limit > most:
            raise InvalidRequestError.in_query("limit", f"it may be {most} at most")
        return Query(
            metrics=list(dict.fromkeys(self.metric)),
            span=Span(start, end),
            buckets=buckets,
            aggregates=aggregates,
            fill=self.fill,
            order=self.order,
            limit=self.limit or (most if table else min(DEFAULT_LIMIT, most)),
            after=position,
            shape_points=self.points if self.points_method == "lttb" else None,
        )

    def _aggregation(self, span: Span, zone: ZoneInfo | None) -> tuple[Buckets | None, list[Aggregate]]:
        """Return what to aggregate in, and what of each bucket."""
        if self.bucket is not None and self.points is not None:
            raise InvalidRequestError.in_query(
                "points", "bucket and points exclude each other: points choose the bucket's width"
            )
        if self.points_method is not None and self.points is None:
            raise InvalidRequestError.in_query("points_method", "it needs points")
        if self.points_method == "lttb":
            self._check_shape()
            return None, []
        if self.points is not None:
            buckets: Buckets | None = buckets_for(span, self.points)
            default = POINT_AGGREGATES
        else:
            buckets = _buckets(self.bucket, zone) if self.bucket is not None else None
            default = ("avg",)
        if buckets is None:
            for name in ("aggregate", "fill"):
                if getattr(self, name) is not None:
                    raise InvalidRequestError.in_query(name, "it needs a bucket")
            return None, []
        names = default if self.aggregate is None else self.aggregate.split(",")
        return buckets, [_AGGREGATES[name] for name in dict.fromkeys(names)]

    def _check_shape(self) -> None:
        if self.points is not None and not FEWEST <= self.points <= MOST_SHAPE_POINTS:
            raise InvalidRequestError.in_query(
                "points", f"with points_method=lttb it may be {FEWEST} to {MOST_SHAPE_POINTS}"
            )
        for name in ("aggregate", "fill"):
            if getattr(self, name) is not None:
                raise InvalidRequestError.in_query(name, "points_method=lttb gives stored values, which have none")


_AGGREGATES: Final[dict[str, Aggregate]] = {name: name for name in get_args(Aggregate.__value__)}


def _buckets(text: str, zone: ZoneInfo | None) -> Buckets:
    try:
        return parse_buckets(text, zone)
    except ValueError as error:
        raise InvalidRequestError.in_query("bucket", str(error)) from None


def _zone(name: str) -> ZoneInfo | None:
    try:
        return parse_zone(name)
    except ValueError as error:
        raise InvalidRequestError.in_query("tz", str(error)) from None


class ManyMeasurementParameters(MeasurementParameters):
    """Selects measurements of devices."""

    device: Annotated[
        list[
            Annotated[
                str,
                Field(max_length=63, json_schema_extra={"pattern": DEVICE_PATTERN}),
                in_words(DEVICE_PATTERN, DEVICE_WORDS),
            ]
        ],
        Field(
            description=f"Name of a device, or its EUI in any spelling; to be repeated for several, {MAX_SERIES} at most.",
            min_length=1,
            max_length=MAX_SERIES,
            examples=[["sensor-0001", "sensor-0002"]],
        ),
    ]


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
    sum: Annotated[float | None, Field(description="Null where a number can't be as large.")] = None
    min: float | None = None
    max: float | None = None
    first: float | None = None
    last: float | None = None
    difference: Annotated[float | None, Field(description="Null where a number can't be as large.")] = None
    p50: float | None = None
    p95: float | None = None
    p99: float | None = None
    time_weighted_avg: float | None = None
    count: Annotated[int | None, Field(ge=0)] = None


class UnitOfMetric(BaseModel):
    """The unit of a metric."""

    model_config = ConfigDict(extra="forbid")

    metric: MetricName
    unit: Unit
    unit_text: UnitText


class UnitOfMetricOfDevice(UnitOfMetric):
    """The unit of a metric, and of which device."""

    device: DeviceName


class _Page(BaseModel):
    model_config = ConfigDict(extra="forbid")

    next: Annotated[str | None, Field(description="Cursor of what is over the limit, else null.", examples=[None])]
    sources: Annotated[
        list[Source] | None,
        Field(
            description="With `bucket`: what the aggregates are made of, the coarsest that answers exactly: rollups of days (UTC) or of hours,"
            " or stored values. Counts of texts are made of stored values.",
            examples=[["1d", "raw"]],
        ),
    ] = None
    notes: Annotated[
        list[str] | None,
        Field(
            description="What to know about the rows; missing where there is nothing.",
            examples=[["null stands for aggregates that are larger than a number can be, about 1.8e308"]],
        ),
    ] = None


_UNITS: Final = Field(
    description="Units of the metrics in the answer, by the devices' profiles; missing where none is known."
)


class MeasurementList(_Page):
    """Measurements of a device by time; with `bucket`, aggregates."""

    device: DeviceName
    measurements: list[Measurement | MeasurementBucket]
    units: Annotated[list[UnitOfMetric] | None, _UNITS] = None


class MeasurementOfDevice(Measurement):
    """A stored value, and whose it is."""

    device: DeviceName


class MeasurementBucketOfDevice(MeasurementBucket):
    """The aggregates of a bucket, and whose they are."""

    device: DeviceName


class MeasurementsOfDevices(_Page):
    """Measurements of devices by time; with `bucket`, aggregates."""

    devices: list[DeviceName]
    measurements: list[MeasurementOfDevice | MeasurementBucketOfDevice]
    units: Annotated[list[UnitOfMetricOfDevice] | None, _UNITS] = None


CSV_EXAMPLE = "time,metric,value\r\n2026-11-24T22:15:00Z,temperature,21.5\r\n"
CSV_EXAMPLE_OF_DEVICES = "time,device,metric,value\r\n2026-11-24T22:15:00Z,sensor-0001,temperature,21.5\r\n"
