"""Public hosts, as people write them."""

import ipaddress
import re
from dataclasses import dataclass
from typing import Self

from sens_common.errors import SettingsError

_LONGEST_HOST = 253  # RFC 1035, section 2.3.4, without the final dot
# Labels of RFC 1123, section 2.1, and underscores nowhere: these are hosts.
_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*")
_ENDPOINT = re.compile(
    r"(?:(?P<scheme>https?)://)?(?:\[(?P<ipv6>[0-9A-Fa-f:.]+)\]|(?P<host>[^\[\]:/]+))(?::(?P<port>[0-9]{1,5}))?/?"
)
_STANDARD_PORTS = {"https": 443, "http": 80}
_LAST_PORT = 65_535


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A public host.

    Attributes:
        scheme: ``https``, or ``http`` for an installation without TLS.
        host: A name in lower case, or an IP address.
        port: Where it listens.
    """

    scheme: str
    host: str
    port: int

    @classmethod
    def parse(cls, text: str, what: str) -> Self:
        """Read ``HOST``, ``HOST:PORT`` or ``http://HOST:PORT``.

        Raises:
            SettingsError: It is none of them; the text begins with what it is of.
        """
        match = _ENDPOINT.fullmatch(text)
        if match is None:
            raise SettingsError(f"{what}: {text[:300]!r} is not a HOST, HOST:PORT or http://HOST:PORT")
        scheme = match["scheme"] or "https"
        port = int(match["port"] or _STANDARD_PORTS[scheme])
        if not 0 < port <= _LAST_PORT:
            raise SettingsError(f"{what}: there is no port {port}; ports are 1 to {_LAST_PORT}")
        host = (match["ipv6"] or match["host"]).lower()
        if not is_address(host) and (match["ipv6"] or len(host) > _LONGEST_HOST or not _HOST.fullmatch(host)):
            raise SettingsError(
                f"{what}: {host[:300]!r} is not a host name: letters, digits, hyphens and dots, such as api.example.org"
            )
        return cls(scheme, host, port)

    @property
    def is_name(self) -> bool:
        """Tell whether the host is a name, not an address."""
        return not is_address(self.host)

    @property
    def authority(self) -> str:
        """Host and port, as in a URL (RFC 3986, section 3.2)."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _STANDARD_PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def url(self) -> str:
        """Base URL, without a slash at its end."""
        return f"{self.scheme}://{self.authority}"


def is_address(text: str) -> bool:
    """Tell whether a text is an IPv4 or IPv6 address."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
