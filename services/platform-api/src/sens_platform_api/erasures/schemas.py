"""Erasures in requests and answers."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from sens_platform_api.erasures.service import Receipt
from sens_platform_api.fields import Time
from sens_platform_api.parameters import DEVICE_PATTERN, DEVICE_WORDS, Parameters, in_words, time_text


class ErasureParameters(Parameters):
    """Selects a device to erase."""

    device: Annotated[
        str,
        Field(
            description="Name of the device; it may have been deleted before.",
            max_length=63,
            examples=["sensor-0001"],
            json_schema_extra={"pattern": DEVICE_PATTERN},
        ),
        in_words(DEVICE_PATTERN, DEVICE_WORDS),
    ]


class ErasureListParameters(Parameters):
    """Selects erasures."""

    limit: Annotated[int, Field(description="The newest so many.", ge=1, le=1000, examples=[100])] = 100


class ErasureReceipt(BaseModel):
    """What an erasure has done, and when nothing is left of the device anywhere."""

    model_config = ConfigDict(extra="forbid")

    id: Annotated[int, Field(description="Number of the erasure.", examples=[3])]
    device_hash: Annotated[
        str,
        Field(description="SHA-256 of the device's name, hexadecimal; the name is not kept.", examples=["5622a4f6…"]),
    ]
    erased_at: Annotated[
        Time, Field(description="Messages that were received before are erased, and never stored again.")
    ]
    finished_at: Annotated[
        Time | None, Field(description="When nothing was left in the database, null while there is.")
    ]
    readings: Annotated[int, Field(description="Readings deleted so far.", examples=[1000])]
    values: Annotated[int, Field(description="Values deleted so far.", examples=[5000])]
    dead_letters: Annotated[int, Field(description="Dead letters deleted so far.", examples=[2])]
    kept_messages: Annotated[
        int, Field(description="Messages deleted so far that its sources had kept.", examples=[1000])
    ]
    stream_free_at: Annotated[
        Time,
        Field(description="From when on the stream's history no longer holds its messages, if all was stored in time."),
    ]
    backups_free_at: Annotated[
        Time | None, Field(description="From when on no backup holds them; null where no backups are configured.")
    ]
    backups: Annotated[str, Field(description="The same in words.", examples=["no backups are configured"])]

    @classmethod
    def of(cls, receipt: Receipt) -> "ErasureReceipt":
        """Return the document of a receipt."""
        erasure, free_at = receipt.erasure, receipt.backups_free_at
        return cls(
            id=erasure.id,
            device_hash=erasure.device_hash.hex(),
            erased_at=time_text(erasure.erased_at),
            finished_at=None if erasure.finished_at is None else time_text(erasure.finished_at),
            readings=erasure.readings,
            values=erasure.values,
            dead_letters=erasure.letters,
            kept_messages=erasure.frames,
            stream_free_at=time_text(receipt.stream_free_at),
            backups_free_at=None if free_at is None else time_text(free_at),
            backups="no backups are configured" if free_at is None else f"the last backup ends at {time_text(free_at)}",
        )


class ErasureList(BaseModel):
    """Erasures, the newest first."""

    model_config = ConfigDict(extra="forbid")

    erasures: list[ErasureReceipt]
