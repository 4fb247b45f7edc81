"""DNS: each host leads to the expected address, and to no other one."""

import asyncio
import concurrent.futures
import socket
import threading
from collections.abc import Callable

from sens_cli.verify.endpoint import Endpoint
from sens_cli.verify.environment import Environment
from sens_cli.verify.outcome import CheckFailedError, NotRunError

TIMEOUT_SECONDS = 10.0

type Lookup = Callable[[str, socket.AddressFamily], set[str]]
"""Returns the addresses of a name; raises `socket.gaierror`."""

_NO_ADDRESS = frozenset({socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)})
_RECORDS = {socket.AF_INET: "A", socket.AF_INET6: "AAAA"}


def system_lookup(name: str, family: socket.AddressFamily) -> set[str]:
    """Ask the system's resolver, as programs do."""
    found = socket.getaddrinfo(name, None, family, socket.SOCK_STREAM)
    return {str(address[0]) for *_, address in found}


async def check_name(
    environment: Environment, host: Endpoint | None, option: str, lookup: Lookup = system_lookup
) -> str:
    """See that a host's A and AAAA records are the expected addresses."""
    if host is None:
        raise NotRunError(f"no host is known ({option})")
    if not host.is_name:
        raise NotRunError(f"{host.host} is an address already")
    expected = {each for each in (environment.address, environment.address_ipv6) if each is not None}
    if not expected:
        raise NotRunError("no expected address is known (--address)")
    found = {family: await _addresses(host.host, family, lookup) for family in _RECORDS}
    records = {f"{_RECORDS[family]} {address}" for family, addresses in found.items() for address in addresses}
    wanted = {f"{'AAAA' if ':' in address else 'A'} {address}" for address in expected}
    if records == wanted:
        return f"{host.host}: {', '.join(sorted(records))}"
    if not records:
        raise CheckFailedError(
            f"{host.host} has no address", f"Make the record {_list(wanted)} of {host.host} where its zone is kept."
        )
    steps = []
    if missing := wanted - records:
        steps.append(f"make the record {_list(missing)}")
    if foreign := records - wanted:
        steps.append(f"remove {_list(foreign)}")
    raise CheckFailedError(
        f"{host.host}: {', '.join(sorted(records))}, expected {', '.join(sorted(wanted))}",
        f"Where the zone of {host.host} is kept, {' and '.join(steps)}; resolvers see it when the old records' TTL is over. "
        "If the records are right, so is the address that is expected wrong.",
    )


async def _addresses(name: str, family: socket.AddressFamily, lookup: Lookup) -> set[str]:
    try:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            return await _in_a_thread(lambda: lookup(name, family))
    except TimeoutError:
        reason = f"no answer within {TIMEOUT_SECONDS:g} s"
    except socket.gaierror as error:
        if error.errno in _NO_ADDRESS:
            return set()
        reason = error.strerror or str(error)
    except OSError as error:
        reason = error.strerror or str(error)
    raise CheckFailedError(
        f"{name} can't be looked up ({_RECORDS[family]}): {reason}",
        "Ask another resolver (dig @9.9.9.9 NAME). If it answers, this machine's resolver is at fault; else the zone's name servers are.",
    )


async def _in_a_thread[T](call: Callable[[], T]) -> T:
    """Call in a thread that nobody waits for: a resolver without an answer must hold up neither the time-out nor the end."""
    answer: concurrent.futures.Future[T] = concurrent.futures.Future()

    def work() -> None:
        try:
            answer.set_result(call())
        except OSError as error:
            answer.set_exception(error)

    threading.Thread(target=work, name="lookup", daemon=True).start()
    # Shielded: the future of a thread that still runs must not be cancelled under it.
    return await asyncio.shield(asyncio.wrap_future(answer))


def _list(records: set[str]) -> str:
    return ", ".join(sorted(records))
