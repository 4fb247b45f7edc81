"""What the cluster refuses to run: the policies of the bootstrap, evaluated by CEL's library and, where there is one, by an API server."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Protocol

import pytest

from support.chart import needs_helm, run_helm
from support.cluster import Cluster
from support.gitops import documents, find, values_of
from support.policies import RESOURCES, Asked, Policy
from support.yaml_documents import documents_of

OURS: Final = "ghcr.io/sens-gmbh/sens-platform"
API: Final = f"{OURS}/platform-api"
DIGEST: Final = "@sha256:" + "a" * 64
ALPHA: Final = f"{API}:0.5.0-alpha.123.1"
STABLE: Final = f"{API}:0.5.0"
OTHERS: Final = (
    "docker.io/library/nats:2.15.0-alpine",
    "docker.io/timescale/timescaledb:2.29.2-pg17",
    f"docker.io/timescale/timescaledb:2.29.2-pg17{DIGEST}",
    "quay.io/jetstack/cert-manager-acmesolver:v1.19.2",
)
FOREIGN: Final = (
    "nginx:1.2.3", "docker.io/library/nginx:1.2.3", f"evil.example/{API}:0.5.0", "ghcr.io/somebody-else/platform-api:0.5.0",
    f"{OURS}-evil/platform-api:0.5.0", f"{OURS}/platform-api-evil:0.5.0", f"{OURS}/platform-api/evil:0.5.0", f"{OURS}/debug:0.5.0",
    "docker.io/library/nats-evil:2.15.0", "nats:2.15.0-alpine", "docker.io/timescale/timescaledb-ha:2.22.1", "GHCR.IO/x:0.5.0",
    "ghcr.io:443/sens-gmbh/sens-platform/platform-api:0.5.0",
)  # fmt: skip
MOVABLE: Final = (
    API, f"{API}:latest", f"{API}:main", f"{API}:test", f"{API}:git-0123abc", f"{API}:{'0123456789' * 4}", f"{API}:0.5",
    f"{API}:0.5.0.1", f"{API}:v0.5.0", f"{API}:00.5.0", f"{API}:0.5.0-", f"{API}:0.5.0-a..b", f"{API}:0.5.0_1", f"{API}{DIGEST}",
    f"{API}:latest{DIGEST}", f"{API}:0.5.0@sha256:abc", f"{API}:0.5.0/evil:0.5.0", f"{API}:0.5.0@md5:abc", "docker.io/library/nats:2", "docker.io/library/nats",
    "docker.io/library/nats:alpine", "quay.io/jetstack/cert-manager-acmesolver:v1",
)  # fmt: skip
UNRELEASED: Final = (ALPHA, f"{ALPHA}{DIGEST}", f"{API}:0.5.0-rc.1", f"{API}:0.5.0-0", f"{API}:0.5.0-alpha")

CONTAINER: Final = {
    "securityContext": {
        "allowPrivilegeEscalation": False,
        "runAsNonRoot": True,
        "runAsUser": 65532,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }
}
GOOD: Final = {"sens-test": ALPHA, "sens-production": STABLE}


def pod(images: tuple[str, ...], init: tuple[str, ...] = (), **more: Any) -> dict[str, Any]:
    """Return a pod's specification."""
    containers = [{"name": f"c{number}", "image": image, **CONTAINER} for number, image in enumerate(images)]
    first = [{"name": f"i{number}", "image": image, **CONTAINER} for number, image in enumerate(init)]
    return {"containers": containers, **({"initContainers": first} if first else {}), **more}


def workload(kind: str, namespace: str, spec: Mapping[str, Any]) -> dict[str, Any]:
    """Return an object of a kind whose pods have this specification."""
    group = RESOURCES[kind][0]
    labels = {"app": "x"}
    template: dict[str, Any] = {"metadata": {"labels": labels}, "spec": spec}
    selector = {"selector": {"matchLabels": labels}}
    job = {"template": {**template, "spec": {**spec, "restartPolicy": "Never"}}}
    bodies: dict[str, dict[str, Any]] = {
        "Pod": {"spec": spec},
        "PodTemplate": {"template": template},
        "ReplicationController": {"spec": {"selector": labels, "template": template}},
        "StatefulSet": {"spec": {**selector, "serviceName": "x", "template": template}},
        "Job": {"spec": job},
        "CronJob": {"spec": {"schedule": "0 0 * * *", "jobTemplate": {"spec": job}}},
    }
    body = bodies.get(kind, {"spec": {**selector, "template": template}})
    version = f"{group}/v1" if group else "v1"
    return {"apiVersion": version, "kind": kind, "metadata": {"name": "x", "namespace": namespace}, **body}


class Judge(Protocol):
    """Lets requests through or refuses them."""

    def refusal(self, asked: Asked) -> str:
        """Return why a request is refused; empty when it is not."""


class LibraryJudge:
    """CEL's library."""

    def __init__(self, folder: Path) -> None:
        kinds = ("ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding")
        names = [document["metadata"]["name"] for document in documents(folder) if document["kind"] == kinds[0]]
        self._policies = [Policy(*(find(folder, kind, name) for kind in kinds)) for name in names]

    def refusal(self, asked: Asked) -> str:
        return "; ".join(message for policy in self._policies for message in policy.refusals(asked))


class ServerJudge:
    """An API server, which tries it and keeps nothing."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def refusal(self, asked: Asked) -> str:
        assert asked.operation == "CREATE"
        group, resource = RESOURCES[asked.document["kind"]]
        root = f"/apis/{group}/{asked.document['apiVersion'].partition('/')[2]}" if group else "/api/v1"
        path = f"{root}/namespaces/{asked.document['metadata']['namespace']}/{resource}?dryRun=All"
        answer = self._cluster.send("POST", path, asked.document)
        assert answer.status in {201, 403}, answer
        return answer.message if answer.status == 403 else ""


@pytest.fixture(scope="session", params=["library", "server"])
def judge(request: pytest.FixtureRequest, gitops: Path) -> Judge:
    if request.param == "server":
        return ServerJudge(request.getfixturevalue("cluster"))
    return LibraryJudge(gitops)


@pytest.fixture(scope="session")
def library(gitops: Path) -> Judge:
    return LibraryJudge(gitops)


every_namespace = pytest.mark.parametrize("namespace", ["sens-test", "sens-production"])
every_kind = pytest.mark.parametrize("kind", sorted(set(RESOURCES) - {"Application"}))


class TestImages:
    @every_namespace
    def test_of_the_platform_and_the_short_list_are_let_through(self, judge: Judge, namespace: str) -> None:
        good = GOOD[namespace]

        for images in ((good,), (good, f"{good}{DIGEST}"), (f"{OURS}/docs:0.5.0",), OTHERS):
            assert judge.refusal(Asked(workload("Pod", namespace, pod(images)))) == ""

    @every_namespace
    @pytest.mark.parametrize("image", [*FOREIGN, f"{OURS}/mock-mqtt-broker:0.5.0"])
    def test_from_elsewhere_are_refused(self, judge: Judge, namespace: str, image: str) -> None:
        if (namespace, image) == ("sens-test", f"{OURS}/mock-mqtt-broker:0.5.0"):
            assert judge.refusal(Asked(workload("Pod", namespace, pod((image,))))) == ""
            return
        refusal = judge.refusal(Asked(workload("PodTemplate", namespace, pod((image,)))))

        assert f"{namespace} takes images of {OURS} and of a short list only. Refused: {image}." in refusal

    @every_namespace
    @pytest.mark.parametrize("image", MOVABLE)
    def test_whose_tag_can_move_are_refused(self, judge: Judge, namespace: str, image: str) -> None:
        refusal = judge.refusal(Asked(workload("PodTemplate", namespace, pod((image,)))))

        assert f"{namespace} takes images with a version as their tag only" in refusal
        assert image in refusal

    @pytest.mark.parametrize("image", UNRELEASED)
    def test_that_are_not_released_are_for_test_alone(self, judge: Judge, image: str) -> None:
        refusal = judge.refusal(Asked(workload("PodTemplate", "sens-production", pod((image,)))))

        assert "sens-production takes released versions such as 0.5.0 only, no alpha and no rc" in refusal
        assert image in refusal
        assert judge.refusal(Asked(workload("PodTemplate", "sens-test", pod((image,))))) == ""

    def test_in_other_namespaces_are_not_looked_at(self, judge: Judge) -> None:
        assert judge.refusal(Asked(workload("PodTemplate", "default", pod(("nginx",))))) == ""


class TestPositions:
    @every_namespace
    @every_kind
    def test_each_kind_is_let_through_with_good_images(self, judge: Judge, kind: str, namespace: str) -> None:
        good = GOOD[namespace]

        assert judge.refusal(Asked(workload(kind, namespace, pod((good, good), (good,))))) == ""

    @every_namespace
    @every_kind
    @pytest.mark.parametrize("position", ["second container", "second init container"])
    def test_each_kind_is_refused_wherever_the_bad_image_is(
        self, judge: Judge, kind: str, namespace: str, position: str
    ) -> None:
        good, bad = GOOD[namespace], (GOOD[namespace], "evil.example/x:1.2.3")
        spec = pod(bad) if position == "second container" else pod((good,), bad)

        assert "Refused: evil.example/x:1.2.3." in judge.refusal(Asked(workload(kind, namespace, spec)))

    @every_namespace
    def test_containers_added_to_a_running_pod_are_refused(self, library: Judge, namespace: str) -> None:
        spec = pod((GOOD[namespace],), ephemeralContainers=[{"name": "debugger", "image": "busybox"}])

        refusal = library.refusal(Asked(workload("Pod", namespace, spec), "UPDATE", "ephemeralcontainers"))

        assert "Refused: busybox." in refusal

    @every_namespace
    def test_volumes_that_are_images_are_refused(self, library: Judge, namespace: str) -> None:
        volumes = [{"name": "v", "image": {"reference": "evil.example/files:1.2.3"}}, {"name": "e", "emptyDir": {}}]

        refusal = library.refusal(Asked(workload("Pod", namespace, pod((GOOD[namespace],), volumes=volumes))))

        assert "Refused: evil.example/files:1.2.3." in refusal

    @every_namespace
    def test_an_update_is_refused_as_well(self, library: Judge, namespace: str) -> None:
        asked = Asked(workload("Deployment", namespace, pod(("nginx",))), "UPDATE")

        assert "Refused: nginx." in library.refusal(asked)

    def test_what_is_being_deleted_may_lose_its_finalizers(self, library: Judge) -> None:
        document = workload("Pod", "sens-production", pod((ALPHA,)))
        document["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"

        assert library.refusal(Asked(document, "UPDATE")) == ""
        assert library.refusal(Asked(document)) != ""

    def test_an_api_server_refuses_a_container_added_to_a_running_pod(self, cluster: Cluster) -> None:
        pods = "/api/v1/namespaces/sens-test/pods"
        cluster.kubectl("--namespace=sens-test", "wait", "--for=create", "serviceaccount/default", "--timeout=30s")
        cluster.send("DELETE", f"{pods}/guarded?gracePeriodSeconds=0")
        document = workload("Pod", "sens-test", pod((ALPHA,)))
        document["metadata"]["name"] = "guarded"
        assert cluster.send("POST", pods, document).status == 201
        try:
            patch = {"spec": {"ephemeralContainers": [{"name": "debugger", "image": "busybox", **CONTAINER}]}}
            answer = cluster.send(
                "PATCH", f"{pods}/guarded/ephemeralcontainers", patch, "application/strategic-merge-patch+json"
            )
            image = {"spec": {"containers": [{"name": "c0", "image": f"{API}:latest"}]}}
            changed = cluster.send("PATCH", f"{pods}/guarded", image, "application/strategic-merge-patch+json")
        finally:
            cluster.send("DELETE", f"{pods}/guarded?gracePeriodSeconds=0")

        assert (answer.status, "Refused: busybox." in answer.message) == (403, True), answer
        assert (changed.status, "version as their tag" in changed.message) == (403, True), changed


@needs_helm
class TestChart:
    @staticmethod
    def rendered(gitops: Path, environment: str, tag: str, channel: str) -> list[dict[str, Any]]:
        values = values_of(gitops, environment)
        values["images"] |= {"tag": tag, "channel": channel, "digests": {"platform-api": DIGEST[1:]}}
        result = run_helm(values, "--namespace", f"sens-{environment}", base=None)
        assert result.returncode == 0, result.stderr
        found = [one for one in documents_of(result.stdout) if one["kind"] in RESOURCES]
        assert {one["metadata"]["namespace"] for one in found} == {f"sens-{environment}"}
        for one in found:
            if one["kind"] == "Pod":  # of which the API server would look for the account, before it asks the policies
                del one["spec"]["serviceAccountName"]
        return found

    @pytest.mark.parametrize(
        ("environment", "tag", "channel"), [("test", "0.5.0-alpha.1.1", "alpha"), ("production", "0.5.0", "stable")]
    )
    def test_all_that_it_runs_is_let_through(
        self, judge: Judge, gitops: Path, environment: str, tag: str, channel: str
    ) -> None:
        found = self.rendered(gitops, environment, tag, channel)

        assert len(found) >= 6
        assert [refusal for document in found if (refusal := judge.refusal(Asked(document)))] == []

    def test_an_alpha_is_refused_in_production(self, judge: Judge, gitops: Path) -> None:
        found = self.rendered(gitops, "production", "0.5.0-alpha.1.1", "alpha")
        refused = {
            document["metadata"]["name"].removeprefix("sens-platform-test-")
            for document in found
            if "released versions" in judge.refusal(Asked(document))
        }

        assert refused == {"platform-api", "docs", "telemetry-worker", "migrate-1", "move-1", "test", "checks"}


class TestApplications:
    @pytest.fixture(params=["sens-platform-test", "sens-platform-production"])
    def application(self, request: pytest.FixtureRequest, gitops: Path) -> dict[str, Any]:
        return find(gitops, "Application", request.param)

    def test_of_the_repository_are_let_through(self, library: Judge, gitops: Path) -> None:
        found = [document for document in documents(gitops) if document["kind"] == "Application"]

        assert len(found) == 4
        assert [library.refusal(Asked(document)) for document in found] == [""] * 4

    @pytest.mark.parametrize(
        ("path", "value", "text"),
        [
            (("metadata", "name"), "another", "no place for the Application another"),
            (("spec", "project"), "default", "of the project default"),
            (("spec", "destination", "namespace"), "kube-system", "in the namespace kube-system"),
            (("spec", "destination"), {"name": "in-cluster", "namespace": "sens-test"}, "no place for"),
            (
                ("spec", "destination"),
                {"server": "https://elsewhere.example", "namespace": "sens-test"},
                "no place for",
            ),
            (
                ("spec", "sources"),
                [{"repoURL": "https://evil.example/x.git", "path": "."}],
                "https://evil.example/x.git",
            ),
            (("spec", "source"), {"repoURL": "https://evil.example/x.git", "path": "."}, "https://evil.example/x.git"),
            (("spec", "sourceHydrator"), {"drySource": {}}, "other repositories"),
        ],
    )
    def test_are_refused_elsewhere(
        self, library: Judge, application: dict[str, Any], path: tuple[str, ...], value: object, text: str
    ) -> None:
        *parents, last = path
        parent = application
        for key in parents:
            parent = parent[key]
        parent[last] = value

        assert text in library.refusal(Asked(application, "UPDATE"))

    @pytest.mark.parametrize("automated", [{}, {"prune": True}, {"enabled": True}])
    def test_of_production_can_not_be_synced_by_themselves(
        self, library: Judge, gitops: Path, automated: dict[str, bool]
    ) -> None:
        production = find(gitops, "Application", "sens-platform-production")
        production["spec"]["syncPolicy"]["automated"] = automated

        assert library.refusal(Asked(production, "UPDATE")) == (
            "Production is synced by hand: remove syncPolicy.automated from the Application."
        )

    def test_of_test_can_not_be_moved_to_production(self, library: Judge, gitops: Path) -> None:
        moved = find(gitops, "Application", "sens-platform-test")
        moved["spec"] |= {"project": "sens-production"}
        moved["spec"]["destination"]["namespace"] = "sens-production"

        assert "no place for the Application sens-platform-test of the project sens-production" in library.refusal(
            Asked(moved)
        )

    @pytest.mark.parametrize(
        ("name", "keeper", "refused"),
        [
            ("sens-platform-test", "sens-applications-test", False),
            ("sens-platform-production", "sens-applications-production", False),
            ("sens-platform-production", "sens-applications-test", True),
            ("sens-platform-test", "sens-applications-production", True),
            ("sens-applications-production", "sens-applications-test", True),
            ("sens-applications-test", "sens-applications-test", True),
        ],
    )
    def test_are_changed_by_the_file_that_they_are_in_alone(
        self, library: Judge, gitops: Path, name: str, keeper: str, refused: bool
    ) -> None:
        application = find(gitops, "Application", name)
        tracking = f"{keeper}:argoproj.io/Application:argocd/{name}"
        application["metadata"]["annotations"] = {"argocd.argoproj.io/tracking-id": tracking}

        assert (f"{name} is not for {keeper} to change" in library.refusal(Asked(application, "UPDATE"))) is refused
