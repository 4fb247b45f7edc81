"""How hosts are connected to: at the expected address where one is known, so that only the checks of names depend on DNS."""

import asyncio
import ssl
from pathlib import Path
from typing import Final

from sens_cli.verify.endpoint import Endpoint
from sens_cli.verify.environment import Environment
from sens_common.errors import SettingsError

CONNECT_SECONDS: Final = 5.0


def trust(authority: Path | None) -> ssl.SSLContext:
    """Return the context of TLS: trusts this system's authorities, or those of a file.

    Raises:
        SettingsError: The file can't be read or holds no certificate.
    """
    try:
        context = ssl.create_default_context(cafile=None if authority is None else str(authority))
    except OSError as error:
        raise SettingsError(f"--ca-file: {authority} can't be read as certificates (PEM): {error}") from None
    # Set by Python 3.13 and newer only; it refuses authorities that browsers take, such as those without a key usage.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context


def target(environment: Environment, endpoint: Endpoint) -> str:
    """Return what to connect to for a host: the expected address, else the host itself."""
    return environment.address or endpoint.host


async def connects(host: str, port: int, seconds: float = CONNECT_SECONDS) -> str | None:
    """Return None when something accepts a TCP connection, else why not."""
    try:
        async with asyncio.timeout(seconds):
            _reader, writer = await asyncio.open_connection(host, port)
    except TimeoutError:
        return f"no answer within {seconds:g} s"
    except OSError as error:
        return error.strerror or str(error)
    writer.transport.abort()
    return None
