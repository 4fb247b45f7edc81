"""The whole release path, without a network: from a raised version to production and back, and every step that is refused.

Two scratch repositories with bare remotes, a registry that speaks the protocol, a hosting service at the HTTP level, and the
programs that the workflows call, as processes. ``scripts/release-story`` plays it and prints what is said. In the place of the images'
build stand images of a few bytes with the same labels; ``ci`` itself, hosted runners, signatures and Argo CD are not in it.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

from sens_cli.release.record import IMAGES
from support.chart import KUBERNETES, helm
from support.git import Repository, environment
from support.hosting import GITOPS_NAME, TOKEN, HostingService
from support.registry import FOLDER, SmallRegistry, client, upload
from support.release import Cosign
from support.services import ROOT

FIRST = "0.1.0"
PLATFORMS = ("linux/amd64", "linux/arm64")
DISPATCH = ("scripts/publish-images", "dispatch", "--record=-", f"--gitops-repository={GITOPS_NAME}")
AFTER_A_MERGE, BY_HAND = "--event=workflow_run", "--event=workflow_dispatch"
PARTS = [
    *("scripts", "tools", "infra", "images.toml", "pyproject.toml", "requirements/gitops.txt", "Dockerfile"),
    *(
        "services/cli/src/sens_cli/__init__.py",
        "services/cli/src/sens_cli/release",
        "services/common/src/sens_common/schema",
    ),
]


class Printed(NamedTuple):
    """What a program printed.

    Attributes:
        code: Its exit code.
        output: Standard output.
        text: Everything.
    """

    code: int
    output: str
    text: str


class World:
    """The repositories, the registry and the hosting service."""

    def __init__(self, folder: Path, registry: SmallRegistry, hosting: HostingService) -> None:
        self.folder = folder
        self.registry = registry
        self.hosting = hosting
        self.product = Repository.create(folder / "product")
        self._product_remote = Repository.create(folder / "product.git", bare=True)
        self.infra_remote = Repository.create(folder / "infra.git", bare=True)
        self.infra = Repository(folder / "infra")
        self._runs = 0
        self.commit = ""

    def begin(self) -> None:
        """Commit the product as it is here, and write the GitOps repository from it."""
        for part in PARTS:
            source = ROOT / part
            (self.product.folder / part).parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, self.product.folder / part, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, self.product.folder / part)
        # Whatever the version of the repository that this runs in.
        self.say("product", "scripts/set-version", FIRST)
        self.product.commit("Begin")
        self.product.git("remote", "add", "origin", self._product_remote.url)
        self.product.push("main")
        self.say("product", "scripts/gitops-init", str(self.infra.folder), *self.parameters())
        Repository.create(self.infra.folder)
        self.infra.commit("Begin")
        self.infra.git("remote", "add", "origin", self.infra_remote.url)
        self.infra.push("main")
        self.infra.git("branch", "--quiet", "--set-upstream-to=origin/main", "main")

    def parameters(self) -> Iterator[str]:
        """Yield the parameters that are not the template's."""
        for name, value in (
            ("owner", "acme"),
            ("product_repository", "acme/sens-platform"),
            ("gitops_repository", GITOPS_NAME),
            ("registry", f"{self.registry.host}/{FOLDER}"),
        ):
            yield f"--set={name}={value}"

    def call(self, where: str, program: str, *arguments: str, standard_input: str = "", **variables: str) -> Printed:
        """Run a program in a repository, and print what it says."""
        credentials = self.registry.credentials
        assert credentials is not None
        own = {
            "SENS_BASE_PYTHON": sys.executable,
            "SENS_PYTHON": sys.executable,
            "SENS_REGISTRY_USER": credentials.user,
            "SENS_REGISTRY_PASSWORD": credentials.password,
            "GITHUB_API_URL": self.hosting.url,
        }
        folder = self.folder / where
        done = subprocess.run(
            [folder / program, *arguments],
            cwd=folder,
            env={name: value for name, value in environment().items() if not name.startswith("GITHUB_")}
            | own
            | variables,
            input=standard_input,
            capture_output=True,
            text=True,
            check=False,
            timeout=100,
        )
        said = Printed(done.returncode, done.stdout.strip(), f"{done.stdout}{done.stderr}".strip())
        shown = " ".join(argument if len(argument) < 60 else f"{argument[:57]}…" for argument in arguments)
        sys.stdout.write(f"\n{where}$ {program} {shown}\n{said.text}\n")
        return said

    def say(self, where: str, program: str, *arguments: str, standard_input: str = "", **variables: str) -> str:
        """Run a program that must succeed; return what it prints."""
        said = self.call(where, program, *arguments, standard_input=standard_input, **variables)
        assert said.code == 0, said.text
        return said.output

    def refuse(self, where: str, program: str, *arguments: str, standard_input: str = "") -> str:
        """Run a program that must refuse; return why."""
        said = self.call(where, program, *arguments, standard_input=standard_input)
        assert said.code == 1, said.text
        assert "Traceback" not in said.text
        return said.text

    def raise_version(self, version: str) -> str:
        """Merge a branch that raises the root version; return main's commit before it."""
        before = self.product.head
        branch = f"version-{version}-after-{before[:8]}"
        self.product.branch(branch)
        self.say("product", "scripts/set-version", version)
        self.product.commit(f"Raise the version to {version}")
        self.product.switch("main")
        self.product.merge(branch)
        return before

    def drop_merge(self, before: str) -> None:
        """Take a refused merge back."""
        self.product.git("reset", "--quiet", "--hard", before)

    def planned(self, *arguments: str) -> str:
        """Plan a publication; return the plan."""
        self._runs += 1
        numbers = (f"--run-number={self._runs}", "--run-attempt=1", f"--registry={self.registry.host}/{FOLDER}")
        return self.say("product", "scripts/publish-images", "plan", *numbers, *arguments)

    def published(self, plan: str) -> str:
        """Take the steps of a publication but the build and the signature; return the record."""
        self.say("product", "scripts/publish-images", "check", "--plan=-", standard_input=plan)
        commit = json.loads(plan)["commit"]
        digests = {image: self._pushed(image, commit) for image in IMAGES}
        built = json.dumps(digests)
        self.say("product", "scripts/publish-images", "tag", "--plan=-", f"--digests={built}", standard_input=plan)
        return self.say("product", "scripts/publish-images", "record", "--plan=-", standard_input=plan)

    def _pushed(self, image: str, commit: str) -> str:
        """Push an image without a tag: under its own digest, which a first push elsewhere tells."""
        own = {"org.opencontainers.image.revision": commit, "org.opencontainers.image.title": image}
        labels = dict.fromkeys(PLATFORMS, own)
        name = f"{FOLDER}/{image}"
        digest = upload(self.registry, f"{name}-scratch", "scratch", labels)
        assert upload(self.registry, name, digest, labels) == digest
        return digest

    def pulled(self) -> None:
        """Bring the GitOps clone up to date."""
        self.infra.switch("main")
        self.infra.git("pull", "--quiet", "--ff-only")

    def merged(self, branch: str) -> None:
        """Merge a pull request, as its reviewer does."""
        self.pulled()
        self.infra.git("fetch", "--quiet", "origin", branch)
        self.infra.merge("FETCH_HEAD")
        self.infra.push("main")

    def release(self, where: str) -> dict[str, object]:
        """Return the record of an environment on the remote's main."""
        record: dict[str, object] = json.loads(self.infra_remote.read(f"environments/{where}/release.json", "main"))
        return record

    def promote(self, *, refused: bool = False) -> str:
        """Run the promotion; return what it prints, or why it refuses."""
        self.pulled()
        program = "scripts/promote-production-from-test.sh"
        options = (f"--product={self.product.folder}", f"--repository={GITOPS_NAME}")
        if refused:
            return self.refuse("infra", program, *options)
        return self.say("infra", program, *options, GITHUB_TOKEN=TOKEN)

    def deploy_test(self, number: int = -1) -> list[str]:
        """Return the options of deploy-test-main that its workflow makes of the inputs it was started with, last or earlier."""
        inputs = self.hosting.repositories[GITOPS_NAME].dispatches[number]["inputs"]
        assert isinstance(inputs, dict)
        return [
            f"--image-tag={inputs['image_tag']}",
            f"--product-commit={inputs['product_commit']}",
            f"--digests={inputs['digests']}",
            f"--run-url={inputs['run_url']}",
            *(["--allow-rollback"] if inputs["allow_rollback"] == "true" else []),
        ]


@pytest.fixture
def world(
    tmp_path: Path, small_registry: SmallRegistry, hosting: HostingService, isolated_git: None, cosign: Cosign
) -> World:
    made = World(tmp_path, small_registry, hosting)
    made.begin()
    return made


@pytest.mark.timeout(800)
def test_a_version_reaches_production_and_every_shortcut_is_refused(world: World) -> None:
    a_version_is_raised(world)
    alpha = an_alpha_version_is_published_and_test_is_told(world)
    it_is_deployed_to_test(world, alpha)
    nothing_else_is_deployed_to_test(world)
    a_manual_alpha_goes_to_test_too(world, alpha)
    nothing_is_promoted_without_stable_images(world)
    no_other_stable_version_is_published(world)
    a_stable_version_is_published_and_never_moved(world)
    production_gets_it_by_a_pull_request(world)
    a_later_version_goes_the_same_way(world)
    both_go_back(world, alpha)
    the_chart_renders_what_was_released(world)


def a_version_is_raised(world: World) -> None:
    before = world.raise_version("0.3.0")
    assert "skips minor 0.2" in world.refuse("product", "scripts/version-check", f"--base={before}")
    world.drop_merge(before)
    before = world.raise_version("0.2.0")
    chart = world.product.read("infra/helm/sens-platform/Chart.yaml")
    world.product.write(
        {"infra/helm/sens-platform/Chart.yaml": chart.replace("appVersion: 0.2.0", "appVersion: 0.1.0")}
    )
    assert "has the appVersion 0.1.0" in world.refuse("product", "scripts/version-check", f"--base={before}")
    world.say("product", "scripts/set-version", "0.2.0")
    assert "0.2.0: may follow 0.1.0" in world.say("product", "scripts/version-check", f"--base={before}")
    world.product.push("main")
    world.commit = world.product.head


def an_alpha_version_is_published_and_test_is_told(world: World) -> str:
    plan = world.planned(AFTER_A_MERGE, f"--head-sha={world.commit}")
    record = world.published(plan)
    assert "was not told" in world.say("product", *DISPATCH, AFTER_A_MERGE, standard_input=record)
    world.say("product", *DISPATCH, AFTER_A_MERGE, standard_input=record, SENS_PLATFORM_INFRA_WORKFLOW_TOKEN=TOKEN)
    assert json.loads(plan)["version"] == "0.2.0-alpha.1.1"
    return "0.2.0-alpha.1.1"


def it_is_deployed_to_test(world: World, alpha: str) -> None:
    options = world.deploy_test()
    world.say("infra", "scripts/deploy-test-main", *options, "--check-registry")
    world.say("infra", "scripts/release-guard", "test")
    world.say("infra", "scripts/deploy-test-main", *options, "--push")
    assert world.release("test")["version"] == alpha
    assert world.release("test")["product_commit"] == world.commit


def nothing_else_is_deployed_to_test(world: World) -> None:
    world.pulled()
    options = world.deploy_test()
    stable = [option.replace("0.2.0-alpha.1.1", "0.2.0") for option in options]
    assert "test takes alpha versions" in world.refuse("infra", "scripts/deploy-test-main", *stable)
    assert "is a name that can move" in world.refuse(
        "infra", "scripts/deploy-test-main", "--image-tag=latest", *options[1:]
    )
    missing = [option.replace("alpha.1.1", "alpha.99.1") for option in options]
    assert "alpha.99.1" in world.refuse("infra", "scripts/deploy-test-main", *missing, "--check-registry")
    world.infra.write({"environments/production/values.yaml": "ingestion: {enabled: true}\n"})
    world.infra.git("commit", "--quiet", "--all", "--message=Change production beside test")
    assert "environments/production/values.yaml is changed" in world.refuse("infra", "scripts/release-guard", "test")
    world.infra.git("reset", "--quiet", "--hard", "origin/main")


def a_manual_alpha_goes_to_test_too(world: World, automatic: str) -> None:
    """See that a person's version is followed although it is earlier than the automatic one, and that the way back works."""
    inputs = ("--release-version=0.2.0-alpha.1", "--update-test-environment=true")
    record = world.published(world.planned(BY_HAND, f"--ref={world.commit}", *inputs))
    world.say("product", *DISPATCH, BY_HAND, standard_input=record, SENS_PLATFORM_INFRA_WORKFLOW_TOKEN=TOKEN)
    world.pulled()
    world.say("infra", "scripts/deploy-test-main", *world.deploy_test(), "--check-registry", "--push")
    assert world.release("test")["version"] == "0.2.0-alpha.1"
    world.say("infra", "scripts/rollback", "test", automatic, "--check-registry", "--push")
    assert world.release("test")["version"] == automatic


def nothing_is_promoted_without_stable_images(world: World) -> None:
    reason = world.promote(refused=True)
    assert all(image in reason for image in IMAGES)


def no_other_stable_version_is_published(world: World) -> None:
    numbers = ("--run-number=9", "--run-attempt=1", f"--registry={world.registry.host}/{FOLDER}")
    for arguments, reason in (
        (("--release-version=v0.2.0", "--update-test-environment=true"), "test takes alpha versions"),
        (("--release-version=0.2.0+build",), "'+' is not allowed"),
        (("--release-version=0.9.0",), "0.9.0 can't be published from here"),
        (("--release-version=latest",), "is a name that can move"),
    ):
        assert reason in world.refuse("product", "scripts/publish-images", "plan", BY_HAND, *numbers, *arguments)


def a_stable_version_is_published_and_never_moved(world: World) -> None:
    world.published(world.planned(BY_HAND, f"--ref={world.commit}", "--release-version=v0.2.0"))
    standing = client(world.registry).digest("docs", "0.2.0")
    world.product.commit("Change something", {"Dockerfile": "# changed\n"})
    world.product.push("main")
    other = world.planned(BY_HAND, "--release-version=0.2.0")
    reason = world.refuse("product", "scripts/publish-images", "check", "--plan=-", standard_input=other)
    assert "a published tag is never moved" in reason
    assert str(standing) in reason or "is published as sha256:" in reason


def production_gets_it_by_a_pull_request(world: World) -> None:
    world.promote()
    world.promote()
    [pull] = world.hosting.repositories[GITOPS_NAME].pulls
    assert "0.2.0" in str(pull["title"])
    with pytest.raises(subprocess.CalledProcessError):
        world.release("production")
    world.merged("promote/0.2.0")
    assert world.release("production")["version"] == "0.2.0"
    assert world.release("production")["product_commit"] == world.commit


def a_later_version_goes_the_same_way(world: World) -> None:
    overtaken = world.deploy_test(0)
    world.raise_version("0.3.0")
    world.product.push("main")
    world.commit = world.product.head
    record = world.published(world.planned(AFTER_A_MERGE, f"--head-sha={world.commit}"))
    world.say("product", *DISPATCH, AFTER_A_MERGE, standard_input=record, SENS_PLATFORM_INFRA_WORKFLOW_TOKEN=TOKEN)
    world.pulled()
    world.say("infra", "scripts/deploy-test-main", *world.deploy_test(), "--push")
    assert "later than" in world.refuse("infra", "scripts/deploy-test-main", *overtaken)
    world.published(world.planned(BY_HAND, f"--ref={world.commit}", "--release-version=0.3.0"))
    world.promote()
    world.merged("promote/0.3.0")
    assert world.release("production")["version"] == "0.3.0"


def both_go_back(world: World, alpha: str) -> None:
    rollback = (
        "scripts/rollback",
        f"--product={world.product.folder}",
        f"--repository={GITOPS_NAME}",
        "--check-registry",
    )
    world.pulled()
    assert "0.1.0" in world.refuse("infra", *rollback, "production", "0.1.0")
    world.say("infra", *rollback, "production", "0.2.0", GITHUB_TOKEN=TOKEN)
    head = world.hosting.repositories[GITOPS_NAME].pulls[-1]["head"]
    assert isinstance(head, dict)
    world.merged(str(head["ref"]))
    assert world.release("production")["version"] == "0.2.0"
    world.pulled()
    world.say("infra", *rollback, "--push", "test", alpha)
    assert world.release("test")["version"] == alpha


def the_chart_renders_what_was_released(world: World) -> None:
    """See that the chart of the commit in each Application renders with the values in main."""
    if helm() is None:
        sys.stdout.write("\nnot run: no helm\n")
        return
    world.pulled()
    world.product.git("switch", "--quiet", "--detach", str(world.release("test")["product_commit"]))
    for where, channel in (("test", "alpha"), ("production", "stable")):
        values = world.infra.folder / "environments" / where
        (source, _) = yaml.safe_load(world.infra.read(f"applications/sens-platform-{where}.yaml"))["spec"]["sources"]
        assert source["targetRevision"] == world.release(where)["product_commit"]
        chart = world.product.folder / "infra/helm/sens-platform"
        done = subprocess.run(
            [
                *(str(helm()), "template", f"sens-platform-{where}", str(chart), "--kube-version", KUBERNETES),
                *("--values", str(values / "values.yaml"), "--values", "-"),
            ],
            input=yaml.safe_dump(source["helm"]["valuesObject"]),
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            env=os.environ,
        )
        assert done.returncode == 0, done.stderr
        release = world.release(where)
        assert channel in str(release["channel"])
        images = set(re.findall(rf"{re.escape(world.registry.host)}/\S+", done.stdout))
        assert len(images) >= 3
        assert all(f":{release['version']}@sha256:" in image for image in images)
        assert source["helm"]["valuesObject"]["images"]["channel"] == channel
