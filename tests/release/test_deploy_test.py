"""Releases in test: what is written and pushed, what is refused, and what happens when others push at the same time."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping

import pytest
import yaml

from sens_cli.release.record import IMAGES, Record
from sens_cli.release.record import values as values_of
from support.hostile import HOSTILE
from support.registry import FOLDER, upload
from support.release import ROOT, TEST, Said, Scene, digests_of, refused, start
from tools.release import guard
from tools.release.clone import Clone
from tools.release.environment import NO_COMMIT, EnvironmentFiles
from tools.release.registry import REVISION

FIRST, SECOND, THIRD = (f"0.1.0-alpha.{number}.1" for number in (1, 2, 10))


def arguments(version: str, commit: str, digests: dict[str, str]) -> list[str]:
    return [f"--image-tag={version}", f"--product-commit={commit}", f"--digests={json.dumps(digests)}"]


@pytest.fixture
def first(scene: Scene) -> list[str]:
    """What the first release is deployed with."""
    commit = scene.product.head
    return arguments(FIRST, commit, digests_of(FIRST, commit))


def next_release(scene: Scene, version: str) -> list[str]:
    commit = scene.commit_product(version)
    return arguments(version, commit, digests_of(version, commit))


class TestARelease:
    def test_changes_its_two_files_and_nothing_else(self, scene: Scene, first: list[str]) -> None:
        before = scene.main
        said = scene.deploy(*first, "--run-url=https://github.com/acme/sens-platform/actions/runs/1", "--push")
        assert said == f"Pushed: {FIRST} for test.\n"
        assert scene.remote.changed(before, "main") == TEST.paths
        record = scene.record(TEST)
        assert (str(record.release.version), record.previous) == (FIRST, None)
        assert record.run == "https://github.com/acme/sens-platform/actions/runs/1"
        assert record.images["docs"].repository == f"{scene.registry.host}/{FOLDER}/docs"

    def test_changes_nothing_of_the_application_but_commit_and_values(self, scene: Scene, first: list[str]) -> None:
        before = scene.main
        scene.deploy(*first, "--push")
        differences = scene.remote.git("diff", "--unified=0", before, "main", "--", TEST.application).splitlines()
        removed = [line for line in differences if line.startswith("-") and not line.startswith("---")]
        added = [line for line in differences if line.startswith("+") and not line.startswith("+++")]
        commit = "targetRevision: {} # product commit: written with each release"
        assert [line[1:].strip() for line in removed] == [commit.format(f'"{NO_COMMIT}"'), "valuesObject: {}"]
        assert added[0][1:].strip() == commit.format(f'"{scene.product.head}"')
        beginning = ["valuesObject:", "images:", f'tag: "{FIRST}"', 'channel: "alpha"']
        assert [line[1:].strip() for line in added[1:5]] == beginning
        assert len(added) == 6 + len(IMAGES)

    def test_puts_chart_and_images_into_one_object(self, scene: Scene, first: list[str]) -> None:
        """Whenever Argo CD looks, it sees the chart of the commit that the images were built from."""
        seen = set()
        for release in (first, next_release(scene, SECOND), next_release(scene, THIRD)):
            scene.deploy(*release, "--push")
        for commit in scene.remote.git("rev-list", "main").split():
            (source, others) = yaml.safe_load(scene.remote.read(TEST.application, commit))["spec"]["sources"]
            assert source["helm"]["valueFiles"] == ["$values/environments/test/values.yaml"]
            assert set(others) == {"repoURL", "targetRevision", "ref"}
            values = source["helm"]["valuesObject"]
            seen.add((source["targetRevision"], values["images"]["tag"] if values else None))
            record = scene.released(TEST, commit)
            assert values == ({} if record is None else yaml.safe_load(values_of(record)))
        commits = scene.product.git("rev-list", "--reverse", "HEAD").split()
        assert seen == {(NO_COMMIT, None), *zip(commits, (FIRST, SECOND, THIRD), strict=True)}

    def test_is_one_commit_whose_message_tells_all(self, scene: Scene, first: list[str]) -> None:
        scene.deploy(*first, "--push")
        second = next_release(scene, SECOND)
        before = scene.main
        scene.deploy(*second, "--run-url=https://ci.example/runs/2", "--push")
        assert scene.remote.git("rev-list", "--count", f"{before}..main") == "1"
        assert scene.remote.git("log", "-1", "--format=%B", "main").rstrip("\n") == (
            f"Deploy {SECOND} to test\n\nProduct commit: {scene.product.head}\nBefore: {FIRST}\n"
            "Run: https://ci.example/runs/2"
        )

    def test_records_what_was_there_before(self, scene: Scene, first: list[str]) -> None:
        scene.deploy(*first, "--push")
        said = scene.deploy(*next_release(scene, SECOND), "--push")
        previous = scene.record(TEST).previous
        assert previous is not None
        assert str(previous.version) == FIRST
        assert said == f"Pushed: {SECOND} for test, after {FIRST}.\n"

    def test_again_is_nothing_to_do(self, scene: Scene, first: list[str]) -> None:
        scene.deploy(*first, "--push")
        before = scene.main
        said = scene.deploy(*first, "--push")
        assert (said, said.code) == (f"Nothing to do: test has {FIRST} already.\n", 0)
        assert scene.main == before

    def test_without_push_stays_in_the_clone_until_it_is_pushed(self, scene: Scene, first: list[str]) -> None:
        before = scene.main
        said = scene.deploy(*first)
        assert said == f"Committed, not pushed: {FIRST} for test.\n"
        assert scene.main == before
        assert scene.gitops.changed(before) == TEST.paths
        assert scene.deploy(*first, "--push").code == 0
        assert scene.gitops.head == scene.main != before

    def test_works_from_a_shallow_clone(self, scene: Scene, first: list[str]) -> None:
        shallow = scene.remote.clone(scene.folder / "shallow", depth=1)
        assert scene.deploy(*first, "--push", folder=shallow.folder).code == 0
        assert scene.released(TEST) is not None

    def test_from_a_clone_that_is_behind_is_made_on_top_of_main(self, scene: Scene, first: list[str]) -> None:
        colleague = scene.another_clone()
        colleague.commit(
            "Change values", {"environments/test/values.yaml": scene.gitops.read("environments/test/values.yaml")}
        )
        ahead = colleague.commit("Write something", {"NOTES.md": "x\n"})
        colleague.push("main")
        assert scene.deploy(*first, "--push").code == 0
        assert scene.remote.revision("main~1") == ahead
        assert (scene.gitops.folder / "NOTES.md").exists()


class TestARefusedRelease:
    def refused(self, scene: Scene, given: list[str], text: str) -> Said:
        before = scene.main, scene.gitops.head
        said = refused(scene.deploy(*given, "--push"), text)
        assert said.startswith("scripts/deploy-test-main: ")
        assert (scene.main, scene.gitops.head) == before
        return said

    def break_it(self, scene: Scene, damage: Mapping[str, str | None]) -> None:
        """Push something that is broken to main."""
        scene.gitops.commit("Break it", damage)
        scene.gitops.push("main")

    @pytest.mark.parametrize(
        ("version", "text"),
        [
            ("0.1.0", "test takes alpha versions, and 0.1.0 is of the channel stable"),
            ("0.1.0-rc.1", "is of the channel rc"),
            ("0.1.0-beta.1", "belongs to no channel"),
            ("latest", "is a name that can move"),
            ("v0.1.0-alpha.1.1", "has a leading 'v'"),
            ("0.1.0-alpha.1.1+x", "build metadata"),
            ("git-0123456", "is a commit"),
            ("", "is not SemVer"),
        ],
    )
    def test_is_of_another_channel(self, scene: Scene, first: list[str], version: str, text: str) -> None:
        self.refused(scene, [f"--image-tag={version}", *first[1:]], text)

    @pytest.mark.parametrize("commit", ["", "main", "0123456", "A" * 40, "0" * 41, "g" * 40, "0" * 39 + "\n"])
    def test_is_of_no_full_commit(self, scene: Scene, first: list[str], commit: str) -> None:
        self.refused(scene, [first[0], f"--product-commit={commit}", first[2]], "is not a full commit")

    def test_lacks_images(self, scene: Scene, first: list[str]) -> None:
        digests = dict.fromkeys(IMAGES[2:], f"sha256:{'a' * 64}")
        self.refused(scene, [*first[:2], f"--digests={json.dumps(digests)}"], "missing: docs, http-ingestion-worker")

    def test_is_older_than_what_test_has(self, scene: Scene) -> None:
        scene.deploy(*next_release(scene, THIRD), "--push")
        older = next_release(scene, SECOND)
        said = self.refused(scene, older, f"test has {THIRD}, which is later than {SECOND}")
        # What is advised works.
        (option,) = re.findall(r"run the same again with (--[a-z-]+)", said)
        assert "scripts/" not in said.removeprefix("scripts/deploy-test-main")
        assert scene.deploy(*older, "--push", option).code == 0
        assert str(scene.record(TEST).release.version) == SECOND

    def test_gives_a_version_another_commit(self, scene: Scene, first: list[str]) -> None:
        scene.deploy(*first, "--push")
        commit = scene.commit_product()
        given = [first[0], f"--product-commit={commit}", first[2]]
        assert commit in self.refused(scene, given, "A published version never changes")

    def test_gives_a_version_another_image(self, scene: Scene, first: list[str]) -> None:
        scene.deploy(*first, "--push")
        digests = json.loads(first[2].partition("=")[2]) | {"docs": f"sha256:{'a' * 64}"}
        self.refused(scene, [*first[:2], f"--digests={json.dumps(digests)}"], "with other images (docs)")

    @pytest.mark.parametrize("path", ["NOTES.md", TEST.application])
    def test_starts_from_a_dirty_tree(self, scene: Scene, first: list[str], path: str) -> None:
        scene.gitops.write({path: "x\n"})
        self.refused(scene, first, f"in no commit: '{path}'")
        assert (scene.gitops.folder / path).read_text() == "x\n"

    def test_starts_from_another_branch(self, scene: Scene, first: list[str]) -> None:
        scene.gitops.branch("work")
        self.refused(scene, first, "is not on its branch main")

    def test_starts_from_commits_that_nobody_has(self, scene: Scene, first: list[str]) -> None:
        scene.gitops.commit("Work", {"NOTES.md": "x\n"})
        self.refused(scene, first, "has 1 commits on main that are not on the remote")

    @pytest.mark.parametrize(
        ("damage", "text"),
        [
            ({TEST.record: "{"}, "release.json is not JSON"),
            ({TEST.record: None}, "release.json is missing"),
            ({TEST.application: "kind: Application\n"}, "has 0 lines 'targetRevision"),
            ({TEST.application: None}, "is this the GitOps repository?"),
            ({"environments/test/values.yaml": "images: [\n"}, "does not tell where the images are"),
            ({"environments/test/values.yaml": "images:\n  registry: a\n  registry: b\n"}, "does not tell where"),
            ({"environments/test/values.yaml": "images:\nother:\n  registry: a\n"}, "does not tell where"),
        ],
    )
    def test_finds_broken_files(self, scene: Scene, first: list[str], damage: dict[str, str | None], text: str) -> None:
        scene.deploy(*first, "--push")
        self.break_it(scene, damage)
        self.refused(scene, next_release(scene, SECOND), text)

    @pytest.mark.parametrize(
        ("before", "after", "text"),
        [
            (
                f'tag: "{FIRST}"',
                'tag: "latest"',
                "The release values in applications/sens-platform-test.yaml are not what",
            ),
            ("  images:\n", "  replicas: 0\n          images:\n", "are not what follows from release.json"),
            ("# end of the release values", "", "has 0 blocks between the lines"),
            ("# release values: written", "# written", "has 0 blocks between the lines"),
        ],
    )
    def test_finds_other_values_in_the_application(
        self, scene: Scene, first: list[str], before: str, after: str, text: str
    ) -> None:
        scene.deploy(*first, "--push")
        application = scene.gitops.read(TEST.application)
        assert before in application
        self.break_it(scene, {TEST.application: application.replace(before, after) + "\n"})
        self.refused(scene, next_release(scene, SECOND), text)

    def test_finds_two_lines_for_the_commit(self, scene: Scene, first: list[str]) -> None:
        text = scene.gitops.read(TEST.application)
        self.break_it(scene, {TEST.application: f"{text}\n{text}\n"})
        self.refused(scene, first, "has 2 lines")

    def test_finds_a_link_instead_of_a_file(self, scene: Scene, first: list[str]) -> None:
        (scene.gitops.folder / TEST.application).unlink()
        (scene.gitops.folder / TEST.application).symlink_to("sens-platform-production.yaml")
        self.break_it(scene, {})
        self.refused(scene, first, "is not a regular file")

    def test_is_called_outside_of_a_repository(self, scene: Scene, first: list[str]) -> None:
        folder = scene.folder / "empty"
        folder.mkdir()
        assert "is not a clone of a repository" in scene.deploy(*first, folder=folder)

    def test_can_not_reach_the_remote(self, scene: Scene, first: list[str]) -> None:
        scene.gitops.git("remote", "set-url", "origin", "https://secret@127.0.0.1:1/acme/infra.git")
        assert "secret" not in refused(scene.deploy(*first, "--push"), "'git fetch' failed")


class TestHostileParameters:
    @pytest.mark.parametrize("option", ["--image-tag", "--product-commit", "--digests", "--run-url"])
    def test_are_refused_and_run_nothing(self, scene: Scene, option: str) -> None:
        given = arguments(FIRST, scene.product.head, dict.fromkeys(IMAGES, f"sha256:{'a' * 64}"))
        before = scene.main
        for text in HOSTILE:
            said = scene.deploy(*[one for one in given if not one.startswith(option)], f"{option}={text}", "--push")
            assert said.code == 1, text
            assert len(said) < 1000
            assert said.removesuffix("\n").isprintable()
            assert scene.main == before
        assert not list(scene.folder.rglob("pwned"))


class TestTheRegistry:
    @pytest.fixture
    def published(self, scene: Scene) -> list[str]:
        """The same release, whose images are in the registry."""
        commit = scene.product.head
        return [*arguments(FIRST, commit, scene.publish(FIRST, commit)), "--check-registry", "--push"]

    def test_has_the_images(self, scene: Scene, published: list[str]) -> None:
        assert scene.deploy(*published).code == 0

    def test_lacks_some(self, scene: Scene, published: list[str]) -> None:
        for image in ("docs", "telemetry-worker"):
            del scene.registry.repositories[f"{FOLDER}/{image}"].manifests[FIRST]
        refused(scene.deploy(*published), f"not published with the tag {FIRST}: docs, telemetry-worker.")
        assert scene.released(TEST) is None

    def test_has_another_image_by_that_tag(self, scene: Scene, published: list[str]) -> None:
        upload(scene.registry, f"{FOLDER}/docs", FIRST, {"linux/arm64": {REVISION: scene.product.head}})
        refused(scene.deploy(*published), "docs has sha256:", "A published tag never moves")

    def test_has_images_of_another_commit(self, scene: Scene, published: list[str]) -> None:
        other = scene.commit_product()
        built = f"was not built from the commit {other}, but docs from '{scene.product.revision('HEAD~1')}'"
        refused(scene.deploy(*published, f"--product-commit={other}"), built)

    def test_loses_an_image_between_two_questions(self, scene: Scene, published: list[str]) -> None:
        scene.forget_after_one_question("docs")
        refused(scene.deploy(*published), "docs has no sha256:")
        assert scene.released(TEST) is None

    def test_does_not_let_in(self, scene: Scene, published: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SENS_REGISTRY_PASSWORD", "wrong")
        refused(scene.deploy(*published), "401")


def meanwhile(monkeypatch: pytest.MonkeyPatch, work: Callable[[int], None]) -> None:
    """Do something each time between the fetch and the push of a release."""
    times = [0]
    original = guard.check

    def check(clone: Clone, environment: EnvironmentFiles, base: str, head: str) -> None:
        times[0] += 1
        work(times[0])
        original(clone, environment, base, head)

    monkeypatch.setattr(guard, "check", check)


class TestOthersWhoPush:
    def test_are_not_overwritten(self, scene: Scene, first: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
        colleague = scene.another_clone()

        def work(time: int) -> None:
            if time == 1:
                colleague.commit("Write something", {"NOTES.md": "x\n"})
                colleague.push("main")

        meanwhile(monkeypatch, work)
        assert scene.deploy(*first, "--push").code == 0
        subjects = scene.remote.git("log", "--format=%s", "main").splitlines()
        assert subjects == [f"Deploy {FIRST} to test", "Write something", "Begin"]

    def test_with_a_later_release_win(self, scene: Scene, first: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
        colleague = scene.another_clone()
        later = next_release(scene, SECOND)
        records: list[Record | None] = []

        def work(time: int) -> None:
            if time == 1:
                assert scene.deploy(*later, "--push", folder=colleague.folder).code == 0
                records.append(scene.released(TEST))

        meanwhile(monkeypatch, work)
        refused(scene.deploy(*first, "--push"), f"test has {SECOND}, which is later than {FIRST}")
        assert [scene.released(TEST)] == records

    def test_again_and_again_end_the_attempts(
        self, scene: Scene, first: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        colleague = scene.another_clone()

        def work(time: int) -> None:
            colleague.commit(f"Write {time}")
            colleague.push("main")

        meanwhile(monkeypatch, work)
        before = scene.gitops.head
        refused(scene.deploy(*first, "--push"), "pushed to by others 5 times")
        assert scene.released(TEST) is None
        assert scene.gitops.head == before

    def test_at_the_very_same_time_leave_the_later_release(self, scene: Scene, first: list[str]) -> None:
        colleague = scene.another_clone()
        later = next_release(scene, SECOND)
        calls = [(scene.gitops, first), (colleague, later)]
        programs = [start(repository, "deploy-test-main", *given, "--push") for repository, given in calls]
        outputs = [running.communicate(timeout=60)[0] for running in programs]
        assert programs[1].returncode == 0, outputs
        assert programs[0].returncode in {0, 1}
        assert str(scene.record(TEST).release.version) == SECOND
        assert scene.remote.git("fsck", "--strict", "--no-dangling") == ""

    def test_are_told_from_rules_that_do_not_let_push(self, scene: Scene, first: list[str]) -> None:
        hook = scene.remote.folder / "hooks" / "pre-receive"
        hook.parent.mkdir()
        hook.write_text(
            "#!/bin/sh\necho 'GH013: Repository rule violations found for https://robot:to@ken@host.invalid/a' >&2\nexit 1\n"  # pragma: allowlist secret
        )
        hook.chmod(0o755)
        before = scene.gitops.head
        texts = ("does not let this push to main", "deploy key", "https://host.invalid/a")
        refused(scene.deploy(*first, "--push"), *texts)
        assert scene.gitops.head == before


class TestTheScript:
    def test_runs_with_the_gitops_repository_alone(self, scene: Scene, first: list[str]) -> None:
        running = start(scene.gitops, "deploy-test-main", *first, "--push")
        output = running.communicate(timeout=60)[0]
        assert (running.returncode, output) == (0, f"Pushed: {FIRST} for test.\n")
        assert scene.gitops.git("status", "--porcelain", "--ignored") == ""

    def test_says_what_is_missing_without_a_fitting_python(self, scene: Scene) -> None:
        programs = scene.folder / "programs"
        programs.mkdir()
        for name in ("bash", "dirname", "basename"):
            (programs / name).symlink_to(str(shutil.which(name)))
        done = subprocess.run(
            [scene.gitops.folder / "scripts" / "deploy-test-main"],
            env={"PATH": str(programs), "SENS_PYTHON": "false"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 1
        assert "Python 3.12 or newer is missing" in done.stderr

    def test_is_a_program_in_the_template(self) -> None:
        folder = ROOT / "infra/gitops/template/scripts"
        for name in ("deploy-test-main", "promote-production-from-test.sh", "rollback", "release-guard"):
            assert os.access(folder / name, os.X_OK)
