"""What only the cluster knows: roll-outs, images, the stores, and metrics, which are not public. All of it through kubectl."""

from dataclasses import dataclass
from typing import Any, Final

from sens_cli.verify.environment import Environment
from sens_cli.verify.kubectl import Finished, Kubectl
from sens_cli.verify.outcome import CheckFailedError, NotRunError
from sens_cli.verify.services import API, DOCS, METRICS, series

PLATFORM_IMAGES: Final = frozenset(
    {"platform-api", "docs", "mqtt-ingestion-worker", "telemetry-worker", "mock-mqtt-broker"}
)

_METRICS_PROGRAM = "import sys, urllib.request as r; sys.stdout.buffer.write(r.urlopen('http://127.0.0.1:{port}/metrics', timeout=5).read(2 ** 20))"
_METRICS_PORTS: Final = {API: 8000, DOCS: 8081}


@dataclass(frozen=True, slots=True)
class Workload:
    """A Deployment or StatefulSet.

    Attributes:
        name: Of the object.
        images: Of its template's containers.
        problem: What its roll-out waits for, None when it is complete; the rules are those of ``kubectl rollout status``.
    """

    name: str
    images: list[str]
    problem: str | None


class Cluster:
    """A release in a namespace."""

    def __init__(self, environment: Environment, kubectl: Kubectl) -> None:
        self._environment = environment
        self._kubectl = kubectl

    async def rolled_out(self) -> str:
        """See that every Deployment and StatefulSet runs its newest template, as ``kubectl rollout status`` does."""
        workloads = await self._workloads()
        problems = [f"{each.name}: {each.problem}" for each in workloads if each.problem is not None]
        if problems:
            namespace = self._namespace
            raise CheckFailedError(
                "; ".join(problems),
                f"Wait, if a release has just begun; else kubectl -n {namespace} get pods, kubectl -n {namespace} describe pod NAME, "
                f"kubectl -n {namespace} logs NAME --previous",
            )
        return f"{len(workloads)} of {len(workloads)}: {', '.join(sorted(each.name for each in workloads))}"

    async def images(self) -> str:
        """See that the platform's images are those of the release."""
        expected = self._environment.expected
        if expected is None or expected.version is None:
            raise NotRunError("there is no release yet (release.json), and no --expect-version")
        wrong, right = [], set()
        for workload in await self._workloads():
            for image in workload.images:
                name, tag, digest = _taken_apart(image)
                if name not in PLATFORM_IMAGES:
                    continue
                if tag != expected.version:
                    wrong.append(f"{workload.name} has {image}, released is {expected.version}")
                elif digest is not None and digest != expected.images.get(name, digest):
                    wrong.append(f"{workload.name} has {image}, released is {expected.images[name]}")
                else:
                    right.add(name)
        if wrong:
            raise CheckFailedError(
                "; ".join(wrong),
                "Compare the Application in applications/ with release.json, and sync the Application; what is changed by hand is undone by a sync.",
            )
        if not right:
            raise CheckFailedError("no image of the platform is in any of the release's workloads", self._wrong_cluster)
        return f"{expected.version}: {', '.join(sorted(right))}"

    async def database(self) -> str:
        """See that the database accepts connections."""
        if self._environment.external_database:
            raise NotRunError("the database is outside of the cluster; /readyz of the API tells whether it can be used")
        pod_of = f"statefulset/{self._release}-timescaledb"
        done = await self._kubectl.execute(
            pod_of, self._namespace, ["pg_isready", "-U", "sens_platform", "-d", "sens_platform"]
        )
        if done.code == 0 and "accepting connections" in done.output:
            return done.output.strip()
        raise self._store_failure(pod_of, "pg_isready", done)

    async def nats(self) -> str:
        """See that NATS says that it is healthy, JetStream included."""
        if self._environment.external_nats:
            raise NotRunError("NATS is outside of the cluster; /readyz of the API tells whether it can be used")
        pod_of = f"statefulset/{self._release}-nats"
        done = await self._kubectl.execute(pod_of, self._namespace, ["wget", "-qO-", "http://127.0.0.1:8222/healthz"])
        if done.code == 0 and '"ok"' in done.output:
            return done.output.strip()[:200]
        raise self._store_failure(pod_of, "healthz of NATS", done)

    async def metrics(self, service: str) -> str:
        """See that a service gives metrics, asked from within its pod."""
        pod_of = f"deployment/{self._release}-{service}"
        program = _METRICS_PROGRAM.format(port=_METRICS_PORTS[service])
        done = await self._kubectl.execute(pod_of, self._namespace, ["python", "-c", program])
        if done.code == 0 and METRICS[service] in done.output:
            return series(done.output)
        raise self._store_failure(pod_of, "/metrics", done)

    async def _workloads(self) -> list[Workload]:
        found = await self._kubectl.documents(
            "get",
            "deployments,statefulsets",
            f"--namespace={self._namespace}",
            f"--selector=app.kubernetes.io/instance={self._release}",
            "--output=json",
        )
        if not found:
            raise CheckFailedError(
                f"there is no workload of release {self._release} in namespace {self._namespace}", self._wrong_cluster
            )
        try:
            return [_workload(each) for each in found]
        except (KeyError, TypeError, ValueError, AttributeError):
            raise CheckFailedError(
                "kubectl get answers with something else than workloads",
                "See that the kubectl on the PATH is Kubernetes' own.",
            ) from None

    def _store_failure(self, pod_of: str, asked: str, done: Finished) -> CheckFailedError:
        where = f"kubectl -n {self._namespace}"
        if done.program_code is None:
            return CheckFailedError(
                f"{pod_of} can't be asked: {done.reason}", f"{where} get pods; {where} describe {pod_of}"
            )
        said = done.output.strip()[:300] or done.reason
        return CheckFailedError(
            f"{pod_of}: {asked} says {said!r} (exit code {done.program_code})",
            f"{where} logs {pod_of} --tail=100; {where} describe {pod_of}",
        )

    @property
    def _namespace(self) -> str:
        if self._environment.namespace is None:
            raise NotRunError("no namespace is known (--namespace)")
        return self._environment.namespace

    @property
    def _release(self) -> str:
        if self._environment.release is None:
            raise NotRunError("no release is known (--release)")
        return self._environment.release

    @property
    def _wrong_cluster(self) -> str:
        return (
            "See that kubectl talks to the right cluster (kubectl config current-context; --kube-context), and that the release has "
            "this name (helm list -A, or the Application's releaseName)."
        )


def _workload(document: dict[str, Any]) -> Workload:
    metadata, spec, status = document["metadata"], document["spec"], document.get("status") or {}
    pod = spec["template"]["spec"]
    wanted = int(spec.get("replicas", 1))
    if wanted == 0:
        problem: str | None = "is scaled to 0"
    elif int(status.get("observedGeneration", 0)) < int(metadata.get("generation", 0)):
        problem = "its controller has not seen its newest state yet"
    elif document["kind"] == "StatefulSet":
        problem = _stateful_set_problem(status, wanted)
    else:
        problem = _deployment_problem(status, wanted)
    return Workload(
        name=str(metadata["name"]),
        images=[str(container["image"]) for container in [*pod.get("initContainers", []), *pod["containers"]]],
        problem=problem,
    )


def _stateful_set_problem(status: dict[str, Any], wanted: int) -> str | None:
    if status.get("updateRevision") != status.get("currentRevision"):
        return f"{status.get('updatedReplicas', 0)} of {wanted} pods have the newest template"
    ready = int(status.get("readyReplicas", 0))
    return None if ready >= wanted else f"{ready} of {wanted} pods are ready"


def _deployment_problem(status: dict[str, Any], wanted: int) -> str | None:
    if any(each.get("reason") == "ProgressDeadlineExceeded" for each in status.get("conditions") or []):
        return "its roll-out made no progress within its time (ProgressDeadlineExceeded)"
    updated, available = int(status.get("updatedReplicas", 0)), int(status.get("availableReplicas", 0))
    if updated < wanted:
        return f"{updated} of {wanted} pods have the newest template"
    if (old := int(status.get("replicas", 0)) - updated) > 0:
        return f"{old} old pods are still there"
    return None if available >= updated else f"{available} of {updated} pods are available"


def _taken_apart(image: str) -> tuple[str, str | None, str | None]:
    """Return name, tag and digest of a reference (``host/path/name:tag@sha256:…``)."""
    rest, _, digest = image.partition("@")
    name, _, tag = rest.rpartition("/")[2].partition(":")
    return name, tag or None, digest or None
