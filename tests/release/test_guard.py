"""The guard of releases: what it lets pass, and everything else that could come along with a release."""

import os
import subprocess
from pathlib import Path

import pytest

from support.git import environment
from support.release import PRODUCTION, TEST, Scene, call
from tools.release import guard

ALPHA, STABLE = "0.1.0-alpha.1.1", "0.1.0"


@pytest.fixture(scope="module")
def releases(first_scene: Scene, tmp_path_factory: pytest.TempPathFactory) -> Scene:
    """Test and production have a release on main, and a clone has another one of test that is not there yet."""
    made = first_scene.copy(tmp_path_factory.mktemp("guard"))
    made.release_directly(TEST, ALPHA, made.product.head)
    made.release_directly(PRODUCTION, STABLE, made.product.head)
    main = made.main
    made.release_directly(TEST, "0.1.0-alpha.2.1", made.commit_product())
    made.remote.git("update-ref", "refs/heads/main", main)
    made.gitops.git("update-ref", "refs/remotes/origin/main", main)
    return made


@pytest.fixture
def released(releases: Scene, tmp_path: Path, release_environment: None) -> Scene:
    """A clone with a release of test that is not on main."""
    return releases.copy(tmp_path)


@pytest.fixture
def on_main(released: Scene) -> Scene:
    """The same without that release."""
    released.gitops.git("reset", "--quiet", "--hard", "origin/main")
    return released


def check(scene: Scene, environment: str = "test", *given: str) -> str:
    said = call(guard.main, environment, f"--folder={scene.gitops.folder}", *given)
    assert said.code == (1 if said.startswith("scripts/release-guard: ") else 0)
    return said


def amend(scene: Scene) -> None:
    scene.gitops.git("add", "--all")
    scene.gitops.git("commit", "--quiet", "--amend", "--no-edit")


class TestWhatPasses:
    def test_is_a_release(self, released: Scene) -> None:
        assert "differs from main in nothing but a release of test" in check(released)

    def test_is_main_itself(self, on_main: Scene) -> None:
        assert check(on_main).startswith(on_main.main[:12])

    def test_is_a_branch_that_main_has_moved_on_from(self, released: Scene) -> None:
        colleague = released.another_clone()
        colleague.commit("Write something", {"NOTES.md": "x\n"})
        colleague.push("main")
        released.gitops.git("fetch", "--quiet")
        assert "in nothing but a release" in check(released)

    def test_is_a_file_that_was_touched_but_not_changed(self, released: Scene) -> None:
        os.utime(released.gitops.folder / "README.md", (1, 1))
        assert "in nothing but a release" in check(released)


CHANGE = "echo x >README.md"
WRONG = [
    (CHANGE, "README.md is changed"),
    ("echo x >NOTES.md", "NOTES.md is added"),
    ("rm README.md", "README.md is deleted"),
    ("git mv README.md 'READ ME\u2028.md'", "README.md is deleted"),
    (f"chmod 755 {TEST.application}", f"{TEST.application} is executable"),
    (f"ln --symbolic --force values.yaml {TEST.record}", f"{TEST.record} is a symbolic link"),
    (f"rm {TEST.record}", f"{TEST.record} is deleted"),
    (f"echo 'replicas: 0' >>{PRODUCTION.application}", f"{PRODUCTION.application} is changed"),
]


def shell(scene: Scene, command: str) -> None:
    """Run a command in the clone."""
    subprocess.run(["sh", "-ec", command], cwd=scene.gitops.folder, env=environment(), check=True)


class TestWhatIsNoReleaseOfTest:
    @pytest.mark.parametrize(("work", "text"), WRONG)
    def test_is_found_in_the_commit(self, released: Scene, work: str, text: str) -> None:
        shell(released, work)
        amend(released)
        said = check(released)
        assert text in said
        assert said.removesuffix("\n").isprintable()

    @pytest.mark.parametrize("work", [work for work, _ in WRONG])
    @pytest.mark.parametrize("where", ["index", "work tree"])
    def test_is_found_before_it_is_committed(self, released: Scene, work: str, where: str) -> None:
        shell(released, work)
        released.gitops.git(*(("add", "--all") if where == "index" else ("reset", "--quiet")))
        assert "that are in no commit" in check(released)

    def test_is_a_submodule(self, released: Scene) -> None:
        released.gitops.git("update-index", "--add", "--cacheinfo", f"160000,{released.gitops.head},chart")
        released.gitops.git("commit", "--quiet", "--amend", "--no-edit")
        assert "chart is added" in check(released)

    def test_is_hidden_by_a_change_that_was_taken_back_in_the_work_tree(self, released: Scene) -> None:
        text = released.gitops.read("README.md")
        shell(released, CHANGE)
        released.gitops.git("add", "--all")
        released.gitops.write({"README.md": text + "\n"})
        assert "that are in no commit: 'README.md'" in check(released)

    def test_is_hidden_from_git_status(self, released: Scene) -> None:
        shell(released, CHANGE)
        amend(released)
        released.gitops.git("update-index", "--assume-unchanged", "README.md")
        assert "README.md is changed" in check(released)

    def test_is_hidden_by_a_replaced_commit(self, released: Scene) -> None:
        honest = released.gitops.head
        shell(released, CHANGE)
        amend(released)
        released.gitops.git("replace", released.gitops.head, honest)
        assert "README.md is changed" in check(released)

    @pytest.mark.parametrize(
        ("before", "after", "text"),
        [
            ("project: sens-test", "project: sens-production", "differs in more than the product commit and the release values"),
            ("alpha.2.1", "alpha.3.1", "are not what follows from release.json"),
        ],
    )  # fmt: skip
    def test_is_another_line_of_the_application_or_another_version(
        self, released: Scene, before: str, after: str, text: str
    ) -> None:
        application = released.gitops.read(TEST.application)
        released.gitops.write({TEST.application: application.replace(before, after)})
        amend(released)
        assert text in check(released)

    def test_is_a_stable_version_in_test(self, on_main: Scene) -> None:
        base = on_main.main
        on_main.release_directly(TEST, "0.2.0", on_main.commit_product())
        assert "test takes alpha versions" in check(on_main, "test", f"--base={base}")

    def test_names_many_files_but_not_all(self, released: Scene) -> None:
        released.gitops.commit("Add", {f"file-{number}": "" for number in range(100)})
        assert len(check(released)) < 1500


class TestProduction:
    def test_takes_its_own_release(self, on_main: Scene) -> None:
        base = on_main.main
        on_main.release_directly(PRODUCTION, "0.2.0", on_main.commit_product())
        assert "nothing but a release of production" in check(on_main, "production", f"--base={base}")

    def test_takes_no_release_of_test(self, released: Scene) -> None:
        said = check(released, "production")
        for path in TEST.paths:
            assert f"{path} is changed" in said

    def test_is_checked_at_a_branch_whatever_the_work_tree_has(self, on_main: Scene) -> None:
        base = on_main.main
        on_main.release_directly(PRODUCTION, "0.2.0", on_main.commit_product())
        shell(on_main, CHANGE)
        assert "nothing but" in check(on_main, "production", f"--base={base}", f"--head={on_main.gitops.head}")
        assert "that are in no commit: 'README.md'" in check(on_main, "production", f"--base={base}")


class TestWhatCanNotBeCompared:
    @pytest.mark.parametrize("name", ["absent", "", "--output=x", "HEAD^{tree}", "$(id)", "HEAD:README.md"])
    def test_is_told(self, released: Scene, name: str) -> None:
        assert "is not a commit in" in check(released, "test", f"--base={name}")

    def test_is_told_when_histories_have_nothing_in_common(self, released: Scene) -> None:
        released.gitops.git("switch", "--quiet", "--orphan", "other")
        released.gitops.commit("Other", {"x": ""})
        assert "no commit in common" in check(released)
