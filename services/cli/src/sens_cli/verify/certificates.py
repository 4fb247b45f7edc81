"""Certificates: the chain leads to a trusted authority, the name is right, and there are days left."""

import asyncio
import ssl
import time
from typing import Any, Final

from sens_cli.verify.connections import target
from sens_cli.verify.endpoint import Endpoint
from sens_cli.verify.environment import Environment
from sens_cli.verify.outcome import CheckFailedError, NotRunError

TIMEOUT_SECONDS: Final = 10.0
_DAY_SECONDS = 86_400

# X509_V_ERR_… of OpenSSL's x509_vfy.h.
_NOT_YET_VALID = 9
_EXPIRED = 10
_SELF_SIGNED = 18
_UNKNOWN_AUTHORITY = frozenset({2, 19, 20, 21})
_WRONG_HOST = frozenset({62, 64})

_TRAEFIK_DEFAULT = b"TRAEFIK DEFAULT CERT"
_STAGING = b"(STAGING)"  # in the names of Let's Encrypt's staging authorities


async def check_certificate(
    environment: Environment,
    host: Endpoint | None,
    option: str,
    context: ssl.SSLContext,
    days: int,
    *,
    timeout_seconds: float = TIMEOUT_SECONDS,
) -> str:
    """See that a host's certificate is trusted, is its own, and lasts for some days."""
    if host is None:
        raise NotRunError(f"no host is known ({option})")
    if host.scheme != "https":
        raise NotRunError(f"{host.url} is served without TLS")
    try:
        certificate = await _handshake(environment, host, context, timeout_seconds)
    except ssl.SSLCertVerificationError as error:
        raise await _refused(environment, host, error) from None
    left = int((ssl.cert_time_to_seconds(certificate["notAfter"]) - time.time()) // _DAY_SECONDS)
    found = f"{host.host}: {left} days left, by {_issuer(certificate)}"
    if left < days:
        raise CheckFailedError(found, f"It should have been renewed by now ({days} days): {_look(environment)}")
    return found


async def _handshake(
    environment: Environment, host: Endpoint, context: ssl.SSLContext, timeout_seconds: float = TIMEOUT_SECONDS
) -> dict[str, Any]:
    where = f"{host.authority} ({target(environment, host)})"
    try:
        async with asyncio.timeout(timeout_seconds):
            _reader, writer = await asyncio.open_connection(
                target(environment, host), host.port, ssl=context, server_hostname=host.host
            )
    except ssl.SSLCertVerificationError:
        raise
    except TimeoutError:
        raise CheckFailedError(f"{where}: no answer within {timeout_seconds:g} s", _UNREACHABLE) from None
    except ssl.SSLError as error:
        raise CheckFailedError(
            f"{where} does not speak TLS as we do: {error.reason or error}",
            "See what listens there: is it the ingress controller?",
        ) from None
    except OSError as error:
        raise CheckFailedError(f"{where} can't be reached: {error.strerror or error}", _UNREACHABLE) from None
    certificate: dict[str, Any] = writer.get_extra_info("peercert") or {}
    if not certificate:  # what is not verified is not taken apart
        certificate["der"] = writer.get_extra_info("ssl_object").getpeercert(binary_form=True) or b""
    writer.transport.abort()
    return certificate


_UNREACHABLE = (
    "See that the server runs, that its firewall lets port 80 and 443 in, and that the ingress controller listens."
)


async def _refused(environment: Environment, host: Endpoint, error: ssl.SSLCertVerificationError) -> CheckFailedError:
    """Say what is wrong with a certificate, as far as it can be told apart."""
    look = _look(environment)
    known = {
        _EXPIRED: ("has expired", f"It was not renewed: {look}"),
        _NOT_YET_VALID: ("is not valid yet", "Set the clocks: of this machine (date -u), or of the server."),
        _SELF_SIGNED: ("is self-signed", f"Let an authority sign it: {look}"),
        **dict.fromkeys(
            _WRONG_HOST,
            (
                f"is another host's: {error.verify_message}",
                f"Compare tls.hosts of the Ingress with the host ({host.host}), then: {look}",
            ),
        ),
        **dict.fromkeys(
            _UNKNOWN_AUTHORITY,
            (
                "is by an authority that is not trusted, or intermediate certificates are missing",
                "An authority of your own is named with --ca-file; else serve the certificate with its whole chain (fullchain).",
            ),
        ),
    }
    found, remedy = known.get(error.verify_code, (f"is refused: {error.verify_message}", f"Look at it: {look}"))
    if error.verify_code not in {_EXPIRED, _NOT_YET_VALID}:
        presented = await _presented(environment, host)
        if _TRAEFIK_DEFAULT in presented:
            found = "is Traefik's default one: none was made for this host yet, or no Ingress has it"
            remedy = f"See that DNS is right, then what keeps the certificate: {look}"
        elif _STAGING in presented:
            found = "is by Let's Encrypt's staging authority, which nobody trusts"
            remedy = (
                "Give the issuer the production server, https://acme-v02.api.letsencrypt.org/directory, and delete the secret of the "
                "certificate: a new one is made."
            )
    return CheckFailedError(f"the certificate of {host.host} {found}", remedy)


async def _presented(environment: Environment, host: Endpoint) -> bytes:
    """Return the certificate that is presented, unverified, to find out what it is; empty when it can't be had."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # nothing is sent, and nothing believed but what is wrong
    try:
        der = (await _handshake(environment, host, context)).get("der", b"")
    except CheckFailedError:
        return b""
    return der if isinstance(der, bytes) else b""


def _issuer(certificate: dict[str, Any]) -> str:
    names = {key: value for each in certificate.get("issuer", ()) for key, value in each}
    return str(names.get("organizationName") or names.get("commonName") or "an authority without a name")


def _look(environment: Environment) -> str:
    return f"kubectl -n {environment.namespace or 'NAMESPACE'} describe certificate,certificaterequest,order,challenge"
