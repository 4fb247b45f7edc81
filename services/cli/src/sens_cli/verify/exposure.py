"""What must not be reachable from outside: ports of internal components, and paths that only the cluster needs."""

import asyncio

from sens_cli.verify.connections import connects, target
from sens_cli.verify.environment import Environment
from sens_cli.verify.outcome import CheckFailedError, NotRunError
from sens_cli.verify.web import Answer, Web

_PORT_SECONDS = 3.0

_METRICS = {"/metrics": b"# TYPE "}  # Prometheus' text format
_NATS = {
    "/varz": b'"server_id"',  # NATS' monitoring
    "/jsz": b'"server_id"',
    "/connz": b'"server_id"',
}
"""Paths of NATS' monitoring, and what is in its answers."""


async def check_ports(environment: Environment) -> str:
    """See that no internal component accepts connections at the public address."""
    address = environment.address
    endpoint = environment.api_host or environment.docs_host or environment.argo_host
    if address is None or endpoint is None:
        raise NotRunError("no address is known (--address), or no host that is served there")
    ports = {name: port for name, port in environment.internal_ports.items() if port != endpoint.port}
    # Where nothing is reachable, closed ports prove nothing.
    if (problem := await connects(address, endpoint.port)) is not None:
        raise NotRunError(
            f"{address} is not reachable from here at all (port {endpoint.port}: {problem}), so closed ports prove nothing"
        )
    problems = await asyncio.gather(*(connects(address, port, _PORT_SECONDS) for port in ports.values()))
    open_ports = [
        f"{port} ({name})" for (name, port), problem in zip(ports.items(), problems, strict=True) if problem is None
    ]
    if open_ports:
        raise CheckFailedError(
            f"{address} accepts connections on {', '.join(open_ports)}",
            "Close them in the firewall; then look for who opened them: kubectl get services -A (LoadBalancer, NodePort), hostPort, "
            "or a port-forward that listens on all addresses.",
        )
    return f"{address} accepts no connection on {', '.join(str(port) for port in ports.values())}"


async def check_paths(environment: Environment, web: Web) -> str:
    """See that the public hosts do not lead to what is internal: NATS' monitoring, and metrics unless they are public."""
    hosts = [host for host in (environment.api_host, environment.docs_host) if host is not None]
    if not hosts:
        raise NotRunError("no host is known (--api-host, --docs-host)")
    internal = _NATS if environment.public_metrics else _METRICS | _NATS
    asked = [(host, path) for host in hosts for path in internal]
    answers = await asyncio.gather(*(web.get(host, path) for host, path in asked))
    found = [
        answer.url for (_, path), answer in zip(asked, answers, strict=True) if _is_internal(answer, internal[path])
    ]
    if found:
        raise CheckFailedError(
            f"what is internal is answered at {', '.join(found)}",
            "The Ingress routes more than it should: the chart's lists each path (ingress.publicMetrics in its values, public_metrics "
            f"in environment.toml); look for another Ingress with this host (kubectl get ingress -A), at {target(environment, hosts[0])}.",
        )
    return f"{' and '.join(host.host for host in hosts)} do not answer on {', '.join(internal)}"


def _is_internal(answer: Answer, mark: bytes) -> bool:
    return answer.status < 400 and mark in answer.body  # noqa: PLR2004 - an answer that is not an error, RFC 9110
