"""Settings of the mock broker and its fleet."""

import ipaddress
from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from sens_common.names import TENANT_RULE, is_tenant_name
from sens_common.settings import Group, OperationsSettings, Port, ServiceSettings


def _address(text: str) -> str:
    """Check an IP address: the broker's configuration takes no host name."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        raise ValueError("must be an IP address, such as 127.0.0.1, 0.0.0.0 or ::1") from None
    return text


def _tenant(text: str) -> str:
    if not is_tenant_name(text):
        raise ValueError(f"a tenant's name has {TENANT_RULE}")
    return text


class BrokerSettings(Group):
    """The broker."""

    enabled: bool = Field(
        True, description="Whether the broker runs. Without it the fleet publishes to the broker at HOST and PORT."
    )
    host: Annotated[str, AfterValidator(_address)] = Field(
        "127.0.0.1", description="IP address to listen on; images listen on all addresses."
    )
    port: Port = Field(1883, description="Port for MQTT 3.1.1 and MQTT 5.")
    port_v5: Port = Field(1884, description="Second port, the same as the first; MQTT 5 had one of its own once.")
    max_packet_bytes: int = Field(
        1 << 20,
        ge=1 << 16,
        le=16 << 20,
        description="Largest packet a client may send; a larger one ends its connection.",
    )
    max_connections: int = Field(
        1000,
        ge=2,
        le=10_000,
        description="Largest number of clients. Twice as many sessions are kept, with those of clients that are away.",
    )
    buffer_bytes: int = Field(
        64 << 20,
        ge=1 << 20,
        le=8 << 30,
        description="What the broker keeps in memory for one session, while its client is slow or away. "
        "When it is full, the oldest messages of the tenant that fills most of it are dropped. Retained messages together may take as much.",
    )
    mark_repeated: bool = Field(
        True,
        description="Whether messages that are sent again are marked as such (DUP). Some brokers don't; "
        "what reads from them must not rely on it.",
    )
    probe_seconds: float = Field(
        5, ge=0.05, le=600, description="Seconds between the broker's own tries to connect as a client does."
    )
    probe_failures: int = Field(
        4, ge=1, le=1000, description="So many tries may fail in a row; then the broker ends, to be started again."
    )

    @model_validator(mode="after")
    def _two_ports(self) -> Self:
        if self.port == self.port_v5:
            raise ValueError("PORT and PORT_V5 must differ")
        return self


class FleetSettings(Group):
    """The simulated sensors."""

    enabled: bool = Field(True, description="Whether simulated sensors publish.")
    devices: int = Field(10, ge=1, le=10_000, description="Number of simulated sensors.")
    rate: float = Field(
        10,
        ge=0.001,
        le=20_000,
        description="Messages per second of the whole fleet; drop-outs make it a few percent less.",
    )
    seed: int = Field(1, ge=0, le=2**63 - 1, description="Seed of all series: the same seed gives the same values.")
    tenant: Annotated[str, AfterValidator(_tenant)] = Field(
        "demo",
        description="Tenant of the sensors. It must exist, or their messages become dead letters.",
    )
    malformed_share: float = Field(
        0.001, ge=0, le=1, description="Share of messages that are malformed on purpose, 0 to 1."
    )


class MockBrokerSettings(ServiceSettings):
    """Settings of the mock broker."""

    broker: BrokerSettings = BrokerSettings()
    fleet: FleetSettings = FleetSettings()
    operations: OperationsSettings = OperationsSettings()
