"""scripts/create-secrets of the GitOps repository: what gets into the cluster, and what no one gets to see."""

import base64
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from support.cluster import Cluster
from support.gitops import ENVIRONMENT
from support.kubectl import FakeKubectl
from tools.release.cluster_secrets import Question
from tools.release.create_secrets import prompt

TOKEN = "the-token-of-the-registry"
APP_KEY = "-----BEGIN RSA PRIVATE KEY-----\nMIIB\n-----END RSA PRIVATE KEY-----"  # pragma: allowlist secret - of nobody
PASSWORD = "the-password-of-the-database"
OWN = {
    *("postgres-api-password", "postgres-worker-password"),
    *(f"nats-{user}-password" for user in ("administrator", "api", "ingestion", "http-ingestion", "telemetry")),
}
GIVEN = f"registry-user=robot\nregistry-token={TOKEN}\npostgres-password={PASSWORD}\n"
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def run(gitops: Path, fake_kubectl: FakeKubectl) -> Run:
    """Return the script, with what it reads from its standard input."""

    def call(*arguments: str, stdin: str = GIVEN) -> "subprocess.CompletedProcess[str]":
        environment = ENVIRONMENT | {"PATH": os.environ["PATH"]}
        command = [str(gitops / "scripts" / "create-secrets"), *arguments]
        return subprocess.run(command, input=stdin, env=environment, capture_output=True, text=True, check=False)

    return call


class TestCreating:
    @pytest.mark.parametrize("part", ["test", "production"])
    def test_makes_the_secrets_of_an_environment(self, run: Run, fake_kubectl: FakeKubectl, part: str) -> None:
        done = run(part)

        assert (done.returncode, done.stderr) == (0, "")
        objects = fake_kubectl.objects
        assert set(objects) == {f"sens-{part}/ghcr-pull", f"sens-{part}/sens-{part}-timescaledb-auth"}
        values = objects[f"sens-{part}/sens-{part}-timescaledb-auth"]["stringData"]
        assert values["postgres-password"] == PASSWORD
        assert set(values) == {"postgres-password", *OWN}
        assert {len(values[key]) for key in OWN} == {48}
        assert len({values[key] for key in OWN}) == len(OWN)

    def test_makes_a_login_that_a_node_understands(self, run: Run, fake_kubectl: FakeKubectl) -> None:
        run("test")

        pull = fake_kubectl.objects["sens-test/ghcr-pull"]
        entry = json.loads(pull["stringData"][".dockerconfigjson"])["auths"]["ghcr.io"]
        assert pull["type"] == "kubernetes.io/dockerconfigjson"
        assert base64.b64decode(entry["auth"]).decode() == f"robot:{TOKEN}"

    def test_makes_argo_cds_access_to_both_repositories(self, run: Run, fake_kubectl: FakeKubectl) -> None:
        assert run("argocd", stdin=f"repository-user=x\nrepository-token={TOKEN}\n").returncode == 0

        found = fake_kubectl.objects["argocd/sens-repositories"]
        assert found["metadata"]["labels"] == {"argocd.argoproj.io/secret-type": "repo-creds"}
        assert found["stringData"]["url"] == "https://github.com/SENS-GmbH"

    def test_makes_argo_cds_access_as_a_github_app_too(
        self, run: Run, fake_kubectl: FakeKubectl, tmp_path: Path
    ) -> None:
        (tmp_path / "app.pem").write_text(f"{APP_KEY}\n\n")
        assert run("argocd", stdin=f"repository-user=x\nrepository-token={TOKEN}\n").returncode == 0
        asked = "github-app-id=12\ngithub-app-installation-id=34\n"

        done = run("argocd", f"--github-app-key={tmp_path / 'app.pem'}", "--replace", stdin=asked)

        assert (done.returncode, done.stderr) == (0, "")
        # Nothing is left of the token, which Argo CD would take first.
        assert fake_kubectl.objects["argocd/sens-repositories"]["stringData"] == {
            "type": "git",
            "url": "https://github.com/SENS-GmbH",
            "githubAppID": "12",
            "githubAppInstallationID": "34",
            "githubAppPrivateKey": f"{APP_KEY}\n",
        }
        assert "MIIB" not in done.stdout

    @pytest.mark.parametrize(
        ("part", "content", "text"),
        [
            ("argocd", "MIIBsecret", "holds no private key"),
            ("argocd", None, "can't be read: FileNotFoundError"),
            ("test", "MIIBsecret", "--github-app-key is for argocd"),
        ],
    )
    def test_takes_an_app_s_key_where_it_is_one(  # noqa: PLR0917 - fixtures and three parameters
        self, run: Run, fake_kubectl: FakeKubectl, tmp_path: Path, part: str, content: str | None, text: str
    ) -> None:
        if content is not None:
            (tmp_path / "app.pem").write_text(content)

        done = run(part, f"--github-app-key={tmp_path / 'app.pem'}", stdin="")

        assert done.returncode == 1
        assert text in done.stderr
        assert "MIIB" not in done.stderr
        assert fake_kubectl.objects == {}

    def test_makes_a_random_password_of_an_empty_one(self, run: Run, fake_kubectl: FakeKubectl) -> None:
        passwords = set()
        for part in ("test", "production"):
            assert run(part, "--only", f"sens-{part}-timescaledb-auth", stdin="postgres-password=\n").returncode == 0
            key = f"sens-{part}/sens-{part}-timescaledb-auth"
            passwords.add(fake_kubectl.objects[key]["stringData"]["postgres-password"])

        assert {len(password) for password in passwords} == {48}
        assert len(passwords) == 2

    def test_keeps_equals_signs_and_spaces_of_a_value(self, run: Run, fake_kubectl: FakeKubectl) -> None:
        run("test", "--only", "sens-test-timescaledb-auth", stdin="postgres-password= a=b=c and more \n")

        found = fake_kubectl.objects["sens-test/sens-test-timescaledb-auth"]["stringData"]
        assert found["postgres-password"] == " a=b=c and more "

    def test_asks_without_echo_for_what_is_secret(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("getpass.getpass", lambda text: f"hidden {text}")
        monkeypatch.setattr("builtins.input", lambda text: f"shown {text}")

        assert prompt(Question("k", "Token")) == "hidden Token: "
        assert prompt(Question("k", "User", secret=False)) == "shown User: "
        assert "empty: a random one" in prompt(Question("k", "Password", made_when_empty=True))


class TestSecrecy:
    def test_values_are_on_no_command_line_and_in_no_output(self, run: Run, fake_kubectl: FakeKubectl) -> None:
        outputs = [run("test"), run("test", "--replace"), run("test")]

        seen = json.dumps(fake_kubectl.calls) + "".join(done.stdout + done.stderr for done in outputs)
        assert fake_kubectl.calls
        assert TOKEN not in seen
        assert PASSWORD not in seen

    def test_values_are_not_in_what_the_cluster_complains_about(self, run: Run, fake_kubectl: FakeKubectl) -> None:
        run("test", "--only", "sens-test-timescaledb-auth")
        fake_kubectl.answer([], {"errors": "error: cannot use STDIN", "code": 1})

        done = run("production", "--only", "sens-production-timescaledb-auth")
        assert done.returncode == 1
        assert PASSWORD not in done.stderr

    def test_a_line_that_is_not_understood_is_not_repeated(self, run: Run) -> None:
        done = run("test", stdin=f"registry-user=x\n{PASSWORD}\n")

        assert done.returncode == 1
        assert "Line 2 of the standard input is not key=value" in done.stderr
        assert PASSWORD not in done.stderr


class TestKeeping:
    def test_what_exists_stays_and_the_reason_is_given(self, run: Run, fake_kubectl: FakeKubectl) -> None:
        run("test")
        done = run("test", stdin="postgres-password=another-password\n")

        assert done.returncode == 0
        found = fake_kubectl.objects["sens-test/sens-test-timescaledb-auth"]
        assert found["stringData"]["postgres-password"] == PASSWORD
        assert "kept     sens-test/sens-test-timescaledb-auth" in done.stdout
        assert "its volume keeps it" in done.stdout

    def test_replacing_is_asked_for_and_keeps_other_keys(self, run: Run, fake_kubectl: FakeKubectl) -> None:
        run("production")
        objects = fake_kubectl.objects
        objects["sens-production/sens-production-timescaledb-auth"]["stringData"]["mqtt-username"] = "m"
        fake_kubectl.keep(objects)

        arguments = ("production", "--only", "sens-production-timescaledb-auth", "--replace")
        assert run(*arguments, stdin="postgres-password=another-password\n").returncode == 0
        found = fake_kubectl.objects["sens-production/sens-production-timescaledb-auth"]["stringData"]
        assert (found["postgres-password"], found["mqtt-username"]) == ("another-password", "m")

    def test_a_secret_of_earlier_gets_the_passwords_of_the_services_own(
        self, run: Run, fake_kubectl: FakeKubectl
    ) -> None:
        earlier = {"postgres-password": PASSWORD, "nats-api-password": "its own"}
        fake_kubectl.keep({"sens-test/sens-test-timescaledb-auth": {"stringData": earlier}})

        outputs = [run("test", "--only", "sens-test-timescaledb-auth").stdout for _ in range(2)]
        found = fake_kubectl.objects["sens-test/sens-test-timescaledb-auth"]["stringData"]
        assert set(found) == {"postgres-password", *OWN}
        assert {key: found[key] for key in earlier} == earlier
        assert "Added the keys that it had not: postgres-api-password" in outputs[0]
        assert "Added" not in outputs[1]
        said = json.dumps(fake_kubectl.calls) + "".join(outputs)
        assert not any(found[key] in said for key in OWN if key not in earlier)

    def test_the_webhooks_secret_joins_argo_cds_own(self, run: Run, fake_kubectl: FakeKubectl) -> None:
        fake_kubectl.keep({"argocd/argocd-secret": {"stringData": {"admin.password": "hash"}}})

        assert run("webhook", stdin="webhook-secret=first-secret\n").returncode == 0
        assert "kept" in run("webhook", stdin="webhook-secret=second-secret\n").stdout
        assert fake_kubectl.objects["argocd/argocd-secret"]["stringData"] == {
            "admin.password": "hash",
            "webhook.github.secret": "first-secret",
        }


class TestRefusals:
    @pytest.mark.parametrize(
        ("arguments", "stdin", "text"),
        [
            (["test"], "registry-user=x\n", "registry-token is missing on the standard input"),
            (["test"], "registry-user=x\nregistry-token=\n", "registry-token is empty"),
            (
                ["test", "--only", "sens-test-timescaledb-auth"],
                "postgres-password=short\n",
                "shorter than 12 characters",
            ),
            (["test", "--only", "ghcr"], GIVEN, "test has no secret 'ghcr': ghcr-pull, sens-test-timescaledb-auth"),
            (["webhook"], "webhook-secret=x\n", "(NotFound)"),
        ],
    )
    def test_say_what_is_wrong_and_create_nothing(
        self, run: Run, fake_kubectl: FakeKubectl, arguments: list[str], stdin: str, text: str
    ) -> None:
        done = run(*arguments, stdin=stdin)

        assert done.returncode == 1
        assert text in done.stderr
        assert done.stderr.startswith("scripts/create-secrets: ")
        assert fake_kubectl.objects == {}

    def test_a_cluster_that_is_not_reached_is_not_taken_for_an_empty_one(
        self, run: Run, fake_kubectl: FakeKubectl
    ) -> None:
        fake_kubectl.answer([], {"errors": "Unable to connect to the server", "code": 1})

        assert "Unable to connect to the server" in run("test").stderr


class TestRealCluster:
    def test_keeps_and_replaces_as_told(self, cluster: Cluster, gitops: Path) -> None:
        secret = "/api/v1/namespaces/sens-test/secrets/sens-test-timescaledb-auth"
        environment = ENVIRONMENT | {"KUBECONFIG": cluster.kubeconfig}
        command = [str(gitops / "scripts/create-secrets"), "test", "--only", "sens-test-timescaledb-auth"]

        def create(password: str, *more: str) -> str:
            answer = subprocess.run(
                [*command, *more],
                input=f"postgres-password={password}\n",
                env=environment,
                capture_output=True,
                text=True,
                check=True,
            )
            data = cluster.send("GET", secret).document
            assert "annotations" not in data["metadata"]
            assert password not in answer.stdout + answer.stderr
            return base64.b64decode(data["data"]["postgres-password"]).decode()

        cluster.send("DELETE", secret)
        try:
            assert create("first-password") == "first-password"
            assert create("second-password") == "first-password"
            assert create("second-password", "--replace") == "second-password"
        finally:
            cluster.send("DELETE", secret)
