"""Publishing images, step by step: what is planned and refused, and that a published tag never moves."""

import json
import re
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from sens_cli.release.record import IMAGES, PinnedImage, Record, Release, dump, now
from sens_cli.release.record import parse as parse_record
from sens_cli.release.versions import ReleaseError, Version
from support.git import Repository
from support.hostile import HOSTILE
from support.hosting import GITOPS_NAME, HostingService
from support.hosting import TOKEN as HOSTING_TOKEN
from support.http_server import Answer
from support.programs import Programs
from support.registry import FOLDER, RunningRegistry, SmallRegistry, client, upload, upload_release
from support.services import ROOT
from tools.images.catalogue import IMAGES as CATALOGUE
from tools.release import actions
from tools.release.plan import PLATFORMS, Plan, Request, make_plan
from tools.release.publish import WORKFLOW, login, run_url
from tools.release.publish_images import TOKEN, main
from tools.release.registry import REVISION
from tools.release.registry_http import Credentials
from tools.release.source import Source

pytestmark = pytest.mark.usefixtures("isolated_git")

REGISTRY = "ghcr.io/acme/sens-platform"
type Step = Callable[..., tuple[int, str, str]]


def pyproject(version: str) -> dict[str, str | None]:
    return {"pyproject.toml": f'[project]\nname = "x"\nversion = "{version}"\n'}


def make_product(folder: Path) -> Repository:
    """A product with main at 0.5.0, an unmerged branch, a maintained older minor version, and a tag."""
    repository = Repository.create(folder)
    repository.commit("Start", pyproject("0.4.2"))
    repository.git("branch", "release/0.4")
    repository.git("tag", "first")
    repository.commit("Next minor version", pyproject("0.5.0"))
    repository.branch("feature/one")
    repository.commit("Not merged")
    repository.switch("main")
    repository.commit("Later")
    return repository


@pytest.fixture
def origin(tmp_path: Path) -> Repository:
    """A product that a test may change."""
    return make_product(tmp_path / "origin")


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """What a run has checked out; no test changes it."""
    folder = tmp_path_factory.mktemp("product")
    return make_product(folder / "origin").clone(folder / "clone")


def asked(**values: str) -> Request:
    return Request(event="workflow_dispatch", run_number="7", run_attempt="2", **values)


def merged(head_sha: str, **values: str) -> Request:
    return Request(event="workflow_run", run_number="7", run_attempt="2", head_sha=head_sha, **values)


class TestPlanAfterAMerge:
    def test_is_the_run_s_own_alpha_of_what_was_tested_for_test(self, clone: Repository) -> None:
        tested = clone.revision("HEAD^")

        assert make_plan(merged(tested), Source(clone.folder), REGISTRY) == Plan(
            "0.5.0-alpha.7.2", "alpha", tested, REGISTRY, IMAGES, ("linux/amd64", "linux/arm64"), update_test=True
        )

    def test_is_of_every_image_that_is_built(self, clone: Repository) -> None:
        plan = make_plan(merged(clone.head), Source(clone.folder), REGISTRY)

        assert set(plan.images) == {image.name for image in CATALOGUE}

    @pytest.mark.parametrize(
        ("commit", "choice", "reason"),
        [
            ("origin/feature/one", "", "is not in main"),
            ("a" * 40, "", r"fetch the whole history \(fetch-depth: 0\)"),
            *(
                ("HEAD", name, "After a merge there is no choice")
                for name in ("ref", "release_version", "update_test_environment")
            ),
        ],
    )
    def test_is_refused(self, clone: Repository, commit: str, choice: str, reason: str) -> None:
        request = merged(
            commit if commit == "a" * 40 else clone.revision(commit), **({choice: "true"} if choice else {})
        )

        with pytest.raises(ReleaseError, match=reason):
            make_plan(request, Source(clone.folder), REGISTRY)

    def test_is_an_output_of_its_step(
        self, clone: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setenv("GITHUB_OUTPUT", str(tmp_path / "outputs"))
        monkeypatch.setenv("GITHUB_REPOSITORY", "Acme-GmbH/sens-platform")
        options = ["--event=workflow_run", "--run-number=7", "--run-attempt=2", f"--head-sha={clone.head}"]

        assert main(["plan", f"--folder={clone.folder}", *options]) == 0

        printed = capsys.readouterr().out
        assert (tmp_path / "outputs").read_text() == f"update-test=true\nplan={printed}"
        assert Plan.parse(printed).registry == "ghcr.io/acme-gmbh/sens-platform"


class TestPlanByAPerson:
    @pytest.mark.parametrize(
        ("ref", "version", "update", "planned"),
        [
            ("", "", "", "0.5.0-alpha.7.2"),
            ("", "", "true", "0.5.0-alpha.7.2"),
            ("main", "0.5.0", "false", "0.5.0"),
            ("main", "v0.5.0", "", "0.5.0"),
            ("main", " 0.5.0 ", "", "0.5.0"),
            ("main", "0.5.0-rc.1", "", "0.5.0-rc.1"),
            ("feature/one", "", "true", "0.5.0-alpha.7.2"),
            ("refs/heads/feature/one", "", "", "0.5.0-alpha.7.2"),
            ("release/0.4", "0.4.2", "", "0.4.2"),
            ("first", "0.4.2", "", "0.4.2"),
            ("refs/tags/first", "", "", "0.4.2-alpha.7.2"),
            # Once more what an earlier run has published.
            ("main", "0.5.0-alpha.6.9", "true", "0.5.0-alpha.6.9"),
            ("main", "0.5.0-alpha.7.2", "true", "0.5.0-alpha.7.2"),
            # Numbered by a person, before and after those of the runs.
            ("main", "0.5.0-alpha.1", "true", "0.5.0-alpha.1"),
            ("main", "v0.5.0-alpha.0", "true", "0.5.0-alpha.0"),
            ("feature/one", "0.5.0-alpha.8.1", "", "0.5.0-alpha.8.1"),
            ("", "0.5.0-alpha.7.3", "true", "0.5.0-alpha.7.3"),
        ],
    )
    def test_is_what_was_asked_for(self, clone: Repository, ref: str, version: str, update: str, planned: str) -> None:
        request = asked(ref=ref, release_version=version, update_test_environment=update)

        plan = make_plan(request, Source(clone.folder), REGISTRY)

        assert (plan.version, plan.update_test) == (planned, update == "true")
        where = {"": "origin/main", "first": "first", "refs/tags/first": "first"}.get(
            ref, f"origin/{ref.removeprefix('refs/heads/')}"
        )
        assert plan.commit == clone.revision(where)

    @pytest.mark.parametrize(
        ("ref", "version", "update", "reason"),
        [
            ("", "0.5.0", "true", "test takes alpha versions, and 0.5.0 is of the channel stable, which is for production"),
            ("", "0.5.0-rc.1", "true", "test takes alpha versions, and 0.5.0-rc.1 is of the channel rc"),
            ("feature/one", "0.5.0", "", "neither in main nor in a branch release/"),
            ("feature/one", "0.5.0-rc.1", "", "neither in main nor in a branch release/"),
            ("", "0.6.0", "", "the root version of this commit is 0.5.0"),
            ("release/0.4", "0.5.0", "", "the root version of this commit is 0.4.2"),
            ("", "latest", "", "is a name that can move"),
            ("", "main", "", "is a name that can move"),
            ("", "git-0123456", "", "is a commit"),
            ("", "a" * 40, "", "is a commit"),
            ("", "0.5.0+1", "", "has build metadata"),
            ("", "0.5.0-beta.1", "", "belongs to no channel"),
            ("nowhere", "", "", "no branch, tag or full commit 'nowhere'"),
            ("a" * 40, "", "", "no branch, tag or full commit"),
            ("", "", "yes", "update_test_environment is 'yes'; it can be true or false"),
            ("", "", "True", "it can be true or false"),
        ],
    )  # fmt: skip
    def test_is_refused(self, clone: Repository, ref: str, version: str, update: str, reason: str) -> None:
        request = asked(ref=ref, release_version=version, update_test_environment=update)

        with pytest.raises(ReleaseError, match=re.escape(reason)):
            make_plan(request, Source(clone.folder), REGISTRY)

    def test_takes_a_full_commit_of_a_branch(self, clone: Repository) -> None:
        commit = clone.revision("origin/feature/one")

        assert make_plan(asked(ref=commit), Source(clone.folder), REGISTRY).commit == commit

    def test_refuses_part_of_a_commit(self, clone: Repository) -> None:
        with pytest.raises(ReleaseError, match="no branch, tag or full commit"):
            make_plan(asked(ref=clone.head[:12]), Source(clone.folder), REGISTRY)

    def test_refuses_what_an_origin_has_that_is_ambiguous_or_without_a_version(
        self, origin: Repository, tmp_path: Path
    ) -> None:
        origin.git("tag", "feature/one", "first")
        origin.commit("Break it", {"pyproject.toml": "no TOML"})
        source = Source(origin.clone(tmp_path / "second").folder)

        with pytest.raises(ReleaseError, match="is a branch and a tag, of different commits: write refs/heads/feature"):
            make_plan(asked(ref="feature/one"), source, REGISTRY)
        with pytest.raises(ReleaseError, match="has no version: it can't be published"):
            make_plan(asked(), source, REGISTRY)

    def test_needs_the_commits(self, origin: Repository, tmp_path: Path) -> None:
        commit = origin.revision("HEAD^")
        shallow = origin.clone(tmp_path / "shallow", depth=1)

        with pytest.raises(ReleaseError, match="fetch-depth: 0"):
            make_plan(asked(ref=commit), Source(shallow.folder), REGISTRY)


class TestHostileValues:
    @pytest.mark.parametrize("value", HOSTILE)
    @pytest.mark.parametrize(
        "name",
        ["event", "run_number", "run_attempt", "head_sha", "ref", "release_version", "update_test_environment"],
    )
    def test_are_refused_in_every_parameter(  # noqa: PLR0917 - fixtures and two parameters
        self,
        clone: Repository,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
        name: str,
        value: str,
    ) -> None:
        outputs = tmp_path / "outputs"
        outputs.touch()
        monkeypatch.setenv("GITHUB_OUTPUT", str(outputs))
        monkeypatch.setenv("GITHUB_REPOSITORY", "acme/sens-platform")
        monkeypatch.chdir(tmp_path)
        event = "workflow_run" if name == "head_sha" else "workflow_dispatch"
        values = {"event": event, "run_number": "7", "run_attempt": "2", name: value}
        options = [f"--{option.replace('_', '-')}={text}" for option, text in values.items()]

        code = main(["plan", f"--folder={clone.folder}", *options])

        printed = capsys.readouterr()
        assert (code, printed.out, outputs.read_text()) == (1, "", "")
        assert len(printed.err.splitlines()) == 1
        assert len(printed.err) < 1000
        assert "##[" not in printed.err
        assert list(tmp_path.iterdir()) == [outputs]

    @pytest.mark.parametrize("value", [*HOSTILE, "https://ghcr.io/x", "ghcr.io/Upper"])
    def test_are_refused_as_a_registry(self, clone: Repository, value: str) -> None:
        with pytest.raises(ReleaseError, match="is not an address of images"):
            make_plan(asked(), Source(clone.folder), value)

    @given(st.text(max_size=60))
    def test_make_no_second_output(self, value: str) -> None:
        if value.isprintable():
            return
        with pytest.raises(ReleaseError, match="line breaks or control characters"):
            actions.set_output("plan", value, {})

    @given(st.text(max_size=60))
    def test_make_no_command_of_a_log(self, value: str) -> None:
        shown = actions.harmless(value)
        told = actions.notice(value, value)

        assert shown.splitlines() in ([], [shown])
        assert "##[" not in shown
        assert "\n" not in told
        assert "\r" not in told
        assert told.startswith("::notice title=")
        assert told.count("::") >= 2

    def test_stay_in_their_part_of_a_notice(self) -> None:
        assert actions.notice("a,b:c", "x%\ny") == "::notice title=a%2Cb%3Ac::x%25%0Ay"


PLAN = Plan("0.5.0-alpha.7.2", "alpha", "a" * 40, REGISTRY, IMAGES, PLATFORMS, update_test=True)


class TestPlanAsText:
    def test_is_read_as_it_was_written(self) -> None:
        assert Plan.parse(PLAN.dump()) == PLAN
        assert "\n" not in PLAN.dump()

    @pytest.mark.parametrize(
        "change",
        [
            {"version": "latest"},
            {"version": "0.5.0"},
            {"version": 7},
            {"channel": "stable"},
            {"commit": "main"},
            {"registry": "https://x"},
            {"images": ["docs"]},
            {"images": "docs"},
            {"platforms": []},
            {"more": "x"},
        ],
    )
    def test_that_was_changed_is_refused(self, change: Mapping[str, object]) -> None:
        text = json.dumps(json.loads(PLAN.dump()) | dict(change))

        with pytest.raises(ReleaseError):
            Plan.parse(text)

    def test_does_not_deploy_a_stable_version_to_test(self) -> None:
        text = json.dumps(json.loads(PLAN.dump()) | {"version": "0.5.0", "channel": "stable"})

        with pytest.raises(ReleaseError, match="test takes alpha versions"):
            Plan.parse(text)

    @pytest.mark.parametrize("text", ["", "null", "[]", "{}", "{", "[" * 100_000, " " * 20_000 + PLAN.dump(), "7"])
    def test_that_is_none_is_refused(self, text: str) -> None:
        with pytest.raises(ReleaseError, match="This is not a plan"):
            Plan.parse(text)


class Steps:
    """The steps of a plan, as the workflow calls them.

    Attributes:
        plan: It.
        registry: Where its images are.
    """

    def __init__(self, plan: Plan, registry: RunningRegistry, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.plan = plan
        self.registry = registry
        self._file = folder / "plan.json"
        self._file.write_text(plan.dump())
        self._capsys = capsys

    def __call__(self, step: str, *options: str) -> str:
        """Return what a step prints; a refusal is an AssertionError with its text."""
        code = main([step, f"--plan={self._file}", *options])
        printed = self._capsys.readouterr()
        assert code == 0, printed.err
        return printed.out

    def refused(self, step: str, *options: str) -> str:
        """Return why a step refuses."""
        code = main([step, f"--plan={self._file}", *options])
        printed = self._capsys.readouterr()
        assert (code, printed.out) == (1, "")
        assert printed.err.startswith("scripts/publish-images: ")
        return printed.err

    def published(self, images: Sequence[str], commit: str | None = None) -> dict[str, str]:
        """Publish images with the plan's tag, of its commit or another one; return their digests."""
        return upload_release(self.registry, images, self.plan.version, commit or self.plan.commit)

    def built(self, images: Sequence[str] = IMAGES, commit: str | None = None) -> dict[str, str]:
        """Push images as the build does, except that the registries of tests need some tag for an index."""
        return upload_release(self.registry, images, "built", commit or self.plan.commit)

    def digests(self, images: Sequence[str] = IMAGES) -> dict[str, str | None]:
        """Return what the plan's tag stands for."""
        return {image: client(self.registry).digest(image, self.plan.version) for image in images}


def planned(registry: RunningRegistry, clone: Repository, monkeypatch: pytest.MonkeyPatch) -> Plan:
    """Return a plan for a registry that runs, whose login is in the environment."""
    if registry.credentials is not None:
        monkeypatch.setenv("SENS_REGISTRY_USER", registry.credentials.user)
        monkeypatch.setenv("SENS_REGISTRY_PASSWORD", registry.credentials.password)
    for name in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY", "GITHUB_SERVER_URL", "GITHUB_REPOSITORY", "GITHUB_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    return make_plan(asked(update_test_environment="true"), Source(clone.folder), f"{registry.host}/acme/sens-platform")


@pytest.fixture
def steps(
    image_registry: RunningRegistry,
    clone: Repository,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Steps:
    return Steps(planned(image_registry, clone, monkeypatch), image_registry, tmp_path, capsys)


class TestCheck:
    def test_passes_when_nothing_is_published(self, steps: Steps) -> None:
        assert steps("check").count(": not published yet") == len(IMAGES)

    def test_keeps_what_was_published_from_the_same_commit(self, steps: Steps) -> None:
        digest = steps.published(["docs"])["docs"]

        printed = steps("check")

        assert f"docs:{steps.plan.version}: published from this commit as {digest}: kept" in printed
        assert printed.count(": not published yet") == len(IMAGES) - 1

    def test_names_the_digest_that_stands_there_from_another_commit(self, steps: Steps) -> None:
        digest = steps.published(["docs"], "f" * 40)["docs"]

        reason = steps.refused("check")

        built = f"is published as {digest}, built from {'f' * 40} and not from {steps.plan.commit}"
        assert f"docs:{steps.plan.version} {built}" in reason
        assert "a published tag is never moved. Publish another version." in reason

    def test_refuses_what_nobody_knows_the_commit_of(self, steps: Steps) -> None:
        upload(steps.registry, f"{FOLDER}/docs", steps.plan.version, {"linux/amd64": {}})

        assert "built from an unknown commit" in steps.refused("check")

    def test_refuses_what_lacks_a_platform(self, steps: Steps) -> None:
        upload(steps.registry, f"{FOLDER}/docs", steps.plan.version, {"linux/amd64": {REVISION: steps.plan.commit}})

        assert "for linux/amd64, and not for linux/amd64, linux/arm64" in steps.refused("check")


class TestTag:
    def test_makes_a_version_of_what_was_built_and_can_be_done_twice(self, steps: Steps) -> None:
        built = steps.built()

        for _ in range(2):
            steps("tag", f"--digests={json.dumps(built)}")
            assert steps.digests() == built

    def test_completes_what_was_broken_off(self, steps: Steps) -> None:
        kept, built = steps.published(IMAGES[:2]), steps.built(IMAGES[2:])

        steps("tag", f"--digests={json.dumps(built)}")

        assert steps.digests() == kept | built

    @pytest.mark.parametrize(
        ("built", "reason"),
        [
            (IMAGES[1:], "These images were not built: docs. No tag was written."),
            ((), "These images were not built: docs, http-ingestion-worker, mock-mqtt-broker"),
        ],
    )
    def test_writes_none_when_an_image_is_missing(self, steps: Steps, built: Sequence[str], reason: str) -> None:
        assert reason in steps.refused("tag", f"--digests={json.dumps(steps.built(built))}")
        assert steps.digests() == dict.fromkeys(IMAGES)

    def test_writes_none_when_one_is_published_from_something_else(self, steps: Steps) -> None:
        built, standing = steps.built(), steps.published(IMAGES[-1:], "f" * 40)

        reason = steps.refused("tag", f"--digests={json.dumps(built)}")

        assert f"is published as {standing[IMAGES[-1]]}, built from {'f' * 40}" in reason
        assert steps.digests(IMAGES[:1]) == {IMAGES[0]: None}

    def test_moves_none_to_another_build_of_the_same_commit(self, steps: Steps) -> None:
        built = steps.built()
        # Labels differ, so it is another image.
        standing = steps.published(IMAGES[:1])
        assert standing[IMAGES[0]] != built[IMAGES[0]]

        reason = steps.refused("tag", f"--digests={json.dumps(built)}")

        assert f"is published as {standing[IMAGES[0]]}, and a published tag is never moved" in reason
        assert steps.digests(IMAGES[:2]) == {**standing, IMAGES[1]: None}

    def test_writes_none_when_what_was_built_is_of_another_commit(self, steps: Steps) -> None:
        built = json.dumps(steps.built(commit="f" * 40))

        assert f"built from {'f' * 40} and not from" in steps.refused("tag", f"--digests={built}")

    def test_writes_none_when_what_was_built_is_gone(self, steps: Steps) -> None:
        built = dict.fromkeys(IMAGES, f"sha256:{'a' * 64}")

        assert "is not in the registry. No tag was written." in steps.refused("tag", f"--digests={json.dumps(built)}")

    @pytest.mark.parametrize(
        "digests", ["", "[]", "7", '{"nginx": "sha256:1"}', '{"docs": "latest"}', '{"docs": 7}', "{" * 9]
    )
    def test_needs_digests(self, steps: Steps, digests: str) -> None:
        assert "igest" in steps.refused("tag", f"--digests={digests}")


class TestRecord:
    def test_is_of_what_the_registry_has(self, steps: Steps, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        digests, plan = steps.published(IMAGES), steps.plan
        summary, outputs = tmp_path / "summary", tmp_path / "outputs"
        for name, value in {
            "GITHUB_STEP_SUMMARY": str(summary),
            "GITHUB_OUTPUT": str(outputs),
            "GITHUB_SERVER_URL": "https://github.com",
            "GITHUB_REPOSITORY": "acme/sens-platform",
            "GITHUB_RUN_ID": "42",
        }.items():
            monkeypatch.setenv(name, value)

        printed = steps("record")

        record = parse_record(printed, "what was printed")
        assert (str(record.release.version), record.release.product_commit) == (plan.version, plan.commit)
        assert {name: image.digest for name, image in record.images.items()} == digests
        assert record.images["docs"].repository == f"{plan.registry}/docs"
        assert record.run == "https://github.com/acme/sens-platform/actions/runs/42"
        assert outputs.read_text() == f"record={printed}"
        assert f"### Published {plan.version}\n" in summary.read_text()
        assert f"| `{plan.registry}/docs` | `{digests['docs']}` |" in summary.read_text()

    def test_needs_every_image(self, steps: Steps) -> None:
        steps.published(IMAGES[1:])

        assert f"have no tag {steps.plan.version}: docs. Run this again." in steps.refused("record")

    def test_has_no_run_outside_of_one(self) -> None:
        assert run_url({}) is None


class TestLogin:
    """With a docker that writes down what it is told."""

    def test_goes_to_the_registry_of_the_plan_by_the_standard_input(self, programs: Programs) -> None:
        programs.put("docker")

        assert login("registry.example:5000", Credentials("me", "secret")) == "Logged in to registry.example:5000 as me"

        assert programs.calls("docker") == [
            (["login", "registry.example:5000", "--username=me", "--password-stdin"], "secret")
        ]

    def test_that_is_refused_tells_why_and_no_password(self, programs: Programs) -> None:
        programs.put("docker", "sys.exit(f'unauthorized: {given}')")

        with pytest.raises(ReleaseError, match="does not let me in: unauthorized: …"):
            login("registry.example", Credentials("me", "secret"))

    def test_needs_docker(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))

        with pytest.raises(ReleaseError, match="docker can't be started"):
            login("registry.example", Credentials("me", "secret"))

    def test_is_left_out_without_one(self) -> None:
        assert login("registry.example", None).startswith("No login for registry.example: SENS_REGISTRY_USER")


# A docker that builds nothing: what it is told is what counts here.
DOCKER = """
for option in arguments:
    if option.startswith("--metadata-file="):
        Path(option.partition("=")[2]).write_text(json.dumps({"containerimage.digest": "sha256:" + "d" * 64}))
"""


def builds(programs: Programs) -> list[list[str]]:
    """Return the calls of docker that build something."""
    return [call.arguments for call in programs.calls("docker") if call.arguments[:2] == ["buildx", "build"]]


class TestBuild:
    @pytest.fixture
    def own(self, small_registry: SmallRegistry, clone: Repository, monkeypatch: pytest.MonkeyPatch) -> Plan:
        """A plan for a commit of this repository itself, which is what is built."""
        return replace(planned(small_registry, clone, monkeypatch), commit=Repository(ROOT).head)

    @pytest.fixture
    def build(self, own: Plan, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Step:
        def run(*options: str) -> tuple[int, str, str]:
            (tmp_path / "plan.json").write_text(own.dump())
            return main(["build", f"--plan={tmp_path / 'plan.json'}", *options]), *capfd.readouterr()

        return run

    def test_pushes_every_image_for_both_platforms_without_a_tag(
        self, own: Plan, build: Step, programs: Programs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        programs.put("docker", DOCKER)
        monkeypatch.setenv("GITHUB_OUTPUT", str(tmp_path / "outputs"))

        code, printed, _ = build("--source=https://example.org/acme/sens-platform")

        assert code == 0
        assert (tmp_path / "outputs").read_text() == f"digests={printed}"
        assert json.loads(printed) == dict.fromkeys(IMAGES, f"sha256:{'d' * 64}")
        assert len(builds(programs)) == len(IMAGES)
        for call in builds(programs):
            assert {"--sbom=true", "--provenance=mode=max", "--platform=linux/amd64,linux/arm64"} <= set(call)
            output = next(option for option in call if option.startswith("--output="))
            assert "push=true,push-by-digest=true" in output
            name = call[call.index("--target") + 1]
            assert call[call.index("--tag") + 1] == f"{own.registry}/{name}"  # and no version
            assert {f"REVISION={own.commit}", f"VERSION={own.version}"} <= set(call)
            assert "SOURCE=https://example.org/acme/sens-platform" in call

    @pytest.mark.parametrize("count", [4, 5])
    def test_leaves_out_what_is_published(
        self, own: Plan, build: Step, programs: Programs, small_registry: SmallRegistry, count: int
    ) -> None:
        programs.put("docker", DOCKER)
        upload_release(small_registry, IMAGES[:count], own.version, own.commit)

        code, printed, _ = build()

        assert (code, list(json.loads(printed))) == (0, list(IMAGES[count:]))
        assert len(builds(programs)) == len(IMAGES) - count

    def test_that_fails_is_said(self, build: Step, programs: Programs) -> None:
        programs.put("docker", "sys.exit('no space left' if arguments[:2] == ['buildx', 'build'] else 0)")

        code, _, error = build()

        assert code == 1
        assert "no space left" in error
        assert "scripts/publish-images: scripts/build-images failed" in error


ONE = f'--digests={{"docs": "sha256:{"a" * 64}"}}'


class TestSign:
    def test_is_of_digests_alone(self, steps: Steps, programs: Programs) -> None:
        programs.put("cosign")
        digests = {"docs": f"sha256:{'a' * 64}", "platform-api": f"sha256:{'b' * 64}"}

        steps("sign", f"--digests={json.dumps(digests)}")

        assert [call.arguments for call in programs.calls("cosign")] == [
            ["sign", "--yes", f"{steps.plan.registry}/{image}@{digest}"] for image, digest in digests.items()
        ]

    def test_of_nothing_needs_no_program(self, steps: Steps, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", "")

        steps("sign", "--digests={}")

    def test_that_fails_is_said(self, steps: Steps, programs: Programs) -> None:
        programs.put("cosign", "sys.exit(3)")

        reason = steps.refused("sign", ONE)

        assert "cosign could not sign docs@sha256:" in reason
        assert "No tag was written" in reason

    def test_without_the_program_is_said(self, steps: Steps, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", "")

        assert "cosign can't be started" in steps.refused("sign", ONE)


@pytest.mark.usefixtures("hosting")
class TestDispatch:
    """Over the hosting service's HTTP interface."""

    @pytest.fixture
    def hosting(self, hosting: HostingService, monkeypatch: pytest.MonkeyPatch) -> HostingService:
        monkeypatch.setenv("GITHUB_REPOSITORY", "acme/sens-platform")
        return hosting

    @pytest.fixture
    def dispatch(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Step:
        """The step after a merge, with a token, and the record of an alpha version or whatever is in ``record.json``."""
        monkeypatch.setenv(TOKEN, HOSTING_TOKEN)
        file = tmp_path / "record.json"

        def run(*options: str) -> tuple[int, str, str]:
            if not file.exists():
                file.write_text(self.record("0.5.0-alpha.7.2"))
            code = main(["dispatch", "--event=workflow_run", f"--record={file}", *options])
            output = capsys.readouterr()
            assert HOSTING_TOKEN not in output.out + output.err
            return code, *output

        return run

    def record(self, version: str) -> str:
        images = {name: PinnedImage(f"{REGISTRY}/{name}", f"sha256:{'a' * 64}") for name in IMAGES}
        run = "https://github.com/acme/sens-platform/actions/runs/42"
        return dump(Record(Release(Version.parse(version), "c" * 40), images, now(), run))

    def inputs(self, hosting: HostingService) -> dict[str, str]:
        """Return the inputs of the only workflow that was started."""
        (call,) = hosting.repositories[GITOPS_NAME].dispatches
        assert (call["workflow"], call["ref"]) == ("deploy-test-main.yml", "main")
        return cast("dict[str, str]", call["inputs"])

    def test_hands_over_version_commit_digests_and_run(self, hosting: HostingService, dispatch: Step) -> None:
        assert dispatch()[0] == 0

        inputs = self.inputs(hosting)
        assert json.loads(inputs.pop("digests")) == dict.fromkeys(IMAGES, f"sha256:{'a' * 64}")
        assert inputs == {
            "image_tag": "0.5.0-alpha.7.2",
            "product_commit": "c" * 40,
            "run_url": "https://github.com/acme/sens-platform/actions/runs/42",
            "allow_rollback": "false",
        }

    def test_of_what_a_person_asked_for_is_followed_whatever_test_has(
        self, hosting: HostingService, dispatch: Step
    ) -> None:
        assert dispatch("--event=workflow_dispatch")[0] == 0
        assert self.inputs(hosting)["allow_rollback"] == "true"

    def test_gives_the_workflow_the_inputs_it_asks_for(self, hosting: HostingService, dispatch: Step) -> None:
        file = ROOT / "infra/gitops/template/.github/workflows" / WORKFLOW
        # YAML 1.1 reads the key `on` as true.
        asked_for = yaml.safe_load(file.read_text())[True]["workflow_dispatch"]["inputs"]

        assert dispatch()[0] == 0
        given = self.inputs(hosting).keys()
        assert {name for name, one in asked_for.items() if one["required"]} <= given <= asked_for.keys()

    @pytest.mark.parametrize("token", [None, "", "  \n"])
    def test_is_left_out_with_a_notice_without_a_token(
        self, hosting: HostingService, dispatch: Step, monkeypatch: pytest.MonkeyPatch, token: str | None
    ) -> None:
        if token is None:
            monkeypatch.delenv(TOKEN)
        else:
            monkeypatch.setenv(TOKEN, token)

        code, printed, _ = dispatch()

        assert (code, hosting.calls) == (0, [])
        assert printed.startswith("::notice title=Test was not updated::0.5.0-alpha.7.2 is published, and acme/sens-")
        assert f"the secret {TOKEN} is not set" in printed

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            ("--event=push", "--event 'push' is neither workflow_run nor workflow_dispatch"),
            *(
                (f"--gitops-repository={name}", "is not a repository")
                for name in ("x", "a/b/c", "a/b\nc", "../x", "acme/x;y")
            ),
        ],
    )
    def test_is_refused(self, hosting: HostingService, dispatch: Step, options: str, said: str) -> None:
        assert said in self.refused(hosting, dispatch, options)

    def refused(self, hosting: HostingService, dispatch: Step, *options: str) -> str:
        code, _, error = dispatch(*options)
        assert (code, hosting.calls) == (1, [])
        return error

    @pytest.mark.parametrize("version", ["0.5.0", "0.5.0-rc.1"])
    def test_is_refused_for_what_is_not_for_test(
        self, hosting: HostingService, dispatch: Step, tmp_path: Path, version: str
    ) -> None:
        (tmp_path / "record.json").write_text(self.record(version))

        assert "test takes alpha versions" in self.refused(hosting, dispatch)

    @pytest.mark.parametrize("text", ["", "{}", "[]", "\x00"])
    def test_needs_a_record(self, hosting: HostingService, dispatch: Step, tmp_path: Path, text: str) -> None:
        (tmp_path / "record.json").write_text(text)

        assert "the record" in self.refused(hosting, dispatch)

    def test_that_is_not_allowed_fails(self, hosting: HostingService, dispatch: Step) -> None:
        hosting.intercept = lambda _method, _path: Answer(403, {"message": f"no {HOSTING_TOKEN}"})
        code, _, error = dispatch()

        assert code == 1
        assert "was refused with 403" in error


class TestScript:
    def test_tells_its_steps(self) -> None:
        done = subprocess.run([ROOT / "scripts/publish-images", "--help"], capture_output=True, text=True, check=False)

        assert done.returncode == 0
        assert "{plan,check,login,build,sign,tag,record,target,dispatch}" in done.stdout
