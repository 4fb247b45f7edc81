"""Where a connection to a tenant's broker goes: only to hosts that the settings allow, and by names that hold no other connection up."""

import asyncio
import functools
import ipaddress
import socket
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from sens_common.brokers import Address, allowing, may_be_private
from sens_mqtt_ingestion_worker.pipeline import SourceUnavailableError

_MAX_THREADS: Final = 64
_ADDRESSES: Final = 4
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
"""IPv6 addresses that lead to IPv4 addresses through a translator (RFC 6052, section 2.1)."""


def allowed_by(patterns: Sequence[str], address: Address) -> str:
    """Return the pattern that allows an address.

    Raises:
        SourceUnavailableError: None does.
    """
    pattern = allowing(patterns, address)
    if pattern is None:
        known = "no broker outside is" if not patterns else "and only what that names is"
        raise SourceUnavailableError(
            f"{address} is not in SENS_BROKERS__ALLOWED_HOSTS, {known} allowed", reason="host_not_allowed"
        )
    return pattern


class Reach:
    """Resolves names of hosts that are allowed, in threads of its own: names that nobody answers for hold up no other part of the worker."""

    def __init__(self, patterns: Sequence[str], sessions: int) -> None:
        """Prepare.

        Args:
            patterns: Of hosts that are allowed.
            sessions: How many there may be: with a thread for each, a name that takes long holds up no other session. Threads are made when they
                are needed.
        """
        self._patterns = patterns
        self._threads = ThreadPoolExecutor(max(1, min(sessions, _MAX_THREADS)), thread_name_prefix="tenants' brokers")

    def check(self, address: Address) -> str:
        """See `allowed_by`."""
        return allowed_by(self._patterns, address)

    async def resolve(self, address: Address) -> list[str]:
        """Return the IP addresses of a host that is allowed, a few at most.

        Raises:
            SourceUnavailableError: It is not allowed, its name leads nowhere, or it leads to a network that its pattern does not let to.
        """
        pattern = self.check(address)
        try:
            found = await self.in_thread(
                functools.partial(socket.getaddrinfo, address.host, address.port, type=socket.SOCK_STREAM)
            )
        except (OSError, UnicodeError) as error:
            raise SourceUnavailableError(
                f"the name {address.host} can't be resolved: {getattr(error, 'strerror', None) or error}",
                reason="unreachable",
            ) from None
        hosts = list(dict.fromkeys(str(each[4][0]) for each in found))
        if not may_be_private(pattern):
            hosts = [host for host in hosts if _is_public(host)]
            if not hosts:
                raise SourceUnavailableError(
                    f"{address.host} leads to no public address, which {pattern} of SENS_BROKERS__ALLOWED_HOSTS does not allow;"
                    f" {address} in it would",
                    reason="host_not_allowed",
                )
        return hosts[:_ADDRESSES]

    async def in_thread[T](self, work: Callable[[], T]) -> T:
        """Return what work returns that takes a while."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    def close(self) -> None:
        """Begin nothing more."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def _is_public(host: str) -> bool:
    """Tell whether an address is public, and the IPv4 address too that an IPv6 address may hold."""
    address: ipaddress.IPv4Address | ipaddress.IPv6Address = ipaddress.ip_address(host.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        translated = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF) if address in _NAT64 else None
        address = address.ipv4_mapped or address.sixtofour or translated or address
    return address.is_global and not address.is_multicast
