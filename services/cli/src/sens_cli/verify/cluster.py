"""What only the cluster knows: roll-outs, images, the stores, and metrics, which are not public. All of it through kubectl."""

from dataclasses import dataclass
from typing import Any, Final

from sens_cli.release.kubectl import Finished
from sens_cli.release.record import IMAGES
from sens_cli.verify.environment import Environment
from sens_cli.verify.kubectl import Kubectl
from sens_cli.verify.outcome import CheckFailedError, NotRunError
from sens_cli.verify.services import API, DOCS, METRICS, series

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
                if name not in IMAGES:
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
        """See that the database accepts connections: the readiness of its pod is ``pg_isready``."""
        if self._environment.external_database:
            raise NotRunError("the database is outside of the cluster; /readyz of the API tells whether it can be used")
        return await self._ready("timescaledb", "pg_isready in its pod says that it accepts connections")

    async def nats(self) -> str:
        """See that NATS says that it is healthy: the readiness of its pod is ``/healthz``, and so is what restarts it."""
        if self._environment.external_nats:
            raise NotRunError("NATS is outside of the cluster; /readyz of the API tells whether it can be used")
        return await self._ready("nats", "its /healthz says that it is healthy")

    async def names(self) -> str:
        """See that names resolve inside of the cluster, as the newest run of the chart's checks says."""
        runs = await self._kubectl.documents("get", "jobs", *self._of("checks"), "--output=json")
        ended = [run for run in runs if _condition(run, "Complete") or _condition(run, "Failed")]
        if not ended:
            raise NotRunError(
                f"there is no run of the chart's checks in namespace {self._namespace} (checks.enabled), or none has ended yet"
            )
        newest = max(ended, key=lambda run: str(run["status"].get("startTime", "")))
        name = str(newest["metadata"]["name"])
        log = await self._kubectl.run("logs", f"job/{name}", f"--namespace={self._namespace}", "--tail=50")
        lines = [line.strip() for line in log.output.splitlines() if line.startswith(("ok ", "failed "))]
        when = str(newest["status"].get("startTime", "an unknown time"))
        if wrong := [line for line in lines if line.startswith("failed ")]:
            raise CheckFailedError(
                f"{'; '.join(wrong)[:1000]} ({when})",
                "kubectl -n kube-system logs deployment/coredns --since=15m; the runbook's section on CoreDNS has the usual causes.",
            )
        if not lines or not _condition(newest, "Complete"):
            raise CheckFailedError(
                f"job/{name} of {when} ended without a result", f"kubectl -n {self._namespace} describe job {name}"
            )
        return f"{len(lines)} of {len(lines)}: {', '.join(line.removeprefix('ok ') for line in lines)} ({when})"[:1000]

    async def metrics(self, service: str) -> str:
        """See that a service gives metrics, asked from within its pod."""
        pod_of = f"deployment/{self._release}-{service}"
        program = _METRICS_PROGRAM.format(port=_METRICS_PORTS[service])
        done = await self._kubectl.execute(pod_of, self._namespace, ["python", "-c", program])
        if done.code == 0 and METRICS[service] in done.output:
            return series(done.output)
        raise self._store_failure(pod_of, "/metrics", done)

    async def _ready(self, component: str, meaning: str) -> str:
        """See that a store's pods are ready; who may read pods may ask this, without running anything in them."""
        pods = await self._kubectl.documents("get", "pods", *self._of(component), "--output=json")
        where = f"statefulset/{self._release}-{component}"
        if not pods:
            raise CheckFailedError(
                f"{where} has no pod", f"kubectl -n {self._namespace} describe {where}; {self._wrong_cluster}"
            )
        try:
            problems = [f"{pod['metadata']['name']}: {problem}" for pod in pods if (problem := _pod_problem(pod))]
            names = ", ".join(str(pod["metadata"]["name"]) for pod in pods)
        except (KeyError, TypeError, ValueError, AttributeError):
            raise CheckFailedError(
                "kubectl get answers with something else than pods",
                "See that the kubectl on the PATH is Kubernetes' own.",
            ) from None
        if problems:
            raise CheckFailedError(
                "; ".join(problems),
                f"kubectl -n {self._namespace} logs {where} --tail=100; kubectl -n {self._namespace} describe {where}",
            )
        return f"{names}: {meaning}"

    def _of(self, component: str) -> list[str]:
        labels = f"app.kubernetes.io/instance={self._release},app.kubernetes.io/component={component}"
        return [f"--namespace={self._namespace}", f"--selector={labels}"]

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


def _condition(document: dict[str, Any], kind: str) -> dict[str, Any] | None:
    """Return a condition that holds."""
    conditions = (document.get("status") or {}).get("conditions") or []
    return next((each for each in conditions if each.get("type") == kind and each.get("status") == "True"), None)


def _pod_problem(pod: dict[str, Any]) -> str | None:
    """Return why a pod is not ready, None when it is."""
    if pod["metadata"].get("deletionTimestamp") is None and _condition(pod, "Ready"):
        return None
    status = pod.get("status") or {}
    reasons = [
        f"{state.get('reason')}: {str(state.get('message', ''))[:200]}".removesuffix(": ")
        for container in status.get("containerStatuses") or []
        for kind, state in (container.get("state") or {}).items()
        if kind != "running" and state.get("reason")
    ]
    restarts = sum(int(container.get("restartCount", 0)) for container in status.get("containerStatuses") or [])
    told = [status.get("phase", "no phase"), *reasons, f"{restarts} restarts"]
    return f"is not ready ({', '.join(map(str, told))})"


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
