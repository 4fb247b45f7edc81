"""A broker that runs already, which ``sens up --mqtt-url`` uses in place of one of its own."""

import asyncio
import secrets
import ssl
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import unquote, urlsplit

import mqtt5

from sens_common.brokers import Address, address_of
from sens_common.errors import SensError, SettingsError

_SECONDS: Final = 10.0
_READ_BYTES: Final = 4096
_MAX_PASSWORD_BYTES: Final = 65_535
_OPTION: Final = "--mqtt-url"


class HouseBroker(NamedTuple):
    """The broker.

    Attributes:
        url: mqtt://host:port or mqtts://host:port, without the user.
        username: None for none.
        password: None for none.
        ca_file: Authority of its certificate, None for those of the system.
    """

    url: str
    username: str | None = None
    password: str | None = None
    ca_file: Path | None = None

    @property
    def address(self) -> Address:
        """Where it is."""
        return address_of(self.url)

    def settings(self, client_id: str) -> dict[str, str]:
        """Return the ingestion worker's variables."""
        given = {
            "URL": self.url,
            "USERNAME": self.username,
            "PASSWORD": self.password,
            "CA_FILE": None if self.ca_file is None else str(self.ca_file),
            "CLIENT_ID": client_id,
        }
        return {f"SENS_MQTT__{name}": value for name, value in given.items() if value is not None}


def house_broker(url: str, password_file: Path | None, ca_file: Path | None) -> HouseBroker:
    """Return the broker that the options name.

    Raises:
        SettingsError: One of them is wrong; says which, and no password.
    """
    try:
        parts = urlsplit(url)
        if parts.password is not None:
            raise SettingsError(
                f"{_OPTION} holds a password, which others can see; put it into a file: --mqtt-password-file"
            )
        bare = url.replace(parts.netloc, parts.netloc.rpartition("@")[2], 1).rstrip("/")
        address = address_of(bare)
    except ValueError as error:
        raise SettingsError(f"{_OPTION}: {error}; for example mqtt://sens@nas.local:1883") from None
    username = unquote(parts.username) if parts.username else None
    if password_file is not None and username is None:
        raise SettingsError(
            f"--mqtt-password-file is the password of a user: name one, {_OPTION} {parts.scheme}://USER@…"
        )
    if ca_file is not None and not address.is_tls:
        raise SettingsError("--mqtt-ca-file is for mqtts://")
    return HouseBroker(bare, username, None if password_file is None else _password(password_file), ca_file)


def _password(file: Path) -> str:
    try:
        content = file.read_bytes()
        if len(content) > _MAX_PASSWORD_BYTES:
            raise SettingsError(f"--mqtt-password-file: {file} has more than {_MAX_PASSWORD_BYTES:,} bytes")
        return content.decode().rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(
            f"--mqtt-password-file: {file} can't be read: {getattr(error, 'strerror', None) or 'it is not text'}"
        ) from None


async def check(broker: HouseBroker) -> None:
    """Connect once as any client does.

    Raises:
        SensError: The broker can't be reached, refuses us, or is none of MQTT 5; says which, and what to do.
    """
    where = f"the MQTT broker at {broker.address} ({_OPTION})"
    try:
        async with asyncio.timeout(_SECONDS):
            answer = await _greeting(broker)
    except TimeoutError:
        raise SensError(
            f"{where} did not answer within {_SECONDS:g} s; is it a broker, and is mqtt or mqtts right?"
        ) from None
    except ssl.SSLError as error:
        why = getattr(error, "verify_message", "") or error.reason or str(error)
        raise SensError(
            f"{where} can't be used by TLS: {why}; --mqtt-ca-file names the authority of its certificate"
        ) from None
    except (OSError, UnicodeError) as error:
        raise SensError(
            f"{where} can't be reached: {getattr(error, 'strerror', None) or error}; is it running, and are host and port right?"
        ) from None
    except ValueError:
        raise SensError(f"{where} does not speak MQTT 5") from None
    if not isinstance(answer, mqtt5.ConnAckPacket):
        raise SensError(f"{where} closed the connection; it has to speak MQTT 5, as Mosquitto does from 1.6 on")
    if answer.reason_code is not mqtt5.ConnAckReasonCode.SUCCESS:
        reason = answer.reason_code.name.lower().replace("_", " ")
        raise SensError(f"{where} refuses the connection: {reason}; check the user and --mqtt-password-file")


async def _greeting(broker: HouseBroker) -> mqtt5.Packet | None:
    """Return the answer to CONNECT, None where the broker closes the connection without one."""
    tls = ssl.create_default_context(cafile=broker.ca_file) if broker.address.is_tls else None
    reader, writer = await asyncio.open_connection(broker.address.host, broker.address.port, ssl=tls)
    try:
        password = None if broker.password is None else broker.password.encode()
        name = f"sens-up-check-{secrets.token_hex(6)}"
        writer.write(mqtt5.ConnectPacket(name, username=broker.username, password=password, clean_start=True).write())
        data = b""
        while more := await reader.read(_READ_BYTES):
            data += more
            try:
                packet, _ = mqtt5.read(memoryview(data))
            except IndexError:  # not complete yet
                continue
            writer.write(mqtt5.DisconnectPacket().write())
            return packet
        return None
    finally:
        writer.close()
