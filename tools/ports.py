"""TCP ports for servers of tests and trials, which several processes start at the same time on one machine."""

import atexit
import contextlib
import errno
import random
import socket
from collections.abc import Iterator

_HOST = "127.0.0.1"
_BLOCK = 100
_claims = contextlib.ExitStack()
atexit.register(_claims.close)


def claim_port(port: int) -> bool:
    """Keep a port's number from the other processes that ask here until this one ends; False when another one has it.

    The sign is a UDP socket of that number: nothing here uses UDP, and the system removes it however the process ends.
    """
    sign = socket.socket(type=socket.SOCK_DGRAM)
    try:
        sign.bind((_HOST, port))
    except OSError:
        sign.close()
        return False
    _claims.enter_context(sign)
    return True


def _own_ports() -> Iterator[int]:
    """Yield port numbers, each once, from blocks whose first number is claimed.

    They lie below those of outgoing connections, which come and go (ip(7), ``ip_local_port_range``): what is stopped can start
    again on its port.
    """
    blocks = list(range(10_000, 19_000, _BLOCK))
    random.SystemRandom().shuffle(blocks)
    for block in filter(claim_port, blocks):
        yield from range(block, block + _BLOCK)


_ports = _own_ports()


def free_port() -> int:
    """Return a TCP port between 10000 and 18999 that nothing listens on, and that nobody who asks here is given again.

    Raises:
        OSError: None is left.
    """
    for port in _ports:
        with socket.socket() as listener, contextlib.suppress(OSError):
            listener.bind((_HOST, port))
            return port
    raise OSError(errno.EADDRINUSE, "no port from 10000 to 18999 is free")
