"""Brokers of tenants' own: what a source says of one, and which of them a worker may connect to.

A source names a broker and a credential. The credential's files are where the workers run, and nowhere else.
"""

import fnmatch
import hashlib
import ipaddress
import re
import urllib.parse
from collections.abc import Iterable
from typing import Final, Literal, NamedTuple

import msgspec

DEFAULT_PORTS: Final = {"mqtt": 1883, "mqtts": 8883}
CREDENTIAL_PATTERN: Final = r"[a-z0-9][a-z0-9_-]{0,62}"
"""Regular expression of credentials' names."""
CREDENTIAL_RULE: Final = (
    "1 to 63 lower-case letters (a to z), digits, underscores and hyphens, of which the first is a letter or a digit"
)
CLIENT_ID_PATTERN: Final = r"[A-Za-z0-9_.:@-]{1,100}"
"""Regular expression of client identifiers: those that every broker takes (MQTT 5.0, section 3.1.3.1), and what people separate names by."""
CLIENT_ID_RULE: Final = "1 to 100 letters, digits, underscores, dots, colons, hyphens and @"
_MAX_URL: Final = 300
_HOST: Final = re.compile(r"[a-z0-9]([a-z0-9._-]{0,251}[a-z0-9])?\.?")
_HOST_PATTERN: Final = re.compile(r"(?P<host>\[[0-9a-f:.]+\]|[a-z0-9*._-]+):(?P<port>[0-9]{1,5}|\*)")

type Version = Literal["5", "3.1.1"]


class Broker(msgspec.Struct, frozen=True, omit_defaults=True):
    """A source's own broker; JSON object in the database and in the workers' bucket.

    Attributes:
        url: ``mqtt://host:port`` or ``mqtts://host:port``, without credentials.
        credential: Name of a credential that the workers have; None for none.
        client_id: Client identifier, which is the session's name at the broker; None for `default_client_id`.
        version: Of MQTT.
        clean_session: Whether the broker keeps nothing while the worker is away.
    """

    url: str
    credential: str | None = None
    client_id: str | None = None
    version: Version = "5"
    clean_session: bool = False


class Address(NamedTuple):
    """Where a broker is.

    Attributes:
        host: Name or address, in lower case.
        port: Of the URL, or the scheme's own.
        is_tls: Whether it is reached by TLS.
    """

    host: str
    port: int
    is_tls: bool

    def __str__(self) -> str:
        """Return host and port as patterns have them."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def address_of(url: str) -> Address:
    """Return where a broker is.

    >>> str(address_of("mqtts://Broker.Example.org"))
    'broker.example.org:8883'

    Raises:
        ValueError: The URL is none of a broker; the text says why, without the URL.
    """
    try:
        parts = urllib.parse.urlsplit(url)
        host, port = (parts.hostname or "").lower(), parts.port
    except ValueError:
        raise ValueError("a broker is mqtt://host:port or mqtts://host:port") from None
    # `urlsplit` takes characters out that are not printable.
    if not url.isprintable() or len(url) > _MAX_URL or parts.scheme not in DEFAULT_PORTS or parts.path not in {"", "/"}:
        raise ValueError("a broker is mqtt://host:port or mqtts://host:port, without a path")
    if "@" in parts.netloc:
        raise ValueError("a broker's address holds no user and password; they belong into a credential")
    if parts.query or parts.fragment or port == 0 or not (_is_ip(host) or _HOST.fullmatch(host)):
        raise ValueError("a broker is mqtt://host:port or mqtts://host:port, with the name or address of a host")
    return Address(host.removesuffix("."), port or DEFAULT_PORTS[parts.scheme], parts.scheme == "mqtts")


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def client_id_of(tenant: str, broker: Broker) -> str:
    """Return the client identifier of a session: the broker's, or one that follows from the tenant and the address.

    So it stays when another credential or version is chosen, and the broker finds the session again.
    """
    if broker.client_id is not None:
        return broker.client_id
    digest = hashlib.sha256(f"{tenant}\n{address_of(broker.url)}".encode()).hexdigest()[:10]
    return f"sens-{tenant}-{digest}"


def checked_pattern(text: str) -> str:
    """Return a pattern of hosts, host:port, in lower case.

    Raises:
        ValueError: It is none.
    """
    if _HOST_PATTERN.fullmatch(text.lower()) is None:
        raise ValueError(
            f"{text!r} is no pattern of hosts: host:port, in which * stands for any characters of one of them"
        )
    return text.lower()


def allowing(patterns: Iterable[str], address: Address) -> str | None:
    """Return the pattern that allows an address, None where none does. One that names the host without ``*`` comes first.

    >>> allowing(["*.example.org:8883", "10.0.0.7:*"], Address("mqtt.example.org", 8883, True))
    '*.example.org:8883'
    """
    found = [pattern for pattern in patterns if _fits(pattern, address)]
    return min(found, key=lambda pattern: "*" in pattern.rpartition(":")[0], default=None)


def _fits(pattern: str, address: Address) -> bool:
    host, _, port = pattern.rpartition(":")
    shown = str(address).rpartition(":")[0]
    fits = shown == host or ("*" in host and fnmatch.fnmatchcase(shown, host))
    return fits and port in {"*", str(address.port)}


def may_be_private(pattern: str) -> bool:
    """Tell whether a pattern lets to addresses that are not public: only one that names its host does.

    With ``*`` a tenant chooses the name, and may choose one that leads to the platform's own network.
    """
    return "*" not in pattern.rpartition(":")[0]
