"""What must not be reachable from outside: ports of internal components, and paths that only the cluster needs."""

import asyncio

from sens_cli.verify.connections import connects, target
from sens_cli.verify.environment import Environment
from sens_cli.verify.outcome import CheckFailedError, NotRunError
from sens_cli.verify.web import Answer, Web

_PORT_SECONDS = 3.0

INTERNAL_PATHS = {
    "/metrics": b"# TYPE ",  # Prometheus' text format
    "/varz": b'"server_id"',  # NATS' monitoring
    "/jsz": b'"server_id"',
    "/connz": b'"server_id"',
}
"""Paths that only the cluster asks, and what is in the answer of who has them."""


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
    """See that the API's public host does not lead to what is internal."""
    host = environment.api_host
    if host is None:
        raise NotRunError("no host is known (--api-host)")
    answers = await asyncio.gather(*(web.get(host, path) for path in INTERNAL_PATHS))
    found = [
        path for (path, mark), answer in zip(INTERNAL_PATHS.items(), answers, strict=True) if _is_internal(answer, mark)
    ]
    if found:
        raise CheckFailedError(
            f"{host.url} answers on {', '.join(found)}",
            "The Ingress of the API routes more than it should: the chart's lists each path; look for another Ingress with this host "
            f"(kubectl get ingress -A), at {target(environment, host)}.",
        )
    return f"{host.host} does not answer on {', '.join(INTERNAL_PATHS)}"


def _is_internal(answer: Answer, mark: bytes) -> bool:
    return answer.status < 400 and mark in answer.body  # noqa: PLR2004 - an answer that is no error, RFC 9110
