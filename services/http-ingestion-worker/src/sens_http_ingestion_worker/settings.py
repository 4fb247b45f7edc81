"""Settings of the HTTP ingestion worker."""

from typing import Annotated

from pydantic import AfterValidator, Field

from sens_common.names import REPLAY_PUBLISHER
from sens_common.settings import Group, NatsSettings, OperationsSettings, Port, ServiceSettings


def _publisher(text: str) -> str:
    if text == REPLAY_PUBLISHER:
        raise ValueError(f"{REPLAY_PUBLISHER!r} is reserved")
    return text


class IngestionHttpSettings(Group):
    """The port to which messages are posted."""

    host: str = Field("127.0.0.1", description="Address to listen on; images listen on all addresses.")
    port: Port = Field(8090, description="Port to listen on.")
    publisher: Annotated[str, AfterValidator(_publisher)] = Field(
        "sens-http-ingestion-worker-0",
        min_length=1,
        max_length=100,
        pattern=r"^[A-Za-z0-9_.-]+$",
        description="Name under which messages are published; each replica has one of its own and keeps it over restarts.",
    )
    max_body_bytes: int = Field(
        900_000,
        ge=1024,
        le=8_000_000,
        description="Largest body, unpacked; lowered to what NATS takes. A larger one is answered with 413.",
    )
    max_bodies_bytes: int = Field(
        64_000_000,
        ge=1_000_000,
        le=4_000_000_000,
        description="Bodies in memory, of all requests together; a tenant may have a quarter of it. Beyond, requests are answered with 503 or 429.",
    )
    max_connections: int = Field(
        2000,
        ge=1,
        le=50_000,
        description="Connections at the same time; the one that has been idle for longest makes room.",
    )
    header_seconds: float = Field(10, gt=0, le=300, description="Time limit for a request's header.")
    body_seconds: float = Field(30, gt=0, le=600, description="Time limit for a request's body.")
    idle_seconds: float = Field(75, gt=0, le=3600, description="How long a connection may have no request.")
    answer_seconds: float = Field(
        4,
        gt=0,
        le=60,
        description="Time limit for the answer once the body is there: what the stream has not stored by then is answered with 503.",
    )


class IngestionHttpsSettings(Group):
    """For a worker that is public through a proxy that ends TLS."""

    only: bool = Field(
        False, description="Refuse what a proxy was asked for by plain HTTP, as it tells in X-Forwarded-Proto."
    )


class SourcesSettings(Group):
    """Sources that take messages by HTTP."""

    credentials_folder: str = Field(
        "/etc/sens/sources",
        description="Folder of credentials: TENANT/SOURCE/as-key with the AS key (tunnel interface authentication key) of a connection of Actility ThingPark."
        " Requests of a source that has a folder here have to be signed with its key. Read again every three seconds.",
    )


class IngestionSettings(ServiceSettings):
    """Settings of the HTTP ingestion worker."""

    http: IngestionHttpSettings = IngestionHttpSettings()
    https: IngestionHttpsSettings = IngestionHttpsSettings()
    sources: SourcesSettings = SourcesSettings()
    nats: NatsSettings = NatsSettings()
    operations: OperationsSettings = OperationsSettings()
