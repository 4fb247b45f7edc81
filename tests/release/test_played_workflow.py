"""The publishing workflow, played: its jobs' scripts are run by bash in the order and with the values that GitHub would give them.

Docker and cosign are stand-ins: the images lie in a registry already, without the version as their tag, as a build leaves them.
"""

import json
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import pytest

from sens_cli.release.record import IMAGES, PinnedImage, Record, Release, dump, now
from sens_cli.release.record import parse as parse_record
from sens_cli.release.versions import Version
from support.git import Repository
from support.hosting import GITOPS_NAME, TOKEN, HostingService
from support.programs import Programs
from support.registry import FOLDER, SmallRegistry, client, upload_release
from support.services import ROOT
from support.workflow import PlayedWorkflow
from tools.release.source import Source

GITHUB_OWN_TOKEN = "ghs-of-the-run"
FILE = ROOT / ".github/workflows/publish-images.yml"

pytestmark = pytest.mark.usefixtures("isolated_git")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """A clone of this repository whose main is what is checked out here, with the scripts as they are now."""
    folder = tmp_path_factory.mktemp("product")
    origin = Repository.create(folder / "origin", bare=True)
    origin.git("fetch", "--quiet", "--update-shallow", str(ROOT), "HEAD:refs/heads/main")
    clone = origin.clone(folder / "clone")
    for part in ("scripts", "tools", "services/cli/src/sens_cli/release"):
        shutil.copytree(ROOT / part, clone.folder / part, dirs_exist_ok=True)
    shutil.copy(ROOT / "images.toml", clone.folder)
    return clone


class Run(PlayedWorkflow):
    """A run of the workflow that publishes.

    Attributes:
        checkout: What every job checks out.
        registry: Where the images are.
        programs: The stand-ins.
    """

    def __init__(
        self,
        checkout: Repository,
        registry: SmallRegistry,
        programs: Programs,
        folder: Path,
        contexts: Mapping[str, str],
    ) -> None:
        self.checkout = checkout
        self.registry = registry
        self.programs = programs
        runner = {
            "SENS_BASE_PYTHON": sys.executable,
            "GITHUB_ACTOR": "somebody",
            "GITHUB_EVENT_NAME": "workflow_run",
            "GITHUB_REPOSITORY": "acme/sens-platform",
            "GITHUB_RUN_ATTEMPT": "1",
            "GITHUB_RUN_ID": "42",
            "GITHUB_RUN_NUMBER": "7",
            "GITHUB_SERVER_URL": "https://github.com",
            "GITHUB_STEP_SUMMARY": str(folder / "summary"),
        }
        super().__init__(FILE, checkout.folder, folder, runner, contexts)


DOCKER = """
if arguments[:2] == ["buildx", "build"]:
    file = next(word for word in arguments if word.startswith("--metadata-file="))
    digest = digests[arguments[arguments.index("--target") + 1]]
    Path(file.partition("=")[2]).write_text(json.dumps({"containerimage.digest": digest}))
"""


@pytest.fixture
def run(checkout: Repository, small_registry: SmallRegistry, tmp_path: Path, programs: Programs) -> Run:
    """A run, not started, whose stand-in for docker knows the digests that were uploaded."""
    commit = checkout.revision("origin/main")
    digests = upload_release(small_registry, IMAGES, "built", commit)
    programs.put("docker", f"digests = {digests!r}\n{DOCKER}")
    programs.put("cosign")
    assert small_registry.credentials is not None
    contexts = {
        "github.actor": "somebody",
        "github.token": GITHUB_OWN_TOKEN,
        "secrets.SENS_PLATFORM_REGISTRY_USER": small_registry.credentials.user,
        "secrets.SENS_PLATFORM_REGISTRY_PASSWORD": small_registry.credentials.password,
        "vars.SENS_PLATFORM_REGISTRY": f"{small_registry.host}/{FOLDER}",
        "github.event.workflow_run.head_sha": commit,
    }
    return Run(checkout, small_registry, programs, tmp_path, contexts)


def by_hand(run: Run, **inputs: str) -> None:
    run.runner["GITHUB_EVENT_NAME"] = "workflow_dispatch"
    del run.contexts["github.event.workflow_run.head_sha"]
    run.contexts |= {f"inputs.{name}": value for name, value in inputs.items()}


def succeed(run: Run, *jobs: str) -> None:
    """Run jobs, each of which succeeds."""
    for job in jobs:
        assert run.job(job), run.log


def published(run: Run, version: str) -> Mapping[str, str | None]:
    return {image: client(run.registry).digest(image, version) for image in IMAGES}


class TestAfterAMerge:
    def test_images_are_published_and_test_is_updated(self, run: Run, hosting: HostingService) -> None:
        version = alpha(run)
        run.contexts["secrets.SENS_PLATFORM_INFRA_WORKFLOW_TOKEN"] = TOKEN

        succeed(run, *run.jobs)

        (call,) = hosting.repositories[GITOPS_NAME].dispatches
        built = {image: client(run.registry).digest(image, "built") for image in IMAGES}
        assert published(run, version) == built
        names = [f"{run.registry.host}/{FOLDER}/{image}@{built[image]}" for image in sorted(IMAGES)]
        assert run.programs.calls("cosign") == [(["sign", "--yes", name], "") for name in names]
        assert run.contexts["needs.plan.outputs.update-test"] == "true"
        record = parse_record(run.contexts["needs.publish.outputs.record"], "the record")
        assert record.release.product_commit == run.checkout.revision("origin/main")
        inputs = cast("Mapping[str, str]", call["inputs"])
        assert inputs["image_tag"] == version
        assert json.loads(inputs["digests"]) == built
        password = run.contexts["secrets.SENS_PLATFORM_REGISTRY_PASSWORD"]
        assert not [secret for secret in (TOKEN, run.contexts["github.token"], password) if secret in run.log]
        # GitHub's own token is for GitHub's own registry, and goes nowhere else.
        logins = [call for call in run.programs.calls("docker") if call.arguments[0] == "login"]
        assert [(login.arguments[1], login.given) for login in logins] == [(run.registry.host, password)] * 2

    def test_a_token_of_the_app_is_used_instead_of_a_personal_one(self, run: Run, hosting: HostingService) -> None:
        run.contexts["steps.app.outputs.token"] = TOKEN
        run.contexts["secrets.SENS_PLATFORM_INFRA_WORKFLOW_TOKEN"] = "of-a-person"

        succeed(run, *run.jobs)

        assert len(hosting.repositories[GITOPS_NAME].dispatches) == 1
        owner, _, name = GITOPS_NAME.partition("/")
        assert run.contexts["steps.target.outputs.gitops-owner"] == owner
        assert run.contexts["steps.target.outputs.gitops-name"] == name

    def test_test_is_left_alone_with_a_notice_without_a_token(self, run: Run) -> None:
        images = {image: PinnedImage(f"ghcr.io/acme/sens-platform/{image}", f"sha256:{'a' * 64}") for image in IMAGES}
        record = Record(Release(Version.parse("0.5.0-alpha.7.1"), "c" * 40), images, now())
        run.contexts["needs.publish.outputs.record"] = json.dumps(json.loads(dump(record)))

        assert run.job("update-test"), run.log

        assert "\n::notice title=Test was not updated::" in run.log

    def test_a_tag_that_stands_for_something_else_ends_it_before_anything_is_built(self, run: Run) -> None:
        version = alpha(run)
        standing = upload_release(run.registry, ["docs"], version, "f" * 40)["docs"]

        assert not run.job("plan")

        assert f"docs:{version} is published as {standing}" in run.log

    def test_a_tag_that_appears_while_it_builds_is_not_moved(self, run: Run) -> None:
        version = alpha(run)
        succeed(run, "plan", "images")
        standing = upload_release(run.registry, ["telemetry-worker"], version, "f" * 40)["telemetry-worker"]

        assert not run.job("publish")

        assert f"telemetry-worker:{version} is published as {standing}" in run.log
        assert published(run, version) == dict.fromkeys(IMAGES) | {"telemetry-worker": standing}

    def test_signing_that_fails_gives_no_tag_and_can_be_done_again(self, run: Run) -> None:
        version = alpha(run)
        run.programs.put("cosign", "sys.exit(1)")
        succeed(run, "plan", "images")
        assert not run.job("publish")
        assert published(run, version) == dict.fromkeys(IMAGES)

        run.programs.put("cosign")
        assert run.job("publish"), run.log

        assert None not in published(run, version).values()


class TestByHand:
    def test_a_stable_version_is_published_and_test_is_not_updated(self, run: Run) -> None:
        version = root_version(run)
        by_hand(run, ref="", release_version=f"v{version}", update_test_environment="false")

        succeed(run, "plan", "images", "publish")

        assert None not in published(run, version).values()
        assert run.contexts["needs.plan.outputs.update-test"] == "false"

    def test_a_stable_version_for_test_is_refused_before_anything_is_built(self, run: Run) -> None:
        by_hand(run, release_version=root_version(run), update_test_environment="true")

        assert not run.job("plan")

        assert "test takes alpha versions" in run.log

    @pytest.mark.parametrize("name", ["ref", "release_version", "update_test_environment"])
    @pytest.mark.parametrize(
        "value",
        ['"; touch "$PWD/x"; "', "$(touch x)", "`touch x`", "x\nplan={}", "::set-output name=plan::{}", "--help", "' || touch x #"],
    )  # fmt: skip
    def test_hostile_inputs_run_nothing_and_give_no_output(self, run: Run, name: str, value: str) -> None:
        by_hand(run, **{name: value})
        before = sorted(run.checkout.folder.iterdir())

        assert not run.job("plan")

        assert sorted(run.checkout.folder.iterdir()) == before
        assert (run.folder / "plan-0").read_text() == ""
        assert not [line for line in run.log.splitlines() if line.startswith("::")]


def alpha(run: Run) -> str:
    return f"{root_version(run)}-alpha.7.1"


def root_version(run: Run) -> str:
    return str(Source(run.checkout.folder).version(run.checkout.revision("origin/main")))
