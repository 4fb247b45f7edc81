"""A tenant's numbers in answers."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from sens_platform_api.fields import Time
from sens_platform_api.overview import repository
from sens_platform_api.parameters import time_text

_Count = Annotated[int, Field(ge=0)]


class Amount(BaseModel):
    """A count, and its limit."""

    model_config = ConfigDict(extra="forbid")

    count: _Count
    limit: _Count


class DeadLetters(Amount):
    """Dead letters that are kept: beyond the limit of bytes only their beginning, beyond that of their number none."""

    bytes: _Count
    byte_limit: _Count


class StoredBytes(BaseModel):
    """What readings and aggregates take on disk, about; beyond the limit, what comes goes to the dead letters."""

    model_config = ConfigDict(extra="forbid")

    bytes: _Count
    limit: Annotated[int | None, Field(description="Null without a limit.", ge=0)]


class MessagesToday(BaseModel):
    """Messages that were received on this day (UTC); received is the sum of all others."""

    model_config = ConfigDict(extra="forbid")

    received: _Count
    stored: Annotated[int, Field(description="At least one value was new.", ge=0)]
    duplicate: Annotated[int, Field(description="All values were stored before.", ge=0)]
    dead_lettered: Annotated[int, Field(description="They could not be stored, and are kept with their reason.", ge=0)]
    discarded: Annotated[int, Field(description="Over the limit of messages a second or of dead letters.", ge=0)]
    without_measurements: Annotated[
        int, Field(description="They carry none by their nature: joins, acknowledgements, simulated uplinks.", ge=0)
    ]


class Overview(BaseModel):
    """The numbers of the key's tenant."""

    model_config = ConfigDict(extra="forbid")

    tenant: Annotated[str, Field(examples=["demo"])]
    devices: Amount
    metrics: Amount
    dead_letters: DeadLetters
    stored_bytes: StoredBytes
    retention_waiting_since: Annotated[
        Time | None,
        Field(
            description="Since when something that is older than it is kept has been waiting for the aggregates; null when nothing does."
        ),
    ]
    messages_today: MessagesToday

    @classmethod
    def of(cls, tenant: str, found: repository.Overview) -> "Overview":
        """Return the answer."""
        return cls(
            tenant=tenant,
            devices=Amount(count=found.devices, limit=found.device_limit),
            metrics=Amount(count=found.metrics, limit=found.metric_limit),
            dead_letters=DeadLetters(
                count=found.dead_letters,
                limit=found.dead_letter_count_limit,
                bytes=found.dead_letter_bytes,
                byte_limit=found.dead_letter_byte_limit,
            ),
            stored_bytes=StoredBytes(bytes=found.stored_bytes, limit=found.stored_byte_limit),
            retention_waiting_since=None
            if found.retention_waiting_since is None
            else time_text(found.retention_waiting_since),
            messages_today=MessagesToday(
                received=found.received,
                stored=found.stored,
                duplicate=found.duplicate,
                dead_lettered=found.dead_lettered,
                discarded=found.discarded,
                without_measurements=found.without_measurements,
            ),
        )
