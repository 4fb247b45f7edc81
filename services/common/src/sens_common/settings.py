"""Settings: one typed class per service, read from the environment (``SENS_`` prefix, ``__`` between levels).

A service's class derives from `ServiceSettings` and adds the groups it needs. `load` turns everything that is wrong into one
`SettingsError` that names the variable and what it accepts, and never repeats a value, which may be a secret.
"""

import json
import os
import typing
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, SettingsConfigDict

from sens_common.errors import SettingsError

PREFIX = "SENS_"
DELIMITER = "__"

Level = typing.Literal["debug", "info", "warning", "error"]
Port = Annotated[int, Field(ge=1, le=65535)]


class Group(BaseModel):
    """A group of settings."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class LoggingSettings(Group):
    """Logs."""

    level: Level = Field("info", description="Least severe level that is logged.")


class OperationsSettings(Group):
    """The port of ``/healthz``, ``/readyz``, ``/version`` and ``/metrics``."""

    host: str = Field("127.0.0.1", description="Address to listen on; images listen on all addresses.")
    port: Port = Field(8081, description="Port to listen on.")


class HttpsSettings(Group):
    """For a service that is public through a proxy that ends TLS."""

    only: bool = Field(
        False,
        description="Serve nothing that a proxy was asked for by plain HTTP, as it tells in X-Forwarded-Proto: redirect, or refuse.",
    )
    hsts_seconds: int = Field(
        0,
        ge=0,
        le=63_072_000,
        description="Time for which browsers ask by HTTPS alone (Strict-Transport-Security), seconds; 0 tells them nothing.",
    )


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
        ge=4 << 20,  # half of it is kept free of what is stored, and has to hold the largest envelope
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
    pool_size: int = Field(10, ge=1, le=100, description="Largest number of connections.")
    command_timeout_seconds: float = Field(30, gt=0, le=3600, description="Time limit of one statement.")


class ServiceSettings(BaseSettings):
    """What every service has."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_nested_delimiter=DELIMITER, extra="ignore", frozen=True)

    log: LoggingSettings = LoggingSettings()
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
                _explain(cls, details["loc"], details["msg"])
                for details in error.errors(include_url=False, include_input=False)
            ]
            raise SettingsError("\n".join(lines)) from None
        except ValueError as error:  # pydantic-settings: a variable that should hold JSON does not
            raise SettingsError("\n".join(_not_json(cls)) or str(error)) from None


def variable(path: tuple[str, ...]) -> str:
    """Return the environment variable of a setting, given the names of its groups and its own."""
    return PREFIX + DELIMITER.join(path).upper()


def _explain(cls: type[ServiceSettings], location: tuple[int | str, ...], message: str) -> str:
    path = tuple(part for part in location if isinstance(part, str))
    item = "".join(f", item {part + 1}" for part in location if isinstance(part, int))
    return _with_description(cls, path, f"{variable(path)}{item}: {_lower_first(message)}")


def _not_json(cls: type[ServiceSettings]) -> list[str]:
    """Say of every variable that should hold JSON, and does not, that it should."""
    lines = []
    for name, value in sorted(os.environ.items()):
        path = tuple(name.upper().removeprefix(PREFIX).lower().split(DELIMITER))
        field = _field(cls, path) if name.upper().startswith(PREFIX) else None
        if field is None:
            continue
        kinds = {typing.get_origin(kind) or kind for kind in (field.annotation, *typing.get_args(field.annotation))}
        is_group = any(isinstance(kind, type) and issubclass(kind, BaseModel) for kind in kinds)
        if is_group or kinds & {list, dict, set, tuple}:
            try:
                json.loads(value)
            except ValueError:
                what = f"a JSON object; or set its members one by one, as {variable((*path, 'name'))}"
                lines.append(
                    _with_description(cls, path, f"{variable(path)}: should be {what if is_group else 'JSON'}")
                )
    return lines


def _with_description(cls: type[ServiceSettings], path: tuple[str, ...], text: str) -> str:
    field = _field(cls, path)
    return f"{text}. {field.description}" if field is not None and field.description else text


def _lower_first(text: str) -> str:
    return text[:1].lower() + text[1:]


def _field(model: type[BaseModel], path: tuple[str, ...]) -> FieldInfo | None:
    field = model.model_fields.get(path[0]) if path else None
    if field is None or len(path) == 1:
        return field
    annotation = field.annotation
    return _field(annotation, path[1:]) if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None
