"""Codecs in requests and answers."""

from typing import Annotated, Any, Final, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StrictBool, model_validator

from sens_platform_api.codecs.repository import Codec, Version, WholeVersion
from sens_platform_api.fields import NextCursor, Time, json_of
from sens_platform_api.parameters import time_text

MAX_SOURCE_BYTES: Final = 262_144
_MAX_EXAMPLES_BYTES: Final = 262_144


def _source(text: str) -> str:
    if len(text.encode()) > MAX_SOURCE_BYTES:
        raise ValueError(f"it may have {MAX_SOURCE_BYTES:,} bytes")
    return text


CodecName = Annotated[str, Field(description="Name of the codec.", examples=["dragino"])]
Source = Annotated[
    str,
    Field(
        description="JavaScript, as the LoRaWAN Payload Codec API has it: a function `decodeUplink(input)`.",
        min_length=1,
        examples=["function decodeUplink(input) { return {data: {temperature: input.bytes[0] / 10}}; }"],
    ),
    json_of(2 * MAX_SOURCE_BYTES),
    AfterValidator(_source),
]


class CodecExample(BaseModel):
    """A frame of a device, and what the codec has to make of it: `fields`, or an error."""

    model_config = ConfigDict(extra="forbid")

    bytes: Annotated[
        str,
        Field(description="The device's bytes, hexadecimal.", pattern=r"^(?:[0-9A-Fa-f]{2}){0,1024}$", examples=["d7"]),
    ]
    f_port: Annotated[
        int, Field(description="LoRaWAN port, 0 where there is none.", ge=0, le=255, strict=True, examples=[2])
    ] = 0
    fields: Annotated[
        dict[str, bool | float | str] | None,
        Field(description="Values, members of objects joined with a dot.", examples=[{"temperature": 21.5}]),
    ] = None
    error: Annotated[
        StrictBool | str,
        Field(description="Whether it has to fail, or words that the error has to hold.", examples=[False]),
    ] = False

    @model_validator(mode="after")
    def _expects_one(self) -> Self:
        if (self.fields is None) == (self.error is False):
            raise ValueError("an example has either fields or error")
        return self

    def document(self) -> dict[str, Any]:
        """Return it as it is stored."""
        expected = {"error": self.error} if self.fields is None else {"fields": self.fields}
        return {"bytes": self.bytes.lower(), "f_port": self.f_port, **expected}


class NewVersion(BaseModel):
    """A version of a codec that should be added."""

    model_config = ConfigDict(extra="forbid")

    source: Source
    examples: Annotated[
        list[CodecExample],
        Field(description="What it has to make of some frames.", max_length=100),
        json_of(_MAX_EXAMPLES_BYTES),
    ] = []


class TriedCodec(BaseModel):
    """What is wrong with a codec."""

    model_config = ConfigDict(extra="forbid")

    problems: Annotated[
        list[str],
        Field(
            description="A sentence for each; none when it can be saved.",
            examples=[["example 1: it gave a: 10, not a: 11"]],
        ),
    ]


class CodecVersion(BaseModel):
    """A version of a codec; it never changes."""

    model_config = ConfigDict(extra="forbid")

    codec: CodecName
    version: Annotated[int, Field(description="From 1.", examples=[3])]
    sha256: Annotated[str, Field(description="Of the source in UTF-8, hexadecimal.", examples=["00ff" * 16])]
    bytes: Annotated[int, Field(description="Size of the source.", examples=[1200])]
    examples: Annotated[int, Field(description="How many examples it has.", examples=[2])]
    created_at: Annotated[Time, Field(description="When it was made.")]
    created_by: Annotated[str, Field(description="Who made it.", examples=["key 3 (grafana)"])]
    profiles: Annotated[list[str], Field(description="The profiles that use it.", examples=[["climate"]])]

    @classmethod
    def of(cls, codec: str, version: Version) -> Self:
        """Return the document of a version."""
        return cls(**_members(codec, version))


class WholeCodecVersion(BaseModel):
    """A version of a codec, with its source and examples."""

    model_config = ConfigDict(extra="forbid")

    version: CodecVersion
    source: Source
    examples: list[dict[str, Any]]

    @classmethod
    def of(cls, codec: str, found: WholeVersion) -> Self:
        """Return the document of a version."""
        return cls(version=CodecVersion.of(codec, found.version), source=found.source, examples=found.examples)


def _members(codec: str, version: Version) -> dict[str, Any]:
    members = version._asdict()
    return {
        "codec": codec,
        "version": members.pop("number"),
        "bytes": members.pop("source_bytes"),
        **members,
        "created_at": time_text(version.created_at),
    }


class CodecVersionList(BaseModel):
    """The versions of a codec, the newest first."""

    model_config = ConfigDict(extra="forbid")

    versions: list[CodecVersion]


class CodecSummary(BaseModel):
    """A codec."""

    model_config = ConfigDict(extra="forbid")

    codec: CodecName
    newest: Annotated[int | None, Field(description="Its newest version, null when it has none.", examples=[3])]
    versions: Annotated[int, Field(description="How many it has.", examples=[3])]
    created_at: Annotated[Time, Field(description="When its first version was made.")]

    @classmethod
    def of(cls, codec: Codec) -> Self:
        """Return the document of a codec."""
        return cls(
            codec=codec.name, newest=codec.newest, versions=codec.versions, created_at=time_text(codec.created_at)
        )


class CodecList(BaseModel):
    """A page of codecs, by name."""

    model_config = ConfigDict(extra="forbid")

    codecs: list[CodecSummary]
    next: NextCursor
