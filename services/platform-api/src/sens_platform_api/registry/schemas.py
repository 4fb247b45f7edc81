"""Metrics and deletions in requests and answers."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from sens_platform_api.fields import DeviceName, Kind, MetricName, NextCursor, Time
from sens_platform_api.parameters import (
    DEVICE_PATTERN,
    DEVICE_WORDS,
    METRIC_PATTERN,
    METRIC_WORDS,
    Parameters,
    cursor_field,
    in_words,
    time_text,
)
from sens_platform_api.registry.repository import Metric


class MetricListParameters(Parameters):
    """Selects metrics."""

    limit: Annotated[int, Field(description="Metrics on a page.", ge=1, le=1000, examples=[100])] = 100
    cursor: Annotated[str | None, cursor_field("dGVtcGVyYXR1cmUAbnVtYmVy")] = None
    prefix: Annotated[
        str, Field(description="Only metrics whose names begin like this.", max_length=255, examples=["battery."])
    ] = ""


class DeletionParameters(Parameters):
    """Selects a metric to delete."""

    metric: Annotated[
        str,
        Field(
            description="Name of the metric.",
            max_length=255,
            examples=["battery.voltage"],
            json_schema_extra={"pattern": METRIC_PATTERN},
        ),
        in_words(METRIC_PATTERN, METRIC_WORDS),
    ]
    kind: Annotated[
        Kind | None, Field(description="Only values of this kind. Without it, all kinds.", examples=["number"])
    ] = None


class RenamingParameters(Parameters):
    """Says a device's new name."""

    name: Annotated[
        str,
        Field(
            description="The new name.",
            max_length=63,
            examples=["sensor-0001-old"],
            json_schema_extra={"pattern": DEVICE_PATTERN},
        ),
        in_words(DEVICE_PATTERN, DEVICE_WORDS),
    ]


class RenamedDevice(BaseModel):
    """A device that has another name."""

    model_config = ConfigDict(extra="forbid")

    device: DeviceName


class MovingParameters(Parameters):
    """Says what a moved device is called."""

    name: Annotated[
        str | None,
        Field(
            description="Its name in the other tenant; the same where this is left out.",
            max_length=63,
            examples=["greenhouse-7"],
            json_schema_extra={"pattern": DEVICE_PATTERN},
        ),
        in_words(DEVICE_PATTERN, DEVICE_WORDS),
    ] = None


class MovedDevice(BaseModel):
    """A device that belongs to another tenant now."""

    model_config = ConfigDict(extra="forbid")

    device: DeviceName
    tenant: Annotated[str, Field(description="The tenant that it belongs to.", examples=["greenhouse"])]
    deletion: Annotated[
        int,
        Field(description="Number in the list of deletions, of both tenants: how far its history is.", examples=[17]),
    ]


class TenantMetric(BaseModel):
    """A metric."""

    model_config = ConfigDict(extra="forbid")

    metric: MetricName
    kind: Kind
    created_at: Annotated[Time, Field(description="When its first message was stored.")]

    @classmethod
    def of(cls, metric: Metric) -> "TenantMetric":
        """Return the document of a metric."""
        return cls(metric=metric.name, kind=metric.kind, created_at=time_text(metric.created_at))


class TenantMetricList(BaseModel):
    """A page of metrics."""

    model_config = ConfigDict(extra="forbid")

    metrics: list[TenantMetric]
    next: NextCursor


class DeletedDevice(BaseModel):
    """A device that is deleted."""

    model_config = ConfigDict(extra="forbid")

    device: DeviceName


class DeletedMetric(BaseModel):
    """A metric that is deleted."""

    model_config = ConfigDict(extra="forbid")

    metric: MetricName
    kinds: Annotated[list[Kind], Field(description="The kinds of values that it had.")]
