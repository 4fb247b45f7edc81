"""The migrations' Job comes at the right moment: with Argo CD, at an installation and at an upgrade with Helm."""

from collections.abc import Callable

import pytest

from support.chart import RELEASE, Manifest, Render, needs_helm, render

pytestmark = needs_helm

WAVE = "argocd.argoproj.io/sync-wave"


def job(rendered: Render) -> Manifest:
    [found] = [each for name, each in rendered.of("Job").items() if f"{RELEASE}-migrate-" in str(name)]
    return found


def move(rendered: Render) -> Manifest:
    [found] = [each for name, each in rendered.of("Job").items() if f"{RELEASE}-move-" in str(name)]
    return found


def wave(manifest: Manifest) -> int:
    return int(manifest.annotations.get(WAVE, "0"))


class TestInstallation:
    def test_with_helm_runs_an_ordinary_job_beside_the_database_it_waits_for(self) -> None:
        found = job(render({}))

        # A hook would come before the database, or, with --wait, after services that wait for the schema.
        assert "helm.sh/hook" not in found.annotations
        assert found.spec["backoffLimit"] >= 10
        assert found.spec["template"]["spec"]["restartPolicy"] == "OnFailure"

    def test_has_a_name_that_no_later_job_has(self) -> None:
        assert job(render({})).name == f"{RELEASE}-migrate-1"


class TestUpgrade:
    def test_with_helm_runs_before_the_first_new_pod(self) -> None:
        found = job(render({}, "--is-upgrade"))

        assert found.annotations["helm.sh/hook"] == "pre-upgrade"
        assert "before-hook-creation" in found.annotations["helm.sh/hook-delete-policy"]
        assert found.name == f"{RELEASE}-migrate-upgrade"

    def test_reads_nothing_that_the_same_upgrade_brings(self) -> None:
        """A hook runs before the release's new objects exist."""
        pod = job(render({}, "--is-upgrade")).pod

        assert pod is not None
        assert {kind for volume in pod.volumes for kind in volume} == {"name", "emptyDir"}

    def test_that_brings_the_database_can_run_it_beside_it(self) -> None:
        found = job(render({"migrations": {"beforeUpgrade": False}}, "--is-upgrade"))

        assert "helm.sh/hook" not in found.annotations


class TestRollback:
    """Helm puts what it finds in the cluster, but not in the release it leaves, back to the manifest: what the manifest lacks goes."""

    @pytest.mark.parametrize("arguments", [(), ("--is-upgrade",)], ids=["installation", "upgrade"])
    @pytest.mark.parametrize("of", [job, move])
    def test_takes_nothing_away_that_a_job_may_not_lose(
        self, arguments: tuple[str, ...], of: Callable[[Render], Manifest]
    ) -> None:
        found = of(render({}, *arguments))

        # Otherwise the server adds a selector and labels, both of which never change.
        assert found.spec["manualSelector"] is True
        assert found.spec["selector"]["matchLabels"] == found.pod_labels

    def test_finds_the_pods_of_its_own_job_only(self) -> None:
        installation, upgrade = render({}), render({}, "--is-upgrade")
        others = [
            manifest
            for manifest, _pod in (*installation.pods(), *upgrade.pods())
            if manifest.name != job(installation).name
        ]
        own = job(installation).spec["selector"]["matchLabels"].items()

        assert len(others) > 1
        assert not [manifest.name for manifest in others if own <= manifest.pod_labels.items()]


class TestArgo:
    def test_runs_it_between_the_stores_and_the_services(self) -> None:
        rendered = render({})
        found = job(rendered)

        assert found.annotations["argocd.argoproj.io/hook"] == "Sync"
        assert found.annotations["argocd.argoproj.io/hook-delete-policy"] == "BeforeHookCreation"
        for store in ("timescaledb", "nats"):
            assert wave(rendered.find("StatefulSet", store)) < wave(found)
        for name in ("platform-api", "telemetry-worker", "docs"):
            assert wave(rendered.find("Deployment", name)) > wave(found)
        assert wave(rendered.find("StatefulSet", "mqtt-ingestion-worker")) > wave(found)

    def test_has_what_the_job_needs_before_it(self) -> None:
        rendered = render({})
        for kind in ("ServiceAccount", "NetworkPolicy", "Service", "ConfigMap"):
            assert all(wave(manifest) < wave(job(rendered)) for manifest in rendered.of(kind).values())


class TestMove:
    """The Job that moves measurements of an earlier version."""

    @pytest.mark.parametrize("arguments", [(), ("--is-upgrade",)], ids=["installation", "upgrade"])
    def test_is_an_ordinary_job_that_nothing_waits_for_and_nothing_ends(self, arguments: tuple[str, ...]) -> None:
        found = move(render({}, *arguments))

        # A hook before the services would keep them away for as long as the move lasts; one after them waits for a worker that waits for it.
        assert "helm.sh/hook" not in found.annotations
        assert "activeDeadlineSeconds" not in found.spec
        assert found.spec["backoffLimit"] >= 100
        assert found.pod is not None
        assert found.pod.containers[0].command == ["python", "-m", "sens_common.moving"]

    def test_comes_with_argo_beside_the_services_and_after_the_schema(self) -> None:
        rendered = render({})
        found = move(rendered)

        assert found.annotations["argocd.argoproj.io/hook"] == "Sync"
        assert found.annotations["argocd.argoproj.io/hook-delete-policy"] == "BeforeHookCreation"
        assert wave(job(rendered)) < wave(found) == wave(rendered.find("Deployment", "telemetry-worker"))

    def test_waits_for_the_version_of_the_embedded_database_alone(self) -> None:
        def version(values: dict[str, object]) -> str | None:
            pod = move(render(values)).pod
            assert pod is not None
            variable = pod.containers[0].environment.get("SENS_TIMESCALEDB_VERSION")
            return None if variable is None else variable.value

        assert version({"database": {"image": {"tag": "2.29.2-pg17"}}}) == "2.29.2"
        assert version({"database": {"embedded": False, "host": "db.example.org", "caSecret": "ca"}}) is None


class TestSwitch:
    def test_leaves_the_jobs_out(self) -> None:
        assert not render({"migrations": {"enabled": False}}).of("Job")
