"""Settings of the API and of its administration command."""

from pydantic import Field

from sens_common.logins import ApiLoginSettings, logged_in
from sens_common.settings import DatabaseSettings, Group, HttpsSettings, NatsSettings, Port, ServiceSettings


class HttpSettings(Group):
    """Where the API listens."""

    host: str = Field("127.0.0.1", description="Address to listen on; images listen on all addresses.")
    port: Port = Field(8000, description="Port to listen on.")


class LimitSettings(Group):
    """What one request may ask for."""

    body_bytes: int = Field(65_536, ge=1024, le=10_000_000, description="Largest body of a request.")
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
    live_readers: int = Field(1000, ge=1, le=100_000, description="Live readers at the same time.")
    live_readers_per_tenant: int = Field(
        100, ge=1, le=100_000, description="Live readers of one tenant at the same time."
    )
    live_queue: int = Field(
        1000, ge=1, le=1_000_000, description="Readings that wait for one live reader; the oldest ones are dropped."
    )


class ApiSettings(ServiceSettings):
    """Settings of the API."""

    http: HttpSettings = HttpSettings()
    https: HttpsSettings = HttpsSettings()
    limits: LimitSettings = LimitSettings()
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
