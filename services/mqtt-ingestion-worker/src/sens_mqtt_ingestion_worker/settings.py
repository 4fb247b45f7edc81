"""Settings of the ingestion worker."""

from typing import Annotated, ClassVar

from pydantic import AfterValidator, Field, SecretStr

from sens_common.brokers import Version, checked_pattern
from sens_common.names import REPLAY_PUBLISHER
from sens_common.settings import Group, NatsSettings, OperationsSettings, ServiceSettings
from sens_common.topic_filters import checked
from sens_common.topics import NATIVE_PATTERN
from sens_mqtt_ingestion_worker import filters


def _client_id(text: str) -> str:
    if text == REPLAY_PUBLISHER:
        raise ValueError(f"{REPLAY_PUBLISHER!r} is reserved")
    return text


class MqttSettings(Group):
    """The broker and the session with it."""

    version: ClassVar[Version] = "5"
    clean_session: ClassVar[bool] = False
    max_waiting_bytes: ClassVar[int] = 64 << 20

    url: str = Field(
        "mqtt://127.0.0.1:1883",
        pattern=r"^mqtts?://[^/\s@]+$",
        description="Broker, mqtt://host:port or mqtts://host:port (TLS); it must speak MQTT 5. Without credentials.",
    )
    username: str | None = Field(None, max_length=65_535, description="User name.")
    password: SecretStr | None = Field(None, description="Password of the user.")
    ca_file: str | None = Field(
        None, description="Path of the certificate authority that signed the broker's certificate."
    )
    client_id: Annotated[str, AfterValidator(_client_id)] = Field(
        "sens-mqtt-ingestion-worker-0",
        min_length=1,
        max_length=100,
        pattern=r"^[A-Za-z0-9_.-]+$",
        description="Client identifier, the session's name; each replica has one of its own and keeps it over restarts.",
    )
    topic_filters: Annotated[list[Annotated[str, AfterValidator(checked)]], AfterValidator(filters.apart)] = Field(
        [NATIVE_PATTERN.filter],
        min_length=1,
        max_length=100,
        description='Topic filters as a JSON list, for example ["$share/sens/sens/v1/+/+/telemetry"]; no two may match the same topic. '
        "What the session was subscribed to before is unsubscribed.",
    )
    receive_max: int = Field(
        4096,
        ge=1,
        le=65_535,
        description="Largest number of unacknowledged messages; the broker waits when it is reached.",
    )
    session_expiry_seconds: int = Field(
        7 * 86_400,
        ge=60,
        le=0xFFFFFFFE,
        description="How long the broker keeps the session, and queues for it, while the worker is away.",
    )
    keep_alive_seconds: int = Field(
        30, ge=5, le=3600, description="Time without traffic after which the connection is probed."
    )
    connect_timeout_seconds: float = Field(10, gt=0, le=300, description="Time limit for connecting and subscribing.")
    max_packet_bytes: int = Field(
        1_000_000,
        ge=1024,
        le=8_000_000,
        description="Largest packet the broker may send; lowered to what NATS takes. The broker drops larger messages.",
    )


class BrokersSettings(Group):
    """Brokers of tenants' own, which their sources name."""

    allowed_hosts: list[Annotated[str, AfterValidator(checked_pattern)]] = Field(
        [],
        max_length=1000,
        description='Brokers that sources may name, host:port as a JSON list, for example ["eu1.cloud.thethings.network:8883"]; * stands for any '
        "characters of the host, or for any port. None by default. A host with * may not lead to addresses of private networks or of this machine.",
    )
    credentials_folder: str = Field(
        "/etc/sens/brokers",
        description="Folder of credentials: TENANT/NAME/ with the files username, password, ca.crt, tls.crt and tls.key, as far as each is needed. "
        "They are read again when they change.",
    )
    max_count: int = Field(16, ge=0, le=1000, description="Largest number of such brokers that one worker serves.")
    max_per_tenant: int = Field(4, ge=1, le=1000, description="Largest number of them of one tenant.")
    receive_max: int = Field(
        256, ge=1, le=65_535, description="Largest number of unacknowledged messages of each of them."
    )
    messages_per_second: int = Field(
        1000,
        ge=1,
        le=100_000,
        description="Messages a second that are taken from each of them; what is more waits there.",
    )


class IngestionSettings(ServiceSettings):
    """Settings of the ingestion worker."""

    mqtt: MqttSettings = MqttSettings()
    brokers: BrokersSettings = BrokersSettings()
    nats: NatsSettings = NatsSettings()
    operations: OperationsSettings = OperationsSettings()
    shutdown_seconds: float = Field(
        8, gt=0, le=600, description="Time limit for finishing what is under way at a stop."
    )
