"""The workflows of the GitOps repository that release: their steps are run here as a runner runs them."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import yaml

from support.hosting import GITOPS_NAME, TOKEN, HostingService
from support.release import PRODUCTION, TEST, Cosign, Scene
from support.workflow import PlayedWorkflow

ALPHA, STABLE = "0.1.0-alpha.10.1", "0.1.0"
type Deploy = Callable[[Mapping[str, str]], PlayedWorkflow]
type Promote = Callable[[], PlayedWorkflow]
DEPLOY, PROMOTE = "deploy-test-main.yml", "promote-production-from-test.yml"
HOSTILE = ["$(touch pwned)", '"; touch pwned; "', "'; touch pwned; '", ")\ntouch pwned\n(", "--help", "*", ""]


def workflow(scene: Scene, hosting: HostingService, name: str, checkout: Path, **contexts: str) -> PlayedWorkflow:
    """A workflow of the GitOps repository; what each of its runs is given."""
    credentials = scene.registry.credentials
    assert credentials is not None
    runner = {"GITHUB_API_URL": hosting.url, "GITHUB_REPOSITORY": GITOPS_NAME, "SENS_PYTHON": sys.executable}
    known = {
        "github.actor": "somebody",
        "github.token": "ghs-of-the-run",
        "github.server_url": "https://github.com",
        "github.repository": GITOPS_NAME,
        "github.run_id": "77",
        "secrets.SENS_PLATFORM_REGISTRY_USER": credentials.user,
        "secrets.SENS_PLATFORM_REGISTRY_PASSWORD": credentials.password,
        "secrets.GITOPS_PULL_REQUEST_TOKEN": TOKEN,
    }
    file = scene.gitops.folder / ".github/workflows" / name
    return PlayedWorkflow(file, checkout, scene.folder, runner, known | contexts)


@pytest.fixture
def deploy(scene: Scene, hosting: HostingService) -> Deploy:
    def play(inputs: Mapping[str, str]) -> PlayedWorkflow:
        given = {f"inputs.{name}": value for name, value in inputs.items()}
        return played(workflow(scene, hosting, DEPLOY, scene.gitops.folder, **given))

    return play


@pytest.fixture
def promote(scene: Scene, hosting: HostingService, cosign: Cosign) -> Promote:
    return lambda: played(workflow(scene, hosting, PROMOTE, scene.folder))


def played(run: PlayedWorkflow) -> PlayedWorkflow:
    (name,) = run.jobs
    run.job(name)
    return run


@pytest.fixture
def inputs(scene: Scene) -> dict[str, str]:
    commit = scene.product.head
    return {
        "image_tag": ALPHA,
        "product_commit": commit,
        "digests": json.dumps(scene.publish(ALPHA, commit)),
        "run_url": "https://github.com/acme/sens-platform/actions/runs/1",
        "allow_rollback": "false",
    }


class TestDeployTestMain:
    def test_releases_what_it_is_given(self, scene: Scene, deploy: Deploy, inputs: dict[str, str]) -> None:
        before = scene.main
        done = deploy(inputs)
        assert done.failed is None, done.log
        assert scene.remote.changed(before, "main") == TEST.paths
        assert scene.record(TEST).run == inputs["run_url"]

    def test_again_succeeds_without_a_commit(self, scene: Scene, deploy: Deploy, inputs: dict[str, str]) -> None:
        deploy(inputs)
        before = scene.main
        assert deploy(inputs).failed is None
        assert scene.main == before

    def test_moves_test_back_only_when_that_is_asked_for(
        self, scene: Scene, deploy: Deploy, inputs: dict[str, str]
    ) -> None:
        scene.release_directly(TEST, "0.1.0-alpha.11.1", scene.commit_product())
        assert deploy(inputs).failed == "Write the release and commit it"
        assert deploy(inputs | {"allow_rollback": "true"}).failed is None

    def test_fails_when_an_image_is_missing(self, scene: Scene, deploy: Deploy, inputs: dict[str, str]) -> None:
        scene.registry.repositories.clear()
        done = deploy(inputs)
        assert done.failed == "Write the release and commit it"
        assert "not published with the tag" in done.log

    @pytest.mark.parametrize("text", HOSTILE)
    def test_runs_nothing_that_is_in_an_input(
        self, scene: Scene, deploy: Deploy, inputs: dict[str, str], text: str
    ) -> None:
        before = scene.main
        done = deploy(dict.fromkeys(inputs, text))
        assert done.failed == "Write the release and commit it"
        assert done.log.startswith("scripts/deploy-test-main: ")
        assert scene.main == before
        assert not list(scene.folder.rglob("pwned"))


class TestPromoteProductionFromTest:
    def test_opens_a_pull_request(self, scene: Scene, promote: Promote, hosting: HostingService) -> None:
        scene.release_directly(TEST, ALPHA, scene.product.head)
        scene.publish(STABLE, scene.product.head)
        done = promote()
        assert done.failed is None, done.log
        (pull,) = hosting.repositories[GITOPS_NAME].pulls
        assert pull["head"] == {"ref": "promote/0.1.0"}
        assert "0001_tenants.sql" in str(pull["body"])
        run = f"https://github.com/{GITOPS_NAME}/actions/runs/77"
        assert scene.record(PRODUCTION, "promote/0.1.0").run == run
        signer = "https://github.com/acme/sens-platform/.github/workflows/publish-images"
        assert f"The images are signed by {signer}" in str(pull["body"])
        assert promote().failed is None
        assert len(hosting.repositories[GITOPS_NAME].pulls) == 1

    def test_has_nothing_to_do_when_production_is_there(
        self, scene: Scene, promote: Promote, hosting: HostingService
    ) -> None:
        scene.release_directly(TEST, ALPHA, scene.product.head)
        scene.release_directly(PRODUCTION, STABLE, scene.product.head)
        assert promote().failed is None
        assert hosting.repositories[GITOPS_NAME].pulls == []

    def test_is_refused_before_stable_is_published(
        self, scene: Scene, promote: Promote, hosting: HostingService
    ) -> None:
        scene.release_directly(TEST, ALPHA, scene.product.head)
        assert promote().failed == "Push the branch"
        assert hosting.calls == []


class TestCheck:
    def guard(self, scene: Scene, branch: str) -> subprocess.CompletedProcess[str]:
        """Run the guard of a pull request as check.yml does."""
        text = (scene.gitops.folder / ".github" / "workflows" / "check.yml").read_text()
        (step,) = [step for step in yaml.safe_load(text)["jobs"]["release"]["steps"] if "run" in step]
        scene.remote.clone(scene.folder / "main", branch="main")
        scene.remote.clone(scene.folder / "proposed", branch=branch)
        return subprocess.run(
            ["bash", "-e", "-c", step["run"]],
            cwd=scene.folder,
            env={**os.environ, "SENS_PYTHON": sys.executable},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    @pytest.fixture
    def proposed(self, scene: Scene) -> Scene:
        scene.release_directly(TEST, ALPHA, scene.product.head)
        scene.publish(STABLE, scene.product.head)
        scene.promote("--branch-only")
        return scene

    def test_lets_a_promotion_pass(self, proposed: Scene) -> None:
        done = self.guard(proposed, "promote/0.1.0")
        assert done.returncode == 0, done.stderr

    def test_finds_what_a_promotion_brings_along_even_where_that_is_the_guard(self, proposed: Scene) -> None:
        proposed.gitops.git("switch", "--quiet", "promote/0.1.0")
        proposed.gitops.commit("Look away", {"scripts/release-guard": "#!/bin/sh\n"})
        proposed.gitops.push("promote/0.1.0")
        done = self.guard(proposed, "promote/0.1.0")
        assert done.returncode == 1
        assert "scripts/release-guard is changed" in done.stderr


@pytest.mark.parametrize("name", [DEPLOY, PROMOTE])
class TestBoth:
    def text(self, scene: Scene, name: str) -> str:
        return (scene.gitops.folder / ".github" / "workflows" / name).read_text()

    def test_pin_what_they_use_by_commit(self, scene: Scene, name: str) -> None:
        uses = re.findall(r"uses: (.*)", self.text(scene, name))
        assert uses
        assert all(re.fullmatch(r"[a-z-]+/[a-z-]+@[0-9a-f]{40} # v[0-9.]+", use) for use in uses)

    def test_put_no_expression_into_a_command(self, scene: Scene, name: str) -> None:
        (job,) = yaml.safe_load(self.text(scene, name))["jobs"].values()
        assert not [step for step in job["steps"] if "${{" in step.get("run", "")]

    def test_may_nothing_but_what_a_job_asks_for(self, scene: Scene, name: str) -> None:
        workflow = yaml.safe_load(self.text(scene, name))
        (job,) = workflow["jobs"].values()
        assert workflow["permissions"] == {}
        assert set(job["permissions"]) <= {"contents", "packages", "pull-requests"}
        assert workflow["concurrency"]["cancel-in-progress"] is False


class TestTheGitHubApp:
    """Where there is one, its tokens, which end within the hour and are for one repository, take the place of personal ones."""

    PERSONAL = re.compile(r"secrets\.(?:SENS_PLATFORM_READ_TOKEN|GITOPS_PULL_REQUEST_TOKEN)")

    @pytest.mark.parametrize("name", [PROMOTE, "check.yml", "verify.yml"])
    def test_goes_before_each_personal_token(self, scene: Scene, name: str) -> None:
        workflow = yaml.safe_load((scene.gitops.folder / ".github" / "workflows" / name).read_text())
        apps: dict[str, dict[str, str]] = {}
        used = 0
        for step in (step for job in workflow["jobs"].values() for step in job["steps"]):
            if step.get("uses", "").startswith("actions/create-github-app-token@"):
                assert "vars.SENS_PLATFORM_APP_CLIENT_ID != ''" in step["if"]
                apps[step["id"]] = step["with"]
            for expression in re.findall(r"\$\{\{(.*?)\}\}", str(step)):
                if self.PERSONAL.search(expression):
                    first, _, _ = expression.partition("||")
                    match = re.fullmatch(r"\s*steps\.([a-z]+)\.outputs\.token\s*", first)
                    assert match is not None, expression
                    assert apps[match[1]]["private-key"] == "${{ secrets.SENS_PLATFORM_APP_PRIVATE_KEY }}"
                    used += 1
        assert used
        # Each is for the one repository that the step is about, with one right.
        assert all(app["repositories"] and "," not in app["repositories"] for app in apps.values())
        assert all(sum(key.startswith("permission-") for key in app) == 1 for app in apps.values())
