"""Plain HTTP: no public host serves anything by it, and browsers are told to use HTTPS alone."""

import asyncio
import re
from enum import StrEnum
from typing import Final

import httpx2

from sens_cli.verify.connections import connects, target
from sens_cli.verify.endpoint import Endpoint
from sens_cli.verify.environment import Environment
from sens_cli.verify.outcome import CheckFailedError, NotRunError
from sens_cli.verify.web import Answer, Web

PORT: Final = 80

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_REFUSALS = range(400, 500)
_BUSY = frozenset({502, 503, 504})
_MAX_AGE = re.compile(r'max-age="?([0-9]+)"?', re.IGNORECASE)  # RFC 6797, section 6.1.1


class Plain(StrEnum):
    """What a host does with a request over plain HTTP."""

    KEPT = "kept from it"
    SERVED = "served"
    UNKNOWN = "not known"


async def check_plaintext(environment: Environment, web: Web, *, port: int = PORT) -> str:
    """See that no public host serves anything over plain HTTP: it redirects to HTTPS, or refuses."""
    asked = {"/healthz": [environment.api_host, environment.docs_host], "/": [environment.argo_host]}
    hosts = [(host, path) for path, named in asked.items() for host in named if host and host.scheme == "https"]
    if not hosts:
        raise NotRunError("no host with TLS is known (--api-host, --docs-host, --argo-host)")
    found = await asyncio.gather(*(_ask(environment, web, host, path, port) for host, path in hosts))
    if served := [said for plain, said in found if plain is Plain.SERVED]:
        raise CheckFailedError(
            "; ".join(served),
            "Keys and passwords can go in clear there. Bind the Ingress to HTTPS alone (Traefik: the annotation "
            "traefik.ingress.kubernetes.io/router.entrypoints: websecure, in ingress.annotations of the chart's values), redirect the rest "
            "(bootstrap/plain-http.yaml of the GitOps repository), and leave ingress.tls.only on. Then replace what was sent in clear.",
        )
    if unknown := [said for plain, said in found if plain is Plain.UNKNOWN]:
        raise NotRunError("; ".join(unknown))
    return "; ".join(said for _, said in found)


async def check_hsts(environment: Environment, web: Web) -> str:
    """See that the API and the documentation tell browsers to use HTTPS alone."""
    hosts = [host for host in (environment.api_host, environment.docs_host) if host and host.scheme == "https"]
    if not hosts:
        raise NotRunError("no host with TLS is known (--api-host, --docs-host)")
    answers = await asyncio.gather(*(web.get(host, "/healthz") for host in hosts))
    ages = {host.host: _age(answer) for host, answer in zip(hosts, answers, strict=True)}
    if missing := [host for host, age in ages.items() if age == 0]:
        raise CheckFailedError(
            f"{' and '.join(missing)} tell browsers nothing about HTTPS (Strict-Transport-Security)",
            "Set ingress.tls.hstsSeconds in the chart's values, and see that the ingress controller sets X-Forwarded-Proto and takes no "
            "header away.",
        )
    return "; ".join(f"{host}: {age // 86_400} days" for host, age in ages.items())


async def _ask(environment: Environment, web: Web, host: Endpoint, path: str, port: int) -> tuple[Plain, str]:
    """Return what a host does with a request over plain HTTP, as an outcome and in words."""
    plain = Endpoint("http", host.host, port)
    problem = await connects(target(environment, plain), port)
    if problem is not None:
        return Plain.KEPT, f"{plain.url}: no connection ({problem}), so that no certificate can be renewed by HTTP-01"
    answer = await web.get(plain, path)
    if answer.status in _REDIRECTS:
        return _redirect(answer, host)
    if answer.status in _REFUSALS:
        return Plain.KEPT, f"{plain.url} refuses ({answer.status})"
    if answer.status in _BUSY and not answer.document():
        return Plain.UNKNOWN, f"{answer.url} answers with {answer.status}: nothing can be said while no pod is ready"
    return Plain.SERVED, f"{answer.url} is served ({answer.status}), without TLS"


def _redirect(answer: Answer, host: Endpoint) -> tuple[Plain, str]:
    location = answer.location or ""
    try:
        leads = httpx2.URL(location)
    except httpx2.InvalidURL:
        leads = httpx2.URL()
    if leads.scheme == "https" and leads.host == host.host:
        return Plain.KEPT, f"http://{host.host} redirects to HTTPS"
    return Plain.SERVED, f"{answer.url} redirects to {location[:200]!r}, which is not https://{host.authority}"


def _age(answer: Answer) -> int:
    found = _MAX_AGE.search(answer.hsts or "")
    return int(found[1]) if found else 0
