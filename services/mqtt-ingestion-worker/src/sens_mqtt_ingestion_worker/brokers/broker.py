"""A broker of a tenant's own: where it is and how one is let in, asked again before each connection."""

import functools
from dataclasses import dataclass, replace
from typing import Final

from pydantic import SecretStr

from sens_common.brokers import Version
from sens_mqtt_ingestion_worker.brokers.credentials import Credential, CredentialFolder
from sens_mqtt_ingestion_worker.brokers.plans import Plan
from sens_mqtt_ingestion_worker.brokers.reaching import Reach
from sens_mqtt_ingestion_worker.mqtt.source import Target
from sens_mqtt_ingestion_worker.pipeline import SourceUnavailableError
from sens_mqtt_ingestion_worker.settings import BrokersSettings, MqttSettings

_MAX_WAITING_BYTES: Final = 2 << 20
_NOTHING: Final = Credential()


@dataclass(frozen=True, slots=True)
class TenantSession:
    """Settings of a session, as `mqtt.session.SessionSettings`."""

    url: str
    client_id: str
    version: Version
    clean_session: bool
    receive_max: int
    session_expiry_seconds: int
    keep_alive_seconds: int
    connect_timeout_seconds: float
    username: str | None = None
    password: SecretStr | None = None
    max_waiting_bytes: int = _MAX_WAITING_BYTES

    @property
    def topic_filters(self) -> list[str]:
        """None but those of sources."""
        return []


class TenantBroker:
    """One plan's broker, as `mqtt.source.Broker`."""

    def __init__(self, plan: Plan, brokers: BrokersSettings, mqtt: MqttSettings, reach: Reach) -> None:
        self._brokers = brokers
        self._mqtt = mqtt
        self._reach = reach
        self._used: Credential | str = ""
        self.plan = plan

    @property
    def settings(self) -> TenantSession:
        """Of the session, without those of the user."""
        broker = self.plan.broker
        return TenantSession(
            url=broker.url,
            client_id=self.plan.client_id,
            version=broker.version,
            clean_session=broker.clean_session,
            receive_max=self._brokers.receive_max,
            session_expiry_seconds=self._mqtt.session_expiry_seconds,
            keep_alive_seconds=self._mqtt.keep_alive_seconds,
            connect_timeout_seconds=self._mqtt.connect_timeout_seconds,
        )

    async def target(self) -> Target:
        """See `mqtt.source.Broker.target`."""
        plan = self.plan
        self._used = credential = self._look()
        self._reach.check(plan.address)
        if isinstance(credential, str):
            raise SourceUnavailableError(credential, reason="credential_missing")
        hosts = await self._reach.resolve(plan.address)
        tls = None
        if plan.address.is_tls:
            tls = await self._reach.in_thread(functools.partial(self._folder.context, credential))
        elif credential.certificate is not None:
            raise SourceUnavailableError(
                f"credential {plan.broker.credential} has a client certificate, which needs mqtts://",
                reason="tls_error",
            )
        settings = replace(
            self.settings,
            username=credential.username,
            password=None if credential.password is None else SecretStr(credential.password),
        )
        return Target(str(plan.address), settings, hosts, plan.address.port, tls, plan.address.host)

    @property
    def has_changed(self) -> bool:
        """Whether the credential's files hold something else than for the last connection."""
        return self._look() != self._used

    @property
    def _folder(self) -> CredentialFolder:
        return CredentialFolder(self._brokers.credentials_folder, self.plan.tenant, self.plan.broker.credential or "")

    def _look(self) -> Credential | str:
        """Return the credential, or why it can't be used."""
        if self.plan.broker.credential is None:
            return _NOTHING
        try:
            return self._folder.read()
        except SourceUnavailableError as error:
            return str(error)
