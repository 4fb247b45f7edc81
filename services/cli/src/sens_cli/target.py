"""Which instance a command talks to: the one that is named, else the one that runs from the data folder."""

import os
from pathlib import Path
from typing import Final, NamedTuple

from sens_cli.options import API_KEY_VARIABLE, API_URL_VARIABLE, MQTT_URL_VARIABLE
from sens_common.command_line.instance import Instance, find_instance
from sens_common.errors import SensError, SettingsError

API_KEY_OPTION: Final = "--api-key"


class Target(NamedTuple):
    """An API and a key for it.

    Attributes:
        api_url: Base URL.
        key: API key.
        key_from: Where the key came from, as people know it.
    """

    api_url: str
    key: str
    key_from: str = API_KEY_OPTION


class Address(NamedTuple):
    """A TCP address."""

    host: str
    port: int


def find_target(data_dir: Path, api_url: str | None, api_key: str | None) -> Target:
    """Return the API to talk to.

    Raises:
        UnavailableError: No instance runs from the data folder, and none is named.
        SettingsError: An API is named without a key: the instance's own key must not be sent elsewhere.
    """
    if api_url is not None:
        if not api_url.startswith(("http://", "https://")):
            raise SettingsError(f"{API_URL_VARIABLE} (--api-url) must begin with http:// or https://")
        if api_key is None:
            raise SettingsError(f"{API_KEY_VARIABLE} (--api-key) is needed together with --api-url")
        return Target(api_url.rstrip("/"), api_key, _origin(api_key))
    instance = find_instance(data_dir, f"or name an API with {API_URL_VARIABLE} and {API_KEY_VARIABLE}")
    if api_key is not None:
        return Target(instance.api_url, api_key, _origin(api_key))
    return Target(instance.api_url, _read_key(instance), f"the instance's file {instance.key_file}")


def _origin(api_key: str) -> str:
    """Return where a key that was given came from: the option takes the environment's where it is not used."""
    return f"the environment ({API_KEY_VARIABLE})" if os.environ.get(API_KEY_VARIABLE) == api_key else API_KEY_OPTION


def mqtt_address(data_dir: Path, url: str | None) -> Address:
    """Return the MQTT 5 broker's address.

    Raises:
        SettingsError: The URL is not of the form mqtt://host:port.
        UnavailableError: No instance runs from the data folder, and no broker is named.
    """
    if url is None:
        instance = find_instance(data_dir, f"or name an MQTT 5 broker with {MQTT_URL_VARIABLE}")
        return Address(instance.reachable_mqtt_host, instance.ports["mqtt"])
    from urllib.parse import urlsplit  # noqa: PLC0415 - rarely needed

    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or 1883
    except ValueError:
        host, port, parts = None, 0, urlsplit("")
    if parts.scheme != "mqtt" or host is None or parts.username is not None or parts.path not in {"", "/"}:
        raise SettingsError(f"{MQTT_URL_VARIABLE} (--mqtt-url) must be of the form mqtt://host:port")
    return Address(host, port)


def _read_key(instance: Instance) -> str:
    try:
        key = Path(instance.key_file).read_text(encoding="ascii").strip()
    except OSError as error:
        raise SensError(
            f"the instance's API key can't be read: {error.strerror} ({instance.key_file}); give one with {API_KEY_VARIABLE}"
        ) from error
    if not key:
        raise SensError(f"the file of the instance's API key is empty: {instance.key_file}")
    return key
