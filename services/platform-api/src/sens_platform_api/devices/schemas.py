"""Devices in requests and answers."""

from datetime import datetime
from typing import Annotated

import orjson
from pydantic import BaseModel, ConfigDict, Field

from sens_platform_api.calibrations.schemas import CalibrationParameters
from sens_platform_api.devices.repository import Device, Latest, LatestOfDevice
from sens_platform_api.devices.service import MAX_VALUES, DevicePage
from sens_platform_api.fields import (
    DeviceName,
    Kind,
    MetricName,
    NextCursor,
    Time,
    Unit,
    UnitText,
    Value,
    unit_members,
)
from sens_platform_api.parameters import Parameters, cursor_field, in_words, time_text

PREFIX_PATTERN = r"^[A-Za-z0-9._-]{0,63}$"


LastSeen = Annotated[
    str | None,
    Field(
        description="When the platform last received a message of the device, up to a minute old; null when none came since versions"
        " that note it.",
        json_schema_extra={"format": "date-time"},
        examples=["2026-11-24T22:15:00.123456Z"],
    ),
]


def _last_seen(device: Device) -> str | None:
    return None if device.last_seen is None else time_text(device.last_seen)


class DeviceListParameters(Parameters):
    """Selects devices."""

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

    device: DeviceName
    created_at: Annotated[Time, Field(description="When its first message was stored.")]
    last_seen: LastSeen

    @classmethod
    def of(cls, device: Device) -> "DeviceSummary":
        """Return the summary of a device."""
        return cls(device=device.name, created_at=time_text(device.created_at), last_seen=_last_seen(device))


class DeviceList(BaseModel):
    """A page of devices."""

    model_config = ConfigDict(extra="forbid")

    devices: list[DeviceSummary]
    next: NextCursor


class MetricSummary(BaseModel):
    """A metric of a device."""

    model_config = ConfigDict(extra="forbid")

    metric: MetricName
    kind: Kind
    unit: Unit = None
    unit_text: UnitText = None
    last_measured_at: Time

    @classmethod
    def of(cls, latest: Latest) -> "MetricSummary":
        """Return the summary of the metric of a value."""
        series = latest.series
        members = {"metric": series.name, "kind": series.kind, "last_measured_at": time_text(latest.measured_at)}
        return cls.model_validate(members | unit_members(series.unit))


class DeviceDetails(DeviceSummary):
    """A device and its metrics."""

    metrics: list[MetricSummary]

    @classmethod
    def with_metrics(cls, found: LatestOfDevice) -> "DeviceDetails":
        """Return the document of a device and its metrics."""
        return cls(
            device=found.device.name,
            created_at=time_text(found.device.created_at),
            last_seen=_last_seen(found.device),
            metrics=[MetricSummary.of(one) for one in found.latest],
        )


class LatestValue(BaseModel):
    """The last measured value of a metric."""

    model_config = ConfigDict(extra="forbid")

    metric: MetricName
    kind: Kind
    time: Time
    value: Value
    unit: Unit = None
    unit_text: UnitText = None

    @classmethod
    def of(cls, latest: Latest) -> "LatestValue":
        """Return the document of a value."""
        return cls.model_validate(_latest_members(latest, time_text(latest.measured_at)))


def _latest_members(latest: Latest, time: str) -> dict[str, object]:
    _, name, kind, unit = latest.series
    return {"metric": name, "kind": kind, "time": time, "value": latest.value, **unit_members(unit)}


class LatestValues(BaseModel):
    """The last measured value of each metric of a device."""

    model_config = ConfigDict(extra="forbid")

    device: DeviceName
    latest: list[LatestValue]

    @classmethod
    def of(cls, found: LatestOfDevice) -> "LatestValues":
        """Return the document of a device's latest values."""
        return cls(device=found.device.name, latest=[LatestValue.of(one) for one in found.latest])


class LatestListParameters(CalibrationParameters, DeviceListParameters):
    """Selects devices whose latest values are shown."""

    limit: Annotated[
        int,
        Field(
            description=f"Devices on a page. There are fewer where they have more than {MAX_VALUES:,} values.",
            ge=1,
            le=10_000,
            examples=[100],
        ),
    ] = 100


class LatestOfOneDevice(LatestValues):
    """A device with the last measured value of each of its metrics."""

    last_seen: LastSeen


class LatestList(BaseModel):
    """A page of devices with the last measured value of each of their metrics."""

    model_config = ConfigDict(extra="forbid")

    devices: list[LatestOfOneDevice]
    next: NextCursor


def render_latest(page: DevicePage[LatestOfDevice], following: str | None) -> bytes:
    """Return the document of the shape of `LatestList`; as models, a page of 10,000 devices would take seconds."""
    times: dict[datetime, str] = {}

    def text(time: datetime) -> str:
        return times.get(time) or times.setdefault(time, time_text(time))

    devices = [
        {
            "device": device.name,
            "latest": [_latest_members(one, text(one.measured_at)) for one in latest],
            "last_seen": _last_seen(device),
        }
        for device, latest in page.devices
    ]
    return orjson.dumps({"devices": devices, "next": following})
