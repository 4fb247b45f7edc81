"""All checks, in the order in which they are shown."""

import ssl
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Final

from sens_cli.verify.access import check_production, check_test
from sens_cli.verify.certificates import check_certificate
from sens_cli.verify.cluster import Cluster
from sens_cli.verify.environment import Environment
from sens_cli.verify.exposure import check_paths, check_ports
from sens_cli.verify.host import check_host
from sens_cli.verify.http_ingestion import check_http_ingestion
from sens_cli.verify.kubectl import Kubectl
from sens_cli.verify.names import check_name
from sens_cli.verify.outcome import Check, CheckFailedError, NotRunError
from sens_cli.verify.plaintext import check_hsts, check_plaintext
from sens_cli.verify.services import API, DOCS, Service
from sens_cli.verify.web import Web

API_OPTION: Final = "--api-host"
DOCS_OPTION: Final = "--docs-host"
HTTP_INGESTION_OPTION: Final = "--http-ingestion-host"
ARGO_OPTION: Final = "--argo-host"


CHECKS: Final[Mapping[str, str]] = {
    "dns.api": "the API's host leads to the expected address only",
    "dns.docs": "the documentation's host does",
    "dns.http-ingestion": "the HTTP ingestion's host does",
    "dns.argo": "Argo CD's host does",
    "certificate.api": "the certificate of the API's host is trusted, its own, and lasts",
    "certificate.docs": "that of the documentation's host does",
    "certificate.http-ingestion": "that of the HTTP ingestion's host does",
    "certificate.argo": "that of Argo CD's host does",
    "api.healthz": "the API's process works",
    "api.readyz": "the API can do its work: database, schema, NATS",
    "api.version": "what answers is the API",
    "api.test": "the API writes a log entry when it is asked to",
    "api.data": "/api/v1 is public, or is not, as it should be",
    "api.metrics": "the API gives metrics: on its host where they are public, else in its pod (kubectl)",
    "docs.healthz": "the documentation's process works",
    "docs.readyz": "the documentation has its pages",
    "docs.page": "the documentation shows its start page",
    "docs.metrics": "the documentation gives metrics, as the API does",
    "http-ingestion.answers": "the HTTP ingestion takes messages on its host, with a key alone",
    "release.channel": "the released version is of the environment's channel",
    "release.api": "the API runs the released version and commit",
    "release.docs": "the documentation runs the released version and commit",
    "release.images": "the workloads have the released images (kubectl)",
    "cluster.rollouts": "every roll-out is complete (kubectl)",
    "cluster.database": "the database accepts connections (kubectl)",
    "cluster.nats": "NATS is healthy (kubectl)",
    "cluster.dns": "names resolve inside of the cluster, by the chart's own checks (kubectl)",
    "exposure.ports": "internal components can't be connected to from here",
    "exposure.paths": "the public hosts do not lead to internal paths",
    "exposure.plaintext": "no public host serves anything over plain HTTP",
    "exposure.hsts": "API and documentation tell browsers to use HTTPS alone",
    "access.test": "deploy-test can do its work in test, and no more (kubectl)",
    "access.production": "deploy-test can't touch production (kubectl)",
    "access.host": "the Linux user deploy-test has no sudo and no other key (on the server)",
}
"""What each check shows, by its name, in the order of the report. A name is that of a group and of a subject."""


def chosen(names: Sequence[str]) -> list[str]:
    """Return the checks with these names or of these groups, all of them when there are no names.

    Raises:
        KeyError: There is no such check; its argument is the name.
    """
    for name in names:
        if not any(_is(check, name) for check in CHECKS):
            raise KeyError(name)
    return [check for check in CHECKS if not names or any(_is(check, name) for name in names)]


def catalogue(
    environment: Environment, *, web: Web, context: ssl.SSLContext, kubectl: Kubectl, days: int
) -> dict[str, Check]:
    """Return the checks of an environment by their names, which are those of `CHECKS`."""
    api = Service(API, environment.api_host, API_OPTION, environment, web)
    docs = Service(DOCS, environment.docs_host, DOCS_OPTION, environment, web)
    cluster = Cluster(environment, kubectl)
    hosts = {
        "api": (environment.api_host, API_OPTION),
        "docs": (environment.docs_host, DOCS_OPTION),
        "http-ingestion": (environment.http_ingestion_host, HTTP_INGESTION_OPTION),
        "argo": (environment.argo_host, ARGO_OPTION),
    }
    return {
        **{f"dns.{name}": partial(check_name, environment, *host) for name, host in hosts.items()},
        **{
            f"certificate.{name}": partial(check_certificate, environment, *host, context, days)
            for name, host in hosts.items()
        },
        "api.healthz": api.healthy,
        "api.readyz": api.ready,
        "api.version": api.version,
        "api.test": api.tested,
        "api.data": api.data,
        "api.metrics": api.metrics if environment.public_metrics else partial(cluster.metrics, API),
        "docs.healthz": docs.healthy,
        "docs.readyz": docs.ready,
        "docs.page": docs.page,
        "docs.metrics": docs.metrics if environment.public_metrics else partial(cluster.metrics, DOCS),
        "http-ingestion.answers": partial(check_http_ingestion, environment, HTTP_INGESTION_OPTION, web),
        "release.channel": partial(_channel, environment),
        "release.api": api.released,
        "release.docs": docs.released,
        "release.images": cluster.images,
        "cluster.rollouts": cluster.rolled_out,
        "cluster.database": cluster.database,
        "cluster.nats": cluster.nats,
        "cluster.dns": cluster.names,
        "exposure.ports": partial(check_ports, environment),
        "exposure.paths": partial(check_paths, environment, web),
        "exposure.plaintext": partial(check_plaintext, environment, web),
        "exposure.hsts": partial(check_hsts, environment, web),
        "access.test": partial(check_test, environment, kubectl),
        "access.production": partial(check_production, environment, kubectl),
        "access.host": partial(check_host, environment),
    }


def _is(check: str, name: str) -> bool:
    return name in {check, check.partition(".")[0]}


async def _channel(environment: Environment) -> str:
    expected = environment.expected
    if expected is None or expected.version is None:
        raise NotRunError("there is no release yet (release.json), and no --expect-version")
    if environment.channel is None:
        raise NotRunError("the environment's channel is not known (--channel)")
    if expected.channel != environment.channel:
        raise CheckFailedError(
            f"{expected.version} is of the channel {expected.channel or 'of no kind'}, {environment.name} takes {environment.channel}",
            "Release a version of that channel, or roll back to one: scripts/rollback in the GitOps repository.",
        )
    return f"{expected.version}: {environment.channel}"
