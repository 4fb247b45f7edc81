"""scripts/kubeconfig-deploy-test of the GitOps repository: the file, its rights, and what is not shown."""

import base64
import json
import os
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from support.cluster import Cluster
from support.gitops import ENVIRONMENT
from support.kubectl import FakeKubectl

SERVER = "https://192.0.2.1:6443"
Run = Callable[..., "subprocess.CompletedProcess[str]"]


def token(claims: object) -> str:
    """Return a token of this form, unsigned."""
    part = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    return f"header.{part}.signature"


TOKEN = token({"exp": 1_800_000_000, "sub": "system:serviceaccount:sens-test:deploy-test"})


def configured(fake_kubectl: FakeKubectl, **cluster: str) -> None:
    """Let kubectl know this cluster alone."""
    config = {"clusters": [{"name": "k3s", "cluster": cluster}]}
    fake_kubectl.answer(["view"], {"output": json.dumps(config)})


@pytest.fixture
def kubectl(fake_kubectl: FakeKubectl) -> FakeKubectl:
    fake_kubectl.answer(["token"], {"output": f"{TOKEN}\n"})
    configured(fake_kubectl, server=SERVER, more="is left out", **{"certificate-authority-data": "Q0E="})
    return fake_kubectl


@pytest.fixture
def run(gitops: Path, kubectl: FakeKubectl, tmp_path: Path) -> Run:
    def call(*arguments: str) -> "subprocess.CompletedProcess[str]":
        environment = ENVIRONMENT | {"PATH": os.environ["PATH"]}
        command = [str(gitops / "scripts" / "kubeconfig-deploy-test"), "made", *arguments]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    return call


class TestFile:
    def test_holds_the_cluster_and_the_token_and_is_its_owners_alone(self, run: Run, tmp_path: Path) -> None:
        old = os.umask(0)
        try:
            done = run()
        finally:
            os.umask(old)

        assert (done.returncode, done.stderr) == (0, "")
        written = json.loads((tmp_path / "made").read_text(encoding="utf-8"))
        assert stat.S_IMODE((tmp_path / "made").stat().st_mode) == 0o600
        assert written["clusters"][0]["cluster"] == {"server": SERVER, "certificate-authority-data": "Q0E="}
        assert written["users"] == [{"name": "deploy-test", "user": {"token": TOKEN}}]
        assert written["contexts"][0]["context"]["namespace"] == "sens-test"

    def test_is_told_of_with_its_end_and_without_its_token(self, run: Run, kubectl: FakeKubectl) -> None:
        done = run("--hours", "12")

        assert "works until 2027-01-15 08:00 UTC" in done.stdout
        assert TOKEN not in done.stdout + done.stderr
        assert "--duration=12h" in kubectl.calls[-1]

    def test_is_not_overwritten_unless_told(self, run: Run, tmp_path: Path) -> None:
        (tmp_path / "made").write_text("mine", encoding="utf-8")

        assert "exists: name another file, or use --replace" in run().stderr
        assert (tmp_path / "made").read_text(encoding="utf-8") == "mine"
        assert run("--replace").returncode == 0
        assert TOKEN in (tmp_path / "made").read_text(encoding="utf-8")
        assert stat.S_IMODE((tmp_path / "made").stat().st_mode) == 0o600

    def test_is_not_written_through_a_symbolic_link(self, run: Run, tmp_path: Path) -> None:
        (tmp_path / "made").symlink_to(tmp_path / "elsewhere")

        assert run().returncode == 1
        assert not (tmp_path / "elsewhere").exists()

    def test_leaves_nothing_else_behind(self, run: Run, tmp_path: Path) -> None:
        run()
        run()

        assert {path.name for path in tmp_path.iterdir()} == {"programs", "made"}


class TestRefusals:
    @pytest.mark.parametrize("server", ["https://127.0.0.1:6443", "https://localhost:6443", "https://[::1]:6443"])
    def test_an_address_that_means_another_machine_elsewhere(
        self, run: Run, kubectl: FakeKubectl, tmp_path: Path, server: str
    ) -> None:
        configured(kubectl, server=server)

        assert "say with --server where it is reached from" in run().stderr
        assert not (tmp_path / "made").exists()
        assert run("--server", SERVER).returncode == 0

    @pytest.mark.parametrize("arguments", [["--hours", "0"], ["--hours", "721"], ["--hours", "-1"]])
    def test_a_time_without_bounds(self, run: Run, tmp_path: Path, arguments: list[str]) -> None:
        assert "choose 1 to 720" in run(*arguments).stderr
        assert not (tmp_path / "made").exists()

    @pytest.mark.parametrize("server", ["http://192.0.2.1:6443", "192.0.2.1:6443", "https://", "ftp://x"])
    def test_an_address_without_tls(self, run: Run, server: str) -> None:
        assert "it must be https://host:port" in run("--server", server).stderr

    @pytest.mark.parametrize("bad", ["", "x", "a.b.c", token({}), token([]), token({"exp": "soon"})])
    def test_a_token_without_an_end(self, run: Run, kubectl: FakeKubectl, tmp_path: Path, bad: str) -> None:
        kubectl.answer(["token"], {"output": bad})

        assert "a token without an end: nothing was written" in run().stderr
        assert not (tmp_path / "made").exists()

    def test_no_cluster(self, run: Run, kubectl: FakeKubectl) -> None:
        kubectl.answer(["view"], {"output": '{"clusters": null}'})

        assert "kubectl has no cluster" in run().stderr


class TestRealCluster:
    def test_may_look_after_test_and_nothing_else(self, cluster: Cluster, gitops: Path, tmp_path: Path) -> None:
        file = tmp_path / "deploy-test"
        config = json.loads(cluster.kubectl("config", "view", "--minify", "--output=json"))
        server = config["clusters"][0]["cluster"]["server"]
        command = [str(gitops / "scripts/kubeconfig-deploy-test"), str(file), "--server", server, "--hours", "1"]
        environment = ENVIRONMENT | {"KUBECONFIG": cluster.kubeconfig}
        subprocess.run(command, env=environment, capture_output=True, text=True, check=True)

        def may(*words: str) -> bool:
            answer = subprocess.run(
                ["kubectl", "--kubeconfig", str(file), "auth", "can-i", *words],
                capture_output=True,
                text=True,
                check=False,
            )
            assert answer.stdout.strip() in {"yes", "no"}, answer
            return answer.stdout.strip() == "yes"

        assert may("get", "pods")
        assert may("delete", "pods")
        assert not may("get", "secrets")
        assert not may("patch", "deployments")
        assert not may("get", "pods", "--namespace=sens-production")
        assert not may("delete", "pods", "--namespace=sens-production")
