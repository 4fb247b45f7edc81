"""Members that the documents of several rooms have in common."""

from typing import Annotated, Literal

from pydantic import Field

DeviceName = Annotated[str, Field(description="Canonical name of the device.", examples=["sensor-0001"])]
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
NextCursor = Annotated[str | None, Field(description="Cursor of the next page, null on the last.", examples=[None])]
