"""Settings of the API and of its administration command."""

import ipaddress
import re

from pydantic import Field, field_validator

from sens_common.logins import ApiLoginSettings, logged_in
from sens_common.settings import DatabaseSettings, Group, HttpsSettings, NatsSettings, Port, ServiceSettings
from sens_payloads.codecs.settings import CodecSettings


class HttpSettings(Group):
    """The API's address, and the proxies and pages in front of it."""

    host: str = Field("127.0.0.1", description="Address to listen on; images listen on all addresses.")
    port: Port = Field(8000, description="Port to listen on.")
    trusted_proxies: list[str] = Field(
        default_factory=list,
        description="Addresses and networks of proxies whose X-Forwarded-For is believed, as a JSON list; without one,"
        " a request's address is that of its connection.",
    )
    cors_origins: list[str] = Field(
        default_factory=list,
        description="Origins whose pages may read the API in a browser, as a JSON list; without one, none may.",
    )

    @field_validator("trusted_proxies")
    @classmethod
    def _are_addresses(cls, proxies: list[str]) -> list[str]:
        for proxy in proxies:
            try:
                ipaddress.ip_network(proxy)
            except ValueError:
                raise ValueError("an address or a network is needed, for example 10.42.0.0/16") from None
        return proxies

    @field_validator("cors_origins")
    @classmethod
    def _are_origins(cls, origins: list[str]) -> list[str]:
        for origin in origins:
            if origin != "*" and not re.fullmatch(r"https?://[^/\s?#@]+", origin):
                raise ValueError("an origin is needed, without a path, for example https://dashboard.example.org")
        return origins


class LimitSettings(Group):
    """Limits of requests and answers."""

    body_bytes: int = Field(524_288, ge=1024, le=10_000_000, description="Largest body of a request.")
    request_seconds: float = Field(
        30, gt=0, le=3600, description="Time limit until an answer starts; then 504. Streams may go on for longer."
    )
    stream_seconds: float = Field(600, gt=0, le=86_400, description="Time limit of one answer with measurements.")
    range_days: int = Field(
        3660, ge=1, le=36_600, description="Longest time range of one request for measurements, days."
    )
    measurements: int = Field(
        1_000_000, ge=1, le=100_000_000, description="Largest number of measurements in one answer."
    )
    readings: int = Field(
        100_000_000, ge=1, le=1_000_000_000, description="Largest number of readings in one answer of Arrow or Parquet."
    )
    key_query_seconds: float = Field(
        5, gt=0, le=3600, description="Time limit of the query for a key, and of the queries for readiness."
    )
    lookup_query_seconds: float = Field(
        10, gt=0, le=3600, description="Time limit of a query for devices, latest values and dead letters."
    )
    measurements_query_seconds: float = Field(
        15, gt=0, le=3600, description="Time limit of the query for one page of measurements."
    )
    aggregates_query_seconds: float = Field(
        25, gt=0, le=3600, description="Time limit of the query for one page of aggregates."
    )
    key_connections: int = Field(
        2, ge=1, le=20, description="Database connections for keys and readiness, beside SENS_DATABASE__POOL_SIZE."
    )
    wait_seconds: float = Field(
        5,
        gt=0,
        le=60,
        description="How long a request waits for one of its tenant's database connections, a quarter of all; then 429.",
    )
    answers: int = Field(200, ge=1, le=100_000, description="Answers with measurements at the same time.")
    answers_per_tenant: int = Field(
        20, ge=1, le=100_000, description="Answers with measurements of one tenant at the same time."
    )
    tables: int = Field(
        20, ge=1, le=10_000, description="Answers of Arrow or Parquet at the same time; each takes some MB of memory."
    )
    tables_per_tenant: int = Field(
        5, ge=1, le=10_000, description="Answers of Arrow or Parquet of one tenant at the same time."
    )
    answer_seconds: float = Field(
        60, gt=0, le=3600, description="Time limit for reading an answer that is neither measurements nor live data."
    )
    connections: int = Field(
        2000,
        ge=10,
        le=100_000,
        description="Connections at the same time; beyond it, the one that has been idle for longest is closed.",
    )
    header_seconds: float = Field(
        10, gt=0, le=600, description="Time limit for a request's header to be complete; then the connection is closed."
    )
    requests_per_minute: int = Field(6000, ge=1, le=10_000_000, description="Requests with one key in a minute.")
    wrong_keys_per_minute: int = Field(
        30, ge=1, le=1_000_000, description="Wrong keys from one address (of IPv6, one /64 network) in a minute."
    )
    import_lines_per_second: int = Field(
        5000,
        ge=1,
        le=1_000_000,
        description="Lines of imports that are put into the stream in a second, of all tenants together; what is more waits, so that live data keeps"
        " its place.",
    )
    live_readers: int = Field(1000, ge=1, le=100_000, description="Live readers at the same time.")
    live_readers_per_tenant: int = Field(
        100, ge=1, le=100_000, description="Live readers of one tenant at the same time."
    )
    live_bytes: int = Field(
        1 << 20,
        ge=65_536,
        le=1 << 30,
        description="Events that wait for one live reader, bytes; the oldest ones are dropped.",
    )
    live_total_bytes: int = Field(
        64 << 20,
        ge=1 << 20,
        le=1 << 36,
        description="Events that wait for all live readers, bytes; with many readers each has its part of it, at most live_bytes.",
    )


class ErasureSettings(Group):
    """What the receipt of an erasure says about copies that can't be edited."""

    history_seconds: int = Field(
        86_400,
        ge=60,
        le=31_536_000,
        description="How long the stream keeps stored messages: SENS_HISTORY__HISTORY_SECONDS of the telemetry worker.",
    )
    backup_days: int | None = Field(
        None, ge=1, le=36_500, description="How long backups of the database are kept; none where there are no backups."
    )


class ApiSettings(ServiceSettings):
    """Settings of the API."""

    http: HttpSettings = HttpSettings()
    https: HttpsSettings = HttpsSettings()
    limits: LimitSettings = LimitSettings()
    erasure: ErasureSettings = ErasureSettings()
    codecs: CodecSettings = CodecSettings(max_processes=2)
    nats: NatsSettings = NatsSettings()
    database: DatabaseSettings = DatabaseSettings()
    api_login: ApiLoginSettings = ApiLoginSettings()

    def api_database(self) -> DatabaseSettings:
        """Return the settings of the database with the API's own login, where it has one."""
        return logged_in(self.database, self.api_login)


class AdministrationSettings(ServiceSettings):
    """Settings of the administration command."""

    nats: NatsSettings = NatsSettings()
    database: DatabaseSettings = DatabaseSettings()
