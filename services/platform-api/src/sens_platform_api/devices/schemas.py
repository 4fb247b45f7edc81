"""How devices look in requests and answers."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from sens_platform_api.devices.repository import Device, Latest
from sens_platform_api.parameters import Parameters, cursor_field, in_words, time_text

Name = Annotated[str, Field(description="Canonical name of the device.", examples=["sensor-0001"])]
Time = Annotated[
    str,
    Field(
        description="RFC 3339, UTC.",
        json_schema_extra={"format": "date-time"},
        examples=["2026-11-24T22:15:00.123456Z"],
    ),
]
Kind = Annotated[Literal["number", "boolean", "text"], Field(description="Kind of the values.", examples=["number"])]
MetricName = Annotated[str, Field(description="Name of the metric.", examples=["temperature"])]
Value = Annotated[float | bool | str, Field(description="The value, in its kind.", examples=[21.5])]


PREFIX_PATTERN = r"^[A-Za-z0-9._-]{0,63}$"


class DeviceListParameters(Parameters):
    """Which devices."""

    limit: Annotated[int, Field(description="Devices on a page.", ge=1, le=1000, examples=[100])] = 100
    cursor: Annotated[str | None, cursor_field("c2Vuc29yLTAwMDE")] = None
    prefix: Annotated[
        str,
        Field(
            description="Only devices whose names begin like this.",
            max_length=63,
            examples=["sensor-"],
            json_schema_extra={"pattern": PREFIX_PATTERN},
        ),
        in_words(PREFIX_PATTERN, "names of devices hold letters, digits, dots, underscores and hyphens"),
    ] = ""


class DeviceSummary(BaseModel):
    """A device."""

    model_config = ConfigDict(extra="forbid")

    device: Name
    created_at: Annotated[Time, Field(description="When its first message was stored.")]

    @classmethod
    def of(cls, device: Device) -> "DeviceSummary":
        """Return the summary of a device."""
        return cls(device=device.name, created_at=time_text(device.created_at))


class DeviceList(BaseModel):
    """A page of devices."""

    model_config = ConfigDict(extra="forbid")

    devices: list[DeviceSummary]
    next: Annotated[str | None, Field(description="Cursor of the next page, null on the last.", examples=[None])]


class MetricSummary(BaseModel):
    """A metric of a device."""

    model_config = ConfigDict(extra="forbid")

    metric: MetricName
    kind: Kind
    last_measured_at: Time


class DeviceDetails(DeviceSummary):
    """A device and its metrics."""

    metrics: list[MetricSummary]


class LatestValue(BaseModel):
    """The last measured value of a metric."""

    model_config = ConfigDict(extra="forbid")

    metric: MetricName
    kind: Kind
    time: Time
    value: Value

    @classmethod
    def of(cls, latest: Latest) -> "LatestValue":
        """Return how a value looks."""
        return cls(
            metric=latest.series.name,
            kind=latest.series.kind,
            time=time_text(latest.measured_at),
            value=latest.value,
        )


class LatestValues(BaseModel):
    """The last measured value of each metric of a device."""

    model_config = ConfigDict(extra="forbid")

    device: Name
    latest: list[LatestValue]


def details(device: Device, latest: list[Latest]) -> DeviceDetails:
    """Return how a device and its metrics look."""
    return DeviceDetails(
        device=device.name,
        created_at=time_text(device.created_at),
        metrics=[
            MetricSummary(metric=one.series.name, kind=one.series.kind, last_measured_at=time_text(one.measured_at))
            for one in latest
        ],
    )
