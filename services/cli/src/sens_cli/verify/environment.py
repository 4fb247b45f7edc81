"""What ``sens verify`` has to know of an environment: the one place that knows ``environment.toml`` and its options.

The GitOps repository has one file for each environment, ``environments/<name>/environment.toml``. An installation without such a
repository is described by options alone. What is not known stays None, and the checks that need it say so.
"""

import ipaddress
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Self

from sens_cli.release.versions import Channel
from sens_cli.verify.endpoint import Endpoint
from sens_cli.verify.record import Expected, commit, read_limited, version
from sens_common.errors import SettingsError

FILE: Final = "environment.toml"
PRODUCTION: Final = "production"
TEST: Final = "test"
CHANNELS: Final = tuple(channel.value for channel in Channel)
INTERNAL_PORTS: Final[Mapping[str, int]] = {
    "api": 8000,
    "docs": 8080,
    "operations": 8081,
    "http-ingestion": 8090,
    "mqtt": 1883,
    "mqtt5": 1884,
    "nats": 4222,
    "nats-monitoring": 8222,
    "postgresql": 5432,
}

_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")  # RFC 1123, as Kubernetes names namespaces
_ACCOUNT = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9:@._/-]{0,250})")
_LAST_PORT = 65_535
_REQUIRED = frozenset({"name", "channel", "namespace", "release", "address", "api_host", "docs_host"})
# Argo CD's objects and the registry are other programs' concern.
_NOT_OURS = frozenset({"application", "project", "registry"})
_SWITCHES = frozenset({"external_database", "external_nats", "public_data", "public_metrics"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """An environment, or what is known of it.

    Attributes:
        name: ``test``, ``production``, or what people call it.
        channel: Which versions it takes: one of `CHANNELS`.
        namespace: In Kubernetes.
        release: Helm's; the objects' names begin with it.
        address: Address that all hosts lead to.
        address_ipv6: A second one, for hosts that have AAAA records too.
        api_host: Public host of the API.
        docs_host: Public host of the documentation.
        http_ingestion_host: Public host of the HTTP ingestion.
        argo_host: Public host of Argo CD.
        deploy_account: Kubernetes' user name of the account that looks after test.
        test_namespace: Namespace of test.
        production_namespace: Namespace of production.
        external_database: Whether the database is outside of the cluster.
        external_nats: Whether NATS is outside of the cluster.
        public_data: Whether ``/api/v1`` is served on the API's host (``ingress.publicData``).
        public_metrics: Whether ``/metrics`` is served on the hosts of API and documentation (``ingress.publicMetrics``).
        internal_ports: Ports that must not be reachable from outside, by name.
        expected: What should be running.
    """

    name: str
    channel: str | None = None
    namespace: str | None = None
    release: str | None = None
    address: str | None = None
    address_ipv6: str | None = None
    api_host: Endpoint | None = None
    docs_host: Endpoint | None = None
    http_ingestion_host: Endpoint | None = None
    argo_host: Endpoint | None = None
    deploy_account: str | None = None
    test_namespace: str | None = None
    production_namespace: str | None = None
    external_database: bool = False
    external_nats: bool = False
    public_data: bool = True
    public_metrics: bool = False
    internal_ports: Mapping[str, int] = field(default_factory=lambda: dict(INTERNAL_PORTS))
    expected: Expected | None = None

    @classmethod
    def read(cls, gitops: Path, name: str) -> Self:
        """Read an environment of the GitOps repository, and the other one's namespace.

        Raises:
            SettingsError: A file is missing or wrong; the text names file and key.
        """
        environment = _described(cls, gitops, name)
        others: dict[str, Any] = {
            f"{other}_namespace": _described(cls, gitops, other).namespace
            for other in (TEST, PRODUCTION)
            if other != name and description_file(gitops, other).is_file()
        }
        record = description_file(gitops, name).with_name("release.json")
        return replace(environment, expected=Expected.read(record), **others)

    def completed(self, options: Mapping[str, str | bool | None]) -> Self:
        """Return it with options in place of what it has; their names are those of the attributes, None leaves one as it is.

        Raises:
            SettingsError: An option has a value that can't be; the text names it.
        """
        given: dict[str, Any] = {
            name: value if isinstance(value, bool) else _READERS[name](value, f"--{name.replace('_', '-')}")
            for name, value in options.items()
            if value is not None
        }
        environment = replace(self, **given)
        if environment.name in {TEST, PRODUCTION}:
            own = f"{environment.name}_namespace"
            completion: dict[str, Any] = {own: getattr(environment, own) or environment.namespace}
            return replace(environment, **completion)
        return environment

    @property
    def account(self) -> str | None:
        """User name of the account that looks after test, None when nothing tells."""
        if self.deploy_account is None and self.test_namespace is not None:
            return f"system:serviceaccount:{self.test_namespace}:deploy-test"
        return self.deploy_account


def expecting(environment: Environment, version_text: str | None, commit_text: str | None) -> Environment:
    """Return the environment with what options say should be running, in place of what the record says.

    A version or commit alone takes the place of the whole record: its other parts are of another release.

    Raises:
        SettingsError: It is not a version, or not a commit; the text names the option.
    """
    if version_text is None and commit_text is None:
        return environment
    return replace(
        environment,
        expected=Expected(
            version=None if version_text is None else version(version_text, "--expect-version"),
            commit=None if commit_text is None else commit(commit_text, "--expect-commit"),
        ),
    )


def label(text: str, what: str) -> str:
    """Return the name of an environment, a namespace or a release.

    Raises:
        SettingsError: It can't be one; the text begins with what it is of.
    """
    if not _LABEL.fullmatch(text):
        raise SettingsError(
            f"{what}: {text[:300]!r} is not such a name: lower-case letters, digits and hyphens, at most 63"
        )
    return text


def address(text: str, what: str) -> str:
    """Return an IP address in its usual form; raises as `label`."""
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise SettingsError(f"{what}: {text[:300]!r} is not an IP address, such as 192.0.2.7") from None


def account(text: str, what: str) -> str:
    """Return a user name of Kubernetes; raises as `label`."""
    if not _ACCOUNT.fullmatch(text):
        raise SettingsError(f"{what}: {text[:300]!r} is not a user, such as system:serviceaccount:NAMESPACE:NAME")
    return text


def description_file(gitops: Path, name: str) -> Path:
    """Return where the GitOps repository describes an environment; raises as `label`."""
    return gitops / "environments" / label(name, "--environment") / FILE


def _channel(text: str, what: str) -> str:
    if text not in CHANNELS:
        raise SettingsError(f"{what}: {text[:100]!r} is not a channel; the channels are {', '.join(CHANNELS)}")
    return text


_READERS: Final[Mapping[str, Callable[[str, str], Any]]] = {
    "channel": _channel,
    "namespace": label,
    "release": label,
    "address": address,
    "address_ipv6": address,
    "api_host": Endpoint.parse,
    "docs_host": Endpoint.parse,
    "http_ingestion_host": Endpoint.parse,
    "argo_host": Endpoint.parse,
    "deploy_account": account,
    "test_namespace": label,
    "production_namespace": label,
}
"""How each text is read, of a file as of an option: called with the text and what errors call it."""

_KEYS = _READERS.keys() - {"test_namespace", "production_namespace"}


def _described[T: Environment](cls: type[T], gitops: Path, name: str) -> T:
    path = description_file(gitops, name)
    try:
        document = tomllib.loads(read_limited(path))
    except FileNotFoundError:
        raise SettingsError(f"there is no {path}: name the GitOps repository's folder with --gitops") from None
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise SettingsError(f"{path} is not TOML: {str(error)[:300]}") from None
    if missing := sorted(_REQUIRED - document.keys()):
        raise SettingsError(f"{path}: {', '.join(missing)} is missing")
    if unknown := sorted(document.keys() - _REQUIRED - _KEYS - _SWITCHES - _NOT_OURS - {"internal_ports"}):
        raise SettingsError(f"{path}: there is no key {unknown[0][:100]!r}")
    if document["name"] != name:
        raise SettingsError(f"{path}: name is {str(document['name'])[:100]!r}, and must be {name}, as its folder")
    values: dict[str, Any] = {key: _text(document, key, path) for key in _KEYS & document.keys()}
    values |= {key: _switch(document, key, path) for key in _SWITCHES & document.keys()}
    return cls(name=name, internal_ports=_ports(document, path), **values)


def _text(document: dict[str, Any], key: str, path: Path) -> object:
    value = document[key]
    if not isinstance(value, str):
        raise SettingsError(f"{path}: {key} must be a text")
    return _READERS[key](value, f"{path}: {key}")


def _switch(document: dict[str, Any], key: str, path: Path) -> bool:
    value = document[key]
    if not isinstance(value, bool):
        raise SettingsError(f"{path}: {key} must be true or false")
    return value


def _ports(document: dict[str, Any], path: Path) -> Mapping[str, int]:
    ports = document.get("internal_ports", INTERNAL_PORTS)
    if not isinstance(ports, Mapping) or not ports:
        raise SettingsError(f"{path}: internal_ports must be a table of names and ports")
    for name, port in ports.items():
        if type(port) is not int or not 0 < port <= _LAST_PORT:
            raise SettingsError(f"{path}: internal_ports.{name[:100]} must be a port, 1 to {_LAST_PORT}")
    return ports
