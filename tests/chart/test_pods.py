"""Every pod keeps to the Pod Security Standard "restricted", says what it needs, tells how it is, and stops in peace."""

import re
from collections.abc import Iterator

from support.chart import (
    MATRIX,
    RELEASE,
    Container,
    Manifest,
    Pod,
    Render,
    every_render,
    matrix_render,
    needs_helm,
    render,
)

pytestmark = needs_helm

IMMUTABLE = re.compile(r"[a-z0-9][a-z0-9._:/-]*:\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?(@sha256:[0-9a-f]{64})?")
SERVICES = {
    "platform-api",
    "docs",
    "mqtt-ingestion-worker",
    "http-ingestion-worker",
    "telemetry-worker",
    "mock-mqtt-broker",
}

# Kubelet's defaults: containerLogMaxSize 10Mi, containerLogMaxFiles 5.
KUBELET_LOG_MEBIBYTES = 50


def containers(rendered: Render) -> Iterator[tuple[Manifest, Pod, Container]]:
    for manifest, pod in rendered.pods():
        for container in (*pod.containers, *pod.init_containers):
            yield manifest, pod, container


class TestSecurity:
    @every_render
    def test_is_restricted_for_every_pod(self, name: str) -> None:
        """Kubernetes documentation, "Pod Security Standards", policy Restricted."""
        for manifest, pod, container in containers(matrix_render(name)):
            where = f"{manifest.kind} {manifest.name}, {container.name}"
            assert not pod.host_network, where
            assert not pod.host_pid, where
            assert pod.security_context.run_as_non_root is True, where
            assert (pod.security_context.run_as_user or 0) > 0, where
            assert pod.security_context.seccomp_profile == {"type": "RuntimeDefault"}, where
            assert container.security_context.allow_privilege_escalation is False, where
            assert not container.security_context.privileged, where
            assert container.security_context.capabilities == {"drop": ["ALL"]}, where
            assert container.security_context.run_as_user is None, where
            assert not [port for port in container.ports if port.host_port], where
            kinds = {kind for volume in pod.volumes for kind in volume if kind != "name"}
            assert kinds <= {"configMap", "emptyDir", "secret", "persistentVolumeClaim"}, where

    @every_render
    def test_leaves_no_root_filesystem_writable(self, name: str) -> None:
        for _manifest, _pod, container in containers(matrix_render(name)):
            assert container.security_context.read_only_root_filesystem is True
            assert "/tmp" in {mount.mount_path for mount in container.volume_mounts}  # noqa: S108 - a mount

    @every_render
    def test_gives_no_pod_a_token_of_the_cluster(self, name: str) -> None:
        rendered = matrix_render(name)
        for _manifest, pod in rendered.pods():
            assert pod.automount_service_account_token is False
            account = rendered.of("ServiceAccount")[pod.service_account_name]
            assert account.document["automountServiceAccountToken"] is False


class TestImages:
    @every_render
    def test_are_versions_and_never_move(self, name: str) -> None:
        for _manifest, _pod, container in containers(matrix_render(name)):
            assert IMMUTABLE.fullmatch(container.image), container.image

    def test_carry_a_digest_where_one_is_given(self) -> None:
        assert matrix_render("everything on").container("platform-api").image.endswith(f"@sha256:{'a' * 64}")

    def test_are_pulled_with_the_given_secrets(self) -> None:
        for _manifest, pod in matrix_render("test").pods():
            assert pod.image_pull_secrets == [{"name": "ghcr-pull"}]


def millicores(quantity: str) -> int:
    return int(quantity[:-1]) if quantity.endswith("m") else round(float(quantity) * 1000)


def mebibytes(quantity: str) -> float:
    return float(quantity[:-2]) * {"Ki": 1 / 1024, "Mi": 1, "Gi": 1024}[quantity[-2:]]


class TestResources:
    @every_render
    def test_are_requested_and_limited(self, name: str) -> None:
        for _manifest, _pod, container in containers(matrix_render(name)):
            requests, limits = container.resources.requests, container.resources.limits
            assert limits.keys() == {"cpu", "memory"}
            assert requests.keys() == {"cpu", "memory", "ephemeral-storage"}
            assert millicores(requests["cpu"]) <= millicores(limits["cpu"])
            assert mebibytes(requests["memory"]) <= mebibytes(limits["memory"])

    @every_render
    def test_of_the_node_s_disk_hold_the_pod_s_own_files_and_its_log(self, name: str) -> None:
        for manifest, pod, container in containers(matrix_render(name)):
            files = sum(
                mebibytes(volume["emptyDir"]["sizeLimit"])
                for volume in pod.volumes
                if "emptyDir" in volume and volume["emptyDir"].get("medium") != "Memory"
            )
            requested = mebibytes(container.resources.requests["ephemeral-storage"])
            assert requested >= files + KUBELET_LOG_MEBIBYTES, manifest.name

    def test_of_everything_embedded_fit_a_node_of_4_gb(self) -> None:
        rendered = render({"httpIngestion": {"enabled": False}})  # as by default
        requests = [
            container.resources.requests for _manifest, _pod, container in containers(rendered)
        ]  # the Job and the test's pod included

        assert sum(millicores(request["cpu"]) for request in requests) < 1000
        assert sum(mebibytes(request["memory"]) for request in requests) < 1536


class TestProbes:
    @every_render
    def test_are_there_for_everything_that_goes_on_running(self, name: str) -> None:
        for manifest, _pod, container in containers(matrix_render(name)):
            if manifest.kind in {"Deployment", "StatefulSet"}:
                assert container.startup_probe, manifest.name
                assert container.liveness_probe, manifest.name
                assert container.readiness_probe, manifest.name

    def test_of_the_services_ask_for_health_and_for_readiness(self) -> None:
        for component in SERVICES:
            container = matrix_render("test").container(component)
            assert container.liveness_probe is not None
            assert container.readiness_probe is not None
            if component != "mock-mqtt-broker":
                assert container.liveness_probe["httpGet"]["path"] == "/healthz"
            assert container.readiness_probe["httpGet"]["path"] == "/readyz"
            # A check that has no answer after 2 seconds fails inside of the service.
            assert container.readiness_probe["timeoutSeconds"] > 2

    def test_of_nats_leave_it_time_to_read_its_log_back(self) -> None:
        probe = matrix_render("test").container("nats").startup_probe
        assert probe is not None
        # 100 GiB, the largest log that is thought of, at 100 MiB a second.
        assert probe["periodSeconds"] * probe["failureThreshold"] >= 100 * 1024 / 100


class TestStop:
    def test_leaves_more_time_than_the_service_takes(self) -> None:
        for manifest, pod, container in containers(render({"shutdownSeconds": 100.5})):
            if "SENS_SHUTDOWN_SECONDS" in container.environment:
                deadline = float(container.environment["SENS_SHUTDOWN_SECONDS"].value or "")
                pause = container.lifecycle.get("preStop", {}).get("sleep", {}).get("seconds", 0)
                assert deadline == 100.5
                assert pod.termination_grace_period_seconds > deadline + pause, manifest.name

    def test_of_the_stores_leaves_them_time_to_write(self) -> None:
        for component in ("nats", "timescaledb"):
            pod = matrix_render("test").find("StatefulSet", component).pod
            assert pod is not None
            assert pod.termination_grace_period_seconds >= 60


class TestDisruptions:
    @every_render
    def test_spread_pods_over_nodes(self, name: str) -> None:
        for manifest, pod in matrix_render(name).pods():
            [constraint] = pod.topology_spread_constraints
            assert constraint["labelSelector"]["matchLabels"].items() <= manifest.pod_labels.items()

    def test_are_limited_for_each_component(self) -> None:
        rendered = matrix_render("production")
        budgets = {
            budget.spec["selector"]["matchLabels"]["app.kubernetes.io/component"]: budget.spec
            for budget in rendered.of("PodDisruptionBudget").values()
        }
        running = {
            manifest.component for manifest, _pod in rendered.pods() if manifest.kind not in {"Job", "CronJob", "Pod"}
        }

        assert budgets.keys() == running
        # A single pod must be allowed to move, or its node could never be drained.
        assert all(budget["maxUnavailable"] == 1 for budget in budgets.values())


class TestConfiguration:
    def test_that_changes_starts_the_pods_anew(self) -> None:
        def checksum(size: int) -> str:
            template = render({"nats": {"streamMaxBytes": size}}).find("StatefulSet", "nats").spec["template"]
            text: str = template["metadata"]["annotations"]["checksum/config"]
            return text

        assert checksum(1 << 30) != checksum(1 << 29)

    def test_of_another_version_of_the_chart_restarts_neither_store(self) -> None:
        for component in ("nats", "timescaledb"):
            manifest = matrix_render("test").find("StatefulSet", component)
            assert "app.kubernetes.io/version" not in manifest.pod_labels
            assert "helm.sh/chart" not in manifest.pod_labels


class TestMatrix:
    def test_has_pods_of_every_component(self) -> None:
        seen = {manifest.component for name in MATRIX for manifest, _pod in matrix_render(name).pods()}

        assert seen >= SERVICES | {"nats", "timescaledb", "migrate"}

    def test_names_objects_after_the_release(self) -> None:
        assert all(manifest.name.startswith(RELEASE) for manifest in matrix_render("production").manifests)
