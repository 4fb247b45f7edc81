"""Settings of the API and of its administration command."""

from pydantic import Field, SecretStr

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


class ApiRoleSettings(Group):
    """A database login of the API's own, where one exists; without it the API logs in as SENS_DATABASE__USER."""

    user: str | None = Field(None, description="Role to log in as; it must be a member of sens_api.")
    password: SecretStr | None = Field(None, description="Password of the role.")


class ApiSettings(ServiceSettings):
    """Settings of the API."""

    http: HttpSettings = HttpSettings()
    https: HttpsSettings = HttpsSettings()
    limits: LimitSettings = LimitSettings()
    nats: NatsSettings = NatsSettings()
    database: DatabaseSettings = DatabaseSettings()
    api_login: ApiRoleSettings = ApiRoleSettings()

    def api_database(self) -> DatabaseSettings:
        """Return the settings of the database with the API's own login, where it has one."""
        if self.api_login.user is None:
            return self.database
        return self.database.model_copy(update={"user": self.api_login.user, "password": self.api_login.password})


class AdministrationSettings(ServiceSettings):
    """Settings of the administration command."""

    nats: NatsSettings = NatsSettings()
    database: DatabaseSettings = DatabaseSettings()
