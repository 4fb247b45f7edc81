"""Imports in requests and answers."""

import re
from typing import Annotated, Final, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from sens_common.times import EPOCH
from sens_platform_api.fields import DeviceName, MetricName, Time, Value
from sens_platform_api.imports.lines import Line, Message
from sens_platform_api.imports.service import MOST_LINES, Imported, Refused
from sens_platform_api.parameters import NAME_PATTERN, NAME_WORDS, time_text

MOST_SHOWN_ROWS: Final = 1000


def _name(text: str) -> str:
    if not re.fullmatch(NAME_PATTERN, text):
        raise ValueError(NAME_WORDS)
    return text


class LineDocument(BaseModel):
    """A line of a file."""

    model_config = ConfigDict(extra="forbid")

    line: Annotated[int, Field(description="Its number.", ge=1, le=1 << 53, examples=[17])]
    device: Annotated[
        str | None,
        Field(
            description="The device of a native payload; null for a message of a source.",
            max_length=63,
            examples=["sensor-0001"],
        ),
    ] = None
    payload: Annotated[
        str,
        Field(
            description="A native payload with its time in `ts`, or a message of the source.",
            max_length=262_144,
            examples=['{"ts":"2024-01-31T12:00:00Z","temperature":21.5}'],
        ),
    ]


class ImportDocument(BaseModel):
    """Some lines of a file, in its order."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[
        str,
        Field(
            description="Names the import, the same for all of its requests. The same lines again under the same name are put into the stream once,"
            " within JetStream's window for duplicates; later, they are duplicates by their times.",
            min_length=1,
            max_length=200,
            examples=["history.csv 1048576"],
        ),
    ]
    source: Annotated[
        str | None,
        Field(
            description="The source that reads the lines; null for native payloads.",
            max_length=63,
            json_schema_extra={"pattern": NAME_PATTERN},
            examples=[None],
        ),
        AfterValidator(lambda text: text if text is None else _name(text)),
    ] = None
    topic: Annotated[
        str | None,
        Field(
            description="MQTT topic that the messages of the source were published to; null for HTTP.",
            max_length=1024,
            examples=[None],
        ),
    ] = None
    dry_run: Annotated[
        bool, Field(description="Whether to tell only what would be stored.", strict=True, examples=[False])
    ] = False
    lines: Annotated[list[LineDocument], Field(description="The lines.", min_length=1, max_length=MOST_LINES)]

    @model_validator(mode="after")
    def _names_devices_or_a_source(self) -> Self:
        if self.source is None and self.topic is not None:
            raise ValueError("a topic is that of a source's messages; name the source")
        if any((each.device is None) != (self.source is not None) for each in self.lines):
            raise ValueError("each line has a device where there is no source, and none where there is one")
        return self

    def of_lines(self) -> list[Line]:
        """Return the lines."""
        return [Line(each.line, each.device, each.payload.encode(errors="surrogatepass")) for each in self.lines]


class RefusedLine(BaseModel):
    """Why a line is not imported."""

    model_config = ConfigDict(extra="forbid")

    line: Annotated[int, Field(description="Its number.", examples=[17])]
    reason: Annotated[str, Field(description="As a dead letter would have it.", examples=["invalid_time"])]
    detail: Annotated[str, Field(description="For people.", examples=["a line is a JSON object with its time in ts"])]


class ImportedRow(BaseModel):
    """A value as it would be stored."""

    model_config = ConfigDict(extra="forbid")

    line: Annotated[int, Field(description="Number of the line.", examples=[17])]
    device: DeviceName
    time: Time
    metric: MetricName
    value: Value


class ImportResult(BaseModel):
    """What became of some lines."""

    model_config = ConfigDict(extra="forbid")

    accepted: Annotated[int, Field(description="Lines that are in the stream, and will be stored.", examples=[499])]
    without_measurements: Annotated[
        int, Field(description="Those of them that carry no measurements by their nature.", examples=[0])
    ]
    refused: Annotated[list[RefusedLine], Field(description="Lines that are not imported.")]
    rows: Annotated[
        list[ImportedRow] | None,
        Field(
            description=f"With `dry_run`: the first {MOST_SHOWN_ROWS:,} values that would be stored. Values of a source have the names of its fields."
        ),
    ] = None

    @classmethod
    def of(cls, imported: Imported, *, with_rows: bool) -> Self:
        """Return the document of a result."""
        return cls(
            accepted=len(imported.messages),
            without_measurements=sum(message.readings is None for message in imported.messages),
            refused=[_refused(each) for each in imported.refused],
            rows=_rows(imported.messages) if with_rows else None,
        )


def _refused(each: Refused) -> RefusedLine:
    return RefusedLine(line=each.line, reason=each.reason, detail=each.detail)


def _rows(messages: list[Message]) -> list[ImportedRow]:
    rows = (
        ImportedRow(
            line=message.line,
            device=reading.device,
            time=time_text(EPOCH + reading.measured_at * EPOCH.resolution),
            metric=name,
            value=value,
        )
        for message in messages
        for reading in message.readings or ()
        for name, value in (reading.values or {}).items()
    )
    return [row for row, _ in zip(rows, range(MOST_SHOWN_ROWS), strict=False)]
