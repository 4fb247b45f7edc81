"""Settings: one typed class per service, read from the environment (``SENS_`` prefix, ``__`` between levels).

A service's class derives from `ServiceSettings` and adds the groups it needs. `load` turns everything that is wrong into one
`SettingsError` that names the variable and what it accepts, and never repeats a value, which may be a secret.
"""

import typing
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from sens_common.errors import SettingsError
from sens_common.logs import Level

PREFIX = "SENS_"
DELIMITER = "__"

Port = Annotated[int, Field(ge=1, le=65535)]


class Group(BaseModel):
    """A group of settings."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class LogSettings(Group):
    """Logs."""

    level: Level = Field("info", description="Least severe level that is logged.")


class OperationsSettings(Group):
    """The port of ``/healthz``, ``/readyz``, ``/version`` and ``/metrics``."""

    host: str = Field("127.0.0.1", description="Address to listen on; images listen on all addresses.")
    port: Port = Field(8081, description="Port to listen on.")


class NatsSettings(Group):
    """NATS with JetStream."""

    url: str = Field(
        "nats://127.0.0.1:4222",
        pattern=r"^(nats|tls|ws|wss)://[^\s@]+$",
        description="Server, or several separated by commas; without credentials.",
    )
    user: str | None = Field(None, description="User name.")
    password: SecretStr | None = Field(None, description="Password of the user.")
    token: SecretStr | None = Field(None, description="Token, instead of user and password.")
    credentials_file: str | None = Field(None, description="Path of a .creds file (JWT and NKey).")
    ca_file: str | None = Field(
        None, description="Path of the certificate authority that signed the server's certificate."
    )
    replicas: int = Field(1, ge=1, le=5, description="Replicas of the streams, where this service creates them.")
    stream_max_bytes: int = Field(
        1 << 30,
        ge=1 << 20,
        description="Largest size of the telemetry stream, bytes; when it is full, publishers wait.",
    )


class DatabaseSettings(Group):
    """PostgreSQL or TimescaleDB."""

    host: str = Field("127.0.0.1", description="Host name, address, or folder of a Unix socket.")
    port: Port = Field(5432, description="Port.")
    name: str = Field("sens_platform", description="Database.")
    user: str = Field("sens_platform", description="Role to log in as; the owner of the database.")
    password: SecretStr | None = Field(None, description="Password of the role.")
    ssl: typing.Literal["disable", "prefer", "require", "verify-ca", "verify-full"] = Field(
        "prefer", description="TLS, as libpq's sslmode."
    )
    ca_file: str | None = Field(None, description="Path of the certificate authority for verify-ca and verify-full.")
    pool_size: int = Field(4, ge=1, le=100, description="Largest number of connections.")
    command_timeout_seconds: float = Field(30, gt=0, le=3600, description="Time limit of one statement.")


class ServiceSettings(BaseSettings):
    """What every service has."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_nested_delimiter=DELIMITER, extra="ignore", frozen=True)

    log: LogSettings = LogSettings()
    shutdown_seconds: float = Field(
        8, gt=0, le=600, description="Time limit for finishing what is under way at a stop."
    )

    @classmethod
    def load(cls) -> Self:
        """Read the settings from the environment.

        Raises:
            SettingsError: One or more variables are missing or wrong.
        """
        try:
            return cls()
        except ValidationError as error:
            lines = [
                _explain(cls, tuple(str(part) for part in details["loc"]), details["msg"])
                for details in error.errors(include_url=False, include_input=False)
            ]
            raise SettingsError("\n".join(lines)) from None
        except ValueError as error:  # pydantic-settings: a group's variable that should hold JSON does not
            raise SettingsError(f"{error}; set its members one by one, as {PREFIX}GROUP{DELIMITER}NAME") from None


def variable(path: tuple[str, ...]) -> str:
    """Return the environment variable of a setting, given the names of its groups and its own."""
    return PREFIX + DELIMITER.join(path).upper()


def _explain(cls: type[ServiceSettings], path: tuple[str, ...], message: str) -> str:
    text = f"{variable(path)}: {_lower_first(message)}"
    description = _description(cls, path)
    return f"{text}. {description}" if description else text


def _lower_first(text: str) -> str:
    return text[:1].lower() + text[1:]


def _description(model: type[BaseModel], path: tuple[str, ...]) -> str | None:
    field = model.model_fields.get(path[0]) if path else None
    if field is None:
        return None
    annotation: Any = field.annotation
    if len(path) > 1 and isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return _description(annotation, path[1:])
    return field.description
