"""The Helm chart, rendered into typed objects. Its tests are left out where there is no helm: see scripts/lib/helm.sh."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest
import yaml
from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from support.services import ROOT
from support.yaml_documents import documents_of

CHART: Final = ROOT / "infra" / "helm" / "sens-platform"
VALUES: Final = ROOT / "infra" / "helm" / "values"
RELEASE: Final = "sens-platform-test"
_SCRIPT: Final = (ROOT / "scripts" / "lib" / "helm.sh").read_text(encoding="utf-8")


def _setting(name: str) -> str:
    match = re.search(rf"^{name}=(\S+)$", _SCRIPT, re.MULTILINE)
    assert match is not None, name
    return match[1]


KUBERNETES: Final = _setting("sens_kubernetes_version")


def go_environment() -> dict[str, str]:
    """Return the environment for a program in Go that runs for a moment: it ends before it need collect garbage, which was 40 % of helm's work."""
    return os.environ | {"GOGC": "off"}


@cache
def helm() -> Path | None:
    """Return the program: the one on PATH, or the one that the scripts have built."""
    found = shutil.which("helm") or shutil.which(ROOT / ".tools" / f"helm-{_setting('sens_helm_version')}")
    return Path(found) if found else None


needs_helm = pytest.mark.skipif(helm() is None, reason="not run: no helm")


class _Object(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, extra="ignore", frozen=True)


class KeyReference(_Object):
    """A key of a secret."""

    name: str
    key: str
    optional: bool = False


class FieldReference(_Object):
    """A field of the pod itself."""

    field_path: str


class ValueSource(_Object):
    """Where an environment variable's value comes from."""

    secret_key_ref: KeyReference | None = None
    field_ref: FieldReference | None = None


class Variable(_Object):
    """An environment variable."""

    name: str
    value: str | None = None
    value_from: ValueSource | None = None


class SecurityContext(_Object):
    """Of a pod or a container."""

    run_as_non_root: bool | None = None
    run_as_user: int | None = None
    run_as_group: int | None = None
    read_only_root_filesystem: bool | None = None
    allow_privilege_escalation: bool | None = None
    privileged: bool | None = None
    capabilities: Mapping[str, list[str]] = {}
    seccomp_profile: Mapping[str, str] = {}


class Resources(_Object):
    """Compute resources."""

    requests: Mapping[str, str] = {}
    limits: Mapping[str, str] = {}


class Port(_Object):
    """A container's port."""

    name: str
    container_port: int
    host_port: int | None = None


class Mount(_Object):
    """A volume in a container."""

    name: str
    mount_path: str


class Container(_Object):
    """A container."""

    name: str
    image: str
    command: list[str] = []
    args: list[str] = []
    env: list[Variable] = []
    ports: list[Port] = []
    volume_mounts: list[Mount] = []
    resources: Resources = Resources()
    security_context: SecurityContext = SecurityContext()
    startup_probe: Mapping[str, Any] | None = None
    liveness_probe: Mapping[str, Any] | None = None
    readiness_probe: Mapping[str, Any] | None = None
    lifecycle: Mapping[str, Any] = {}

    @property
    def environment(self) -> dict[str, Variable]:
        """Variables by name."""
        return {variable.name: variable for variable in self.env}


class Pod(_Object):
    """A pod's specification."""

    service_account_name: str
    automount_service_account_token: bool = True
    host_network: bool = False
    host_pid: bool = Field(default=False, alias="hostPID")
    containers: list[Container]
    init_containers: list[Container] = []
    image_pull_secrets: list[Mapping[str, str]] = []
    security_context: SecurityContext = SecurityContext()
    termination_grace_period_seconds: int = 30
    topology_spread_constraints: list[Mapping[str, Any]] = []
    volumes: list[Mapping[str, Any]] = []


class Manifest(NamedTuple):
    """One rendered object."""

    document: dict[str, Any]

    @property
    def kind(self) -> str:
        """Its kind."""
        return str(self.document["kind"])

    @property
    def name(self) -> str:
        """Its name."""
        return str(self.document["metadata"]["name"])

    @property
    def annotations(self) -> dict[str, str]:
        """Its annotations."""
        return self.document["metadata"].get("annotations") or {}

    @property
    def labels(self) -> dict[str, str]:
        """Its labels."""
        return self.document["metadata"].get("labels") or {}

    @property
    def spec(self) -> dict[str, Any]:
        """Its specification."""
        spec: dict[str, Any] = self.document["spec"]
        return spec

    @property
    def pod_labels(self) -> dict[str, str]:
        """Labels of its pods."""
        if self.kind == "Pod":
            return self.labels
        spec = self.spec["jobTemplate"]["spec"] if self.kind == "CronJob" else self.spec
        labels: dict[str, str] = spec["template"]["metadata"]["labels"]
        return labels

    @property
    def component(self) -> str:
        """The component that its pods, or itself, belong to."""
        return self.labels["app.kubernetes.io/component"]

    @property
    def pod(self) -> Pod | None:
        """Its pods' specification, where it has pods."""
        if self.kind == "Pod":
            return Pod.model_validate(self.spec)
        if self.kind in {"Deployment", "StatefulSet", "Job"}:
            return Pod.model_validate(self.spec["template"]["spec"])
        if self.kind == "CronJob":
            return Pod.model_validate(self.spec["jobTemplate"]["spec"]["template"]["spec"])
        return None


class Render(NamedTuple):
    """A rendered chart."""

    manifests: tuple[Manifest, ...]

    def of(self, kind: str) -> dict[str, Manifest]:
        """Return the objects of a kind, by name."""
        return {manifest.name: manifest for manifest in self.manifests if manifest.kind == kind}

    def find(self, kind: str, name: str) -> Manifest:
        """Return the object whose name is the release's with this end."""
        return self.of(kind)[f"{RELEASE}-{name}"]

    def pods(self) -> Iterator[tuple[Manifest, Pod]]:
        """Yield everything that has pods."""
        for manifest in self.manifests:
            if (pod := manifest.pod) is not None:
                yield manifest, pod

    def container(self, component: str) -> Container:
        """Return a component's only container."""
        [container] = [
            pod.containers[0]
            for manifest, pod in self.pods()
            if manifest.component == component and manifest.kind != "Pod"
        ]
        return container


Values = Mapping[str, object]


def run_helm(
    values: Values, *arguments: str, base: str | None = "test", chart: Path = CHART, release: str = RELEASE
) -> "subprocess.CompletedProcess[str]":
    """Run ``helm template`` with a file of values and what is set on top of it."""
    program = helm()
    assert program is not None
    files = ["--values", str(VALUES / f"{base}.yaml")] if base else []
    command = [str(program), "template", release, str(chart), "--namespace", RELEASE, "--kube-version", KUBERNETES]
    given = yaml.safe_dump(dict(values))
    # The chart itself is the same as long as the tests run, a copy of it need not be.
    run = _run if chart == CHART else _run.__wrapped__
    return run((*command, *files, "--values", "-", *arguments), given)


@cache
def _run(command: tuple[str, ...], given: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(command, input=given, capture_output=True, text=True, check=False, env=go_environment())


def render(values: Values, *arguments: str, base: str | None = "test", release: str = RELEASE) -> Render:
    """Render the chart."""
    result = run_helm(values, *arguments, base=base, release=release)
    assert result.returncode == 0, result.stderr
    return Render(tuple(map(Manifest, documents_of(result.stdout))))


def refusal(values: Values, base: str | None = "test", release: str = RELEASE) -> str:
    """Return what helm says about values that it refuses."""
    result = run_helm(values, base=base, release=release)
    assert result.returncode != 0, "the values were accepted"
    return result.stderr


_PEER: Final = [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}]
_INGRESS: Final = {
    "enabled": True,
    "apiHost": "api.example.org",
    "docsHost": "docs.example.org",
    "tls": {"issuer": "production"},
}
_EXTERNAL: Final[Values] = {
    "images": {"registry": "registry.example/sens"},
    "existingSecret": "sens",
    "httpIngestion": {"enabled": True},
    "mqtt": {"url": "mqtts://broker.example.org", "caSecret": "broker-ca"},
    "nats": {
        "embedded": False,
        "url": "tls://nats-0.example.org:4222,tls://nats-1.example.org:4223",
        "caSecret": "nats-ca",
        "credentialsSecret": "nats-creds",
        "streamReplicas": 3,
    },
    "database": {"embedded": False, "host": "db.example.org", "port": 6432, "caSecret": "database-ca"},
    "checks": {"enabled": True},
}

MATRIX: Final[Mapping[str, tuple[str | None, Values]]] = {
    "test": ("test", {}),
    "production": ("production", {}),
    "everything on": (
        "test",
        {
            "images": {"digests": {"platform-api": "sha256:" + "a" * 64}},
            "api": {"autoscaling": {"enabled": True}, "databaseUser": "api", "nodeSelector": {"disk": "ssd"}},
            "ingestion": {"autoscaling": {"enabled": True}},
            "httpIngestion": {"autoscaling": {"enabled": True}},
            "telemetry": {"keda": {"enabled": True, "from": _PEER}, "tolerations": [{"operator": "Exists"}]},
            "nats": {"requireToken": True, "persistence": {"storageClass": "fast"}},
            "database": {"persistence": {"storageClass": "fast"}},
            "ingress": _INGRESS | {"className": "traefik", "httpIngestionHost": "in.example.org"},
            "networkPolicy": {"metricsFrom": _PEER, "publicFrom": _PEER},
            "checks": {"enabled": True},
            "monitoring": {"serviceMonitor": True, "podMonitor": True, "prometheusRule": True, "dashboards": True},
        },
    ),
    "everything off": (
        None,
        {
            "images": {"registry": "registry.example/sens"},
            "existingSecret": "sens",
            "api": {"enabled": False},
            "docs": {"enabled": False},
            "ingestion": {"enabled": False},
            "telemetry": {"enabled": False},
            "migrations": {"enabled": False},
            "tests": {"enabled": False},
            "networkPolicy": {"enabled": False},
            "podDisruptionBudgets": {"enabled": False},
            **{
                name: {"embedded": False, **address}
                for name, address in (("nats", {"url": "nats://n:4222"}), ("database", {"host": "d", "ssl": "require"}))
            },
        },
    ),
    "external everything": (None, _EXTERNAL),
    "trial": (
        None,
        {
            "images": {"registry": "registry.example/sens", "tag": "1.2.3-rc.4", "channel": "rc"},
            "trialSecret": {"enabled": True, "postgresPassword": "only for a trial"},
            "mockBroker": {"enabled": True},
        },
    ),
}


@cache
def matrix_render(name: str) -> Render:
    """Render one entry of the matrix, once."""
    base, values = MATRIX[name]
    return render(values, base=base)


every_render = pytest.mark.parametrize("name", [pytest.param(name, id=name) for name in MATRIX])
