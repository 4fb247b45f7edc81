"""Ingest keys in requests and answers."""

from datetime import UTC, datetime
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from sens_platform_api.fields import NextCursor, Time
from sens_platform_api.ingest_keys.repository import IngestKey
from sens_platform_api.ingest_keys.service import Wanted
from sens_platform_api.parameters import NAME_PATTERN, NAME_WORDS, in_words, parse_time, time_text


class NewIngestKey(BaseModel):
    """A key that is to be made."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[
        str,
        Field(description="What it is for.", min_length=1, max_length=100, examples=["gateway in the barn"]),
        in_words(r"^[^\x00-\x1f\x7f]+$", "a name has printable characters"),
    ]
    source: Annotated[
        Annotated[str, Field(max_length=63), in_words(NAME_PATTERN, NAME_WORDS)] | None,
        Field(description="The source of HTTP that it is for; null for the native topics.", examples=["push"]),
    ] = None
    device: Annotated[
        str | None,
        Field(
            description="The one device that it is for, or its EUI in any spelling; null for any.",
            max_length=63,
            examples=["sensor-0001"],
        ),
    ] = None
    expires_at: Annotated[
        str | None,
        Field(
            description="When it expires: RFC 3339, an epoch, or relative; null for never.",
            max_length=40,
            examples=["+90d"],
        ),
    ] = None

    def wanted(self) -> Wanted:
        """Return what the key is to be for.

        Raises:
            InvalidRequestError: The time is none.
        """
        expires_at = None if self.expires_at is None else parse_time("expires_at", self.expires_at)
        return Wanted(self.name, self.source, self.device, expires_at)


class IngestKeyDocument(BaseModel):
    """A key without the text that is its secret."""

    model_config = ConfigDict(extra="forbid")

    id: Annotated[int, Field(description="Its number.", examples=[7])]
    name: Annotated[str, Field(description="What it is for.", examples=["gateway in the barn"])]
    prefix: Annotated[str, Field(description="Its first characters.", examples=["sens_AbCdEfG"])]
    source: Annotated[str | None, Field(description="Its source, null for the native topics.", examples=["push"])]
    device: Annotated[str | None, Field(description="Its device, null for any.", examples=["sensor-0001"])]
    state: Annotated[Literal["valid", "revoked", "expired"], Field(description="Whether it works.", examples=["valid"])]
    created_at: Annotated[Time, Field(description="When it was made.")]
    expires_at: Annotated[Time | None, Field(description="When it expires, null for never.")]
    revoked_at: Annotated[Time | None, Field(description="When it was revoked, null while it holds.")]

    @classmethod
    def of(cls, key: IngestKey) -> Self:
        """Return the document of a key."""
        return cls(
            id=key.id,
            name=key.name,
            prefix=key.prefix,
            source=key.source,
            device=key.device,
            state=key.state(datetime.now(UTC)),
            created_at=time_text(key.created_at),
            expires_at=None if key.expires_at is None else time_text(key.expires_at),
            revoked_at=None if key.revoked_at is None else time_text(key.revoked_at),
        )


class CreatedIngestKey(BaseModel):
    """A key that was made just now; it is shown this once."""

    model_config = ConfigDict(extra="forbid")

    key: Annotated[str, Field(description="The key itself; nobody can show it again.", examples=["sens_…"])]
    created: IngestKeyDocument


class IngestKeyList(BaseModel):
    """A page of keys, by number."""

    model_config = ConfigDict(extra="forbid")

    keys: list[IngestKeyDocument]
    next: NextCursor
