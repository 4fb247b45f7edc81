"""Members that the documents of several rooms have in common."""

import json
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from sens_common.units import unit_text
from sens_platform_api.parameters import Parameters, cursor_field, in_words

DeviceName = Annotated[str, Field(description="Canonical name of the device.", examples=["sensor-0001"])]
Time = Annotated[
    str,
    Field(
        description="RFC 3339, UTC.",
        json_schema_extra={"format": "date-time"},
        examples=["2026-11-24T22:15:00.123456Z"],
    ),
]
CalibrationChoice = Annotated[
    str | None,
    Field(
        description="`none` gives values as they are stored, without calibrations.",
        max_length=4,
        json_schema_extra={"pattern": "^none$"},
        examples=["none"],
    ),
    in_words("^none$", "it may be none; without it, values are calibrated"),
]
Kind = Annotated[Literal["number", "boolean", "text"], Field(description="Kind of the values.", examples=["number"])]
MetricName = Annotated[str, Field(description="Name of the metric.", examples=["temperature"])]
Value = Annotated[float | bool | str, Field(description="The value, in its kind.", examples=[21.5])]
Unit = Annotated[
    str | None,
    Field(
        description="Unit of the values (UCUM code) by the device's profile; missing where none is known.",
        examples=["Cel"],
    ),
]
UnitText = Annotated[str | None, Field(description="The unit as people write it.", examples=["°C"])]
NextCursor = Annotated[str | None, Field(description="Cursor of the next page, null on the last.", examples=[None])]


def unit_members(unit: str | None) -> dict[str, str]:
    """Return the members of a document that tell a unit; none where no unit is known."""
    return {} if unit is None else {"unit": unit, "unit_text": unit_text(unit)}


def json_of(most_bytes: int) -> AfterValidator:
    """Return a check of what is stored as JSON: its size, and that the database can hold its texts and numbers."""

    def check[Document](document: Document) -> Document:
        try:
            size = len(json.dumps(document, ensure_ascii=False, allow_nan=False, default=_members).encode())
        except ValueError:
            raise ValueError("numbers have to be finite, and texts whole characters") from None
        if size > most_bytes:
            raise ValueError(f"it may have {most_bytes:,} bytes as JSON")
        if _holds_nul(document):
            raise ValueError("a text may not hold the character NUL")
        return document

    return AfterValidator(check)


def _members(document: Any) -> Any:
    return document.model_dump()


def _holds_nul(document: object) -> bool:
    match document:
        case str():
            return "\0" in document
        case dict():
            return any(_holds_nul(name) or _holds_nul(value) for name, value in document.items())
        case list():
            return any(map(_holds_nul, document))
        case _:
            return False


class PageParameters(Parameters):
    """Selects a page of things that have names."""

    limit: Annotated[int, Field(description="How many on a page.", ge=1, le=1000, examples=[100])] = 100
    cursor: Annotated[str | None, cursor_field("ZmllbGQ")] = None
