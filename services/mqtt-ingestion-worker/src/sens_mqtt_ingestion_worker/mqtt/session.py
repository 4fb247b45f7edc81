"""What a connection has to know of a broker and of the session with it."""

from typing import Protocol

from pydantic import SecretStr

from sens_common.brokers import Version


class SessionSettings(Protocol):
    """The part of `settings.MqttSettings` that a connection uses; the brokers of tenants' own have others."""

    @property
    def url(self) -> str:
        """mqtt://host:port or mqtts://host:port."""

    @property
    def username(self) -> str | None:
        """User name."""

    @property
    def password(self) -> SecretStr | None:
        """Password of the user."""

    @property
    def client_id(self) -> str:
        """The session's name."""

    @property
    def topic_filters(self) -> list[str]:
        """What is subscribed to whatever sources there are; the broker may not refuse these."""

    @property
    def version(self) -> Version:
        """Of MQTT."""

    @property
    def clean_session(self) -> bool:
        """Whether the broker keeps nothing while there is no connection."""

    @property
    def receive_max(self) -> int:
        """Largest number of unacknowledged messages."""

    @property
    def max_waiting_bytes(self) -> int:
        """Reading pauses while messages of more bytes wait for the pipeline, because `receive_max` bounds no bytes."""

    @property
    def session_expiry_seconds(self) -> int:
        """How long the broker keeps the session."""

    @property
    def keep_alive_seconds(self) -> int:
        """Time without traffic after which the connection is probed."""

    @property
    def connect_timeout_seconds(self) -> float:
        """Time limit for connecting and subscribing."""
