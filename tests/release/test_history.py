"""Which root version went before, in real repositories, and what scripts/version-check says of it."""

import subprocess
from pathlib import Path
from typing import Final

import pytest

from sens_cli.release.versions import ReleaseError
from support.git import MAIN, Repository
from support.release import Said, call, refused
from support.services import ROOT
from tools.release import check_root_version
from tools.release.history import History

ZEROS: Final = "0" * 40
GONE: Final = "0123456789abcdef" * 2 + "01234567"


def pyproject(version: str) -> dict[str, str | None]:
    """Return the files with a root version."""
    return {
        "pyproject.toml": f'[project]\nname = "product"\nversion = "{version}"\n',
        "infra/helm/sens-platform/Chart.yaml": f"name: product\nversion: {version}\nappVersion: {version}\n",
    }


def bump(repository: Repository, version: str) -> str:
    """Commit a root version."""
    return repository.commit(f"Version {version}", pyproject(version))


def work(repository: Repository, name: str = "README.md") -> str:
    """Commit something that leaves the root version as it is."""
    path = repository.folder / name
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    return repository.commit("Work", {name: f"{before}A line.\n"})


def previous(repository: Repository, base: str | None = None) -> str | None:
    """Return the version before, as the check sees it."""
    found = History(repository.folder).previous(base)
    return None if found is None else str(found.version)


def check(repository: Repository, *arguments: str) -> Said:
    """Run the check as CI does."""
    return call(check_root_version.main, "--folder", str(repository.folder), *arguments)


@pytest.fixture
def remote(tmp_path: Path, repository: Repository) -> Repository:
    """Return the bare remote of ``repository``, which has main at 1.5.2 after 1.5.1."""
    bare = Repository.create(tmp_path / "remote.git", bare=True)
    repository.git("remote", "add", "origin", bare.url)
    bump(repository, "1.5.1")
    bump(repository, "1.5.2")
    repository.push()
    repository.git("fetch", "--quiet", "origin")
    return bare


def play(repository: Repository, story: str) -> None:
    """Play a story of commits from left to right: a version is committed; the words are git's, but for ``work`` on a file."""
    for step in story.split():
        word, _, name = step.partition(":")
        match word:
            case "work":
                work(repository, name or "README.md")
            case "branch":
                repository.branch(*name.split("@"))
            case "switch":
                repository.switch(name)
            case "merge":
                repository.merge(name)
            case "push":
                repository.push()
            case "detach":
                repository.switch(repository.revision(name or "HEAD"))
            case "orphan":
                repository.git("switch", "--quiet", "--orphan", name)
            case _:
                bump(repository, word)


MERGED_MAIN = "branch:feature work switch:main 1.6.0 push switch:feature merge:main"
MAINTENANCE = "branch:maintenance 1.5.3 push branch:repair 1.5.4 1.5.5"
UNMERGED = "branch:feature 1.5.3 1.5.4"


class TestStories:
    @pytest.mark.parametrize(
        ("story", "before"),
        [
            pytest.param("0.1.0", None, id="one commit"),
            pytest.param("1.5.2 1.5.3 1.6.0 detach:HEAD~1", "1.5.2", id="a detached head"),
            pytest.param(
                "1.5.2 branch:feature 1.5.9 1.6.0 switch:main work:other.md merge:feature",
                "1.5.2",
                id="main after a merge follows main, not the branch",
            ),
        ],
    )
    def test_without_a_remote(self, repository: Repository, story: str, before: str | None) -> None:
        play(repository, story)

        assert previous(repository) == before

    @pytest.mark.usefixtures("remote")
    @pytest.mark.parametrize(
        ("story", "base", "before"),
        [
            pytest.param("1.5.3 1.6.0", None, "1.5.2", id="main before it is pushed"),
            *(pytest.param(UNMERGED, base, "1.5.2") for base in ("", ZEROS, ZEROS + "0" * 24, GONE)),  # say nothing
            pytest.param(
                "branch:feature work 1.5.3 work work 1.6.0 work work 1.7.0 work work 1.6.0 work",
                None,
                "1.5.2",
                id="a branch of many commits is compared with where it left main",
            ),
            pytest.param(
                "branch:feature work switch:main 1.6.0 push switch:feature",
                "origin/main",
                "1.5.2",
                id="a branch that leaves the version is not bothered by main's",
            ),
            pytest.param(MERGED_MAIN, None, "1.6.0", id="a branch that has merged main"),
            pytest.param(f"{MERGED_MAIN} 1.7.0", None, "1.6.0", id="a branch that has merged main and raises it"),
            pytest.param(
                "branch:older@HEAD^ work:older.md switch:main branch:feature 1.6.0 switch:main merge:older push switch:feature",
                None,
                "1.5.2",
                id="not what main has merged from an older branch",
            ),
            pytest.param(
                "branch:feature work:feature.md switch:main 1.6.0 1.7.0 push detach merge:feature",
                "origin/main",
                "1.7.0",
                id="main as it is in the merge that CI tries, which is on no branch",
            ),
            pytest.param(MAINTENANCE, "origin/maintenance", "1.5.3", id="a branch for another branch"),
            pytest.param(MAINTENANCE, None, "1.5.2", id="the same without a base"),
            pytest.param("orphan:other 0.1.0", None, None, id="a branch that shares nothing with main"),
            pytest.param("orphan:other 0.1.0 0.2.0", None, "0.1.0", id="the same, raised"),
            pytest.param("orphan:other 0.1.0 0.2.0", "origin/main", "0.1.0", id="the same, compared with main"),
        ],
    )
    def test_with_a_remote(self, repository: Repository, story: str, base: str | None, before: str | None) -> None:
        play(repository, story)

        assert previous(repository, base) == before

    @pytest.mark.usefixtures("remote")
    @pytest.mark.parametrize(
        ("story", "options", "line"),
        [
            ("branch:feature work switch:main 1.6.0 push switch:feature", ["--base=origin/main"], "1.5.2: unchanged."),
            ("branch:feature work 1.5.3 work 1.7.0 work 1.6.0 work", [], "1.6.0: may follow 1.5.2."),
        ],
    )
    def test_are_told_by_the_check(self, repository: Repository, story: str, options: list[str], line: str) -> None:
        play(repository, story)

        said = check(repository, *options)
        assert said.code == 0
        assert line in said

    @pytest.mark.parametrize(
        ("story", "reason"),
        [
            pytest.param("1.5.2 1.7.0 work", "it skips minor 1.6.", id="a bad version that was committed over"),
            pytest.param(
                "1.5.2 branch:feature 1.6.0 1.7.0 switch:main merge:feature",
                "The root version 1.7.0 may not follow 1.5.2: it skips minor 1.6.",
                id="after a merge, what only the branch led up to",
            ),
        ],
    )
    def test_are_refused_by_the_check(self, repository: Repository, story: str, reason: str) -> None:
        play(repository, story)

        refused(check(repository), reason)


class TestLine:
    """One branch, nothing else is known."""

    def test_has_the_version_of_the_commit_before(self, repository: Repository) -> None:
        before = bump(repository, "1.5.2")
        bump(repository, "1.6.0")

        found = History(repository.folder).previous()

        assert found is not None
        assert (str(found.version), found.commit) == ("1.5.2", before)

    def test_looks_past_commits_that_leave_the_version(self, repository: Repository) -> None:
        play(repository, "1.5.2 1.6.0 work")
        repository.commit("Other keys", {"pyproject.toml": '[project]\nversion = "1.6.0"\nname = "renamed"\n'})

        assert previous(repository) == "1.5.2"

    @pytest.mark.parametrize("version", ["1.6.0", "1.5.1", "1.6.0-rc.1"])
    def test_takes_changes_that_are_not_committed(self, repository: Repository, version: str) -> None:
        play(repository, "1.5.1 1.5.2")
        repository.write(pyproject(version))

        assert previous(repository) == "1.5.2"

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "[project\n",
            "[project]\n",
            "project = 1\n",
            "[project]\nversion = 1.5\n",
            '[project]\nversion = "1.9.0-rc.1"\n',
            "[project]\nversion = " + "9" * 5000,
            "[project]\nversion = " + "[" * 5000,
            b'[project]\nversion = "1.9.0\xff"\n',
            None,
        ],
    )
    def test_looks_past_commits_whose_version_can_not_be_read(
        self, repository: Repository, text: str | bytes | None
    ) -> None:
        bump(repository, "1.5.2")
        file = repository.folder / "pyproject.toml"
        if text is None:
            file.unlink()
        else:
            file.write_bytes(text if isinstance(text, bytes) else text.encode())
        repository.commit("A slip")
        bump(repository, "1.5.3")

        assert previous(repository) == "1.5.2"

    def test_has_none_before_the_first_version_that_can_be_read(self, repository: Repository) -> None:
        repository.commit("Start", {"README.md": "Hello.\n"})
        repository.commit("A beginning", pyproject("0.1.0.dev0"))
        bump(repository, "0.1.0")

        assert previous(repository) is None

    def test_may_be_in_a_folder_of_a_larger_repository(self, repository: Repository) -> None:
        repository.write(pyproject("9.9.9"))
        for version in ("1.5.2", "1.5.3"):
            repository.commit(version, {f"product/{name}": text for name, text in pyproject(version).items()})

        assert previous(Repository(repository.folder / "product")) == "1.5.2"


class TestMain:
    """Main after a merge, a push, and again later."""

    def test_is_compared_with_the_commit_before_a_push_of_several(
        self, repository: Repository, remote: Repository
    ) -> None:
        before = remote.revision(MAIN)
        play(repository, "1.5.3 1.5.4 1.6.0 push")

        assert previous(repository, before) == "1.5.2"

    @pytest.mark.parametrize("with_base", [True, False])
    def test_gives_the_same_answer_after_it_has_moved_on(
        self, tmp_path: Path, repository: Repository, remote: Repository, with_base: bool
    ) -> None:
        before = remote.revision(MAIN)
        pushed = bump(repository, "1.6.0")
        repository.push()
        base = before if with_base else None
        first = previous(repository, base)
        play(repository, "1.6.1 branch:feature 2.0.0 switch:main merge:feature push")

        clone = remote.clone(tmp_path / "again")
        clone.switch(pushed)

        assert first == "1.5.2"
        assert previous(clone, base) == first

    def test_after_a_forced_push_is_compared_with_what_was_kept(
        self, tmp_path: Path, repository: Repository, remote: Repository
    ) -> None:
        kept = repository.head
        overwritten = bump(repository, "1.7.0")
        repository.push()
        repository.git("reset", "--quiet", "--hard", kept)
        bump(repository, "1.5.3")
        repository.push(force=True)

        assert previous(repository, overwritten) == "1.5.2"  # the old commit is still in this clone
        clone = remote.clone(tmp_path / "clone")
        with pytest.raises(subprocess.CalledProcessError):
            clone.revision(overwritten)
        assert previous(clone, overwritten) == "1.5.2"

    @pytest.mark.parametrize("known", [True, False])
    def test_may_have_another_name_on_the_remote_and_is_asked_for_it(self, tmp_path: Path, known: bool) -> None:
        trunk = Repository.create(tmp_path / "trunk", branch="trunk")
        bump(trunk, "1.5.1")
        if known:
            trunk.git("branch", "main")  # left from before
        bump(trunk, "1.5.2")
        clone = trunk.clone(tmp_path / "clone")
        if not known:
            clone.git("symbolic-ref", "--delete", "refs/remotes/origin/HEAD")
        play(clone, "branch:feature 1.6.0 1.7.0")

        assert previous(clone) == "1.5.2"


@pytest.mark.usefixtures("remote")
class TestBranch:
    """Work that is to be merged."""

    def test_that_keeps_its_lower_version_in_a_merge_is_a_downgrade(self, repository: Repository) -> None:
        play(repository, "branch:feature 1.5.3 switch:main 1.6.0 push switch:feature")
        repository.git("merge", "--quiet", "--strategy=ours", "--message=Merge main", MAIN)

        refused(check(repository), "1.5.3 may not follow 1.6.0: it is a downgrade")

    @pytest.mark.parametrize("tried", ["branch", "merge"])
    def test_gives_the_same_answer_after_it_was_merged(self, repository: Repository, tried: str) -> None:
        play(repository, "branch:feature 1.7.0 1.6.0 switch:main work:meanwhile.md push")
        play(repository, "switch:feature" if tried == "branch" else "detach merge:feature")
        candidate = repository.head
        first = previous(repository)
        play(repository, "switch:main merge:feature work:afterwards.md push")
        repository.switch(candidate)

        assert first == "1.5.2"
        assert previous(repository) == first


class TestShallow:
    def test_clone_gets_the_history_that_is_missing(self, tmp_path: Path, remote: Repository) -> None:
        clone = remote.clone(tmp_path / "clone", depth=1)

        assert previous(clone) == "1.5.1"

    def test_clone_of_one_branch_gets_main_too(
        self, tmp_path: Path, repository: Repository, remote: Repository
    ) -> None:
        play(repository, "branch:feature 1.6.0 1.7.0 push")
        clone = remote.clone(tmp_path / "clone", depth=1, branch="feature")

        assert previous(clone) == "1.5.2"

    def test_checkout_of_a_pull_request_s_merge_gets_its_history(
        self, tmp_path: Path, repository: Repository, remote: Repository
    ) -> None:
        play(repository, "branch:feature 1.6.0 switch:main work:meanwhile.md push detach merge:feature")
        repository.push("HEAD:refs/pull/1/merge")
        clone = Repository.create(tmp_path / "clone")
        clone.git("remote", "add", "origin", remote.url)
        clone.git("fetch", "--quiet", "--depth=1", "origin", "+refs/pull/1/merge:refs/remotes/pull/1/merge")
        clone.switch("refs/remotes/pull/1/merge")

        assert previous(clone) == "1.5.2"

    def test_clone_is_compared_with_a_base_that_it_did_not_have(
        self, tmp_path: Path, repository: Repository, remote: Repository
    ) -> None:
        before = remote.revision(MAIN)
        play(repository, "1.5.3 1.5.4 push")
        clone = remote.clone(tmp_path / "clone", depth=1)

        assert previous(clone, before) == "1.5.2"

    @pytest.mark.parametrize("lost", ["moved", "forgotten"])
    def test_clone_without_its_remote_is_refused_with_what_to_do(
        self, tmp_path: Path, remote: Repository, lost: str
    ) -> None:
        clone = remote.clone(tmp_path / "clone", depth=1)
        if lost == "moved":
            remote.folder.rename(tmp_path / "moved.git")
        else:
            clone.git("remote", "remove", "origin")

        with pytest.raises(ReleaseError, match=r"history is incomplete.*'git fetch' failed in .*fetch-depth: 0"):
            previous(clone)

    def test_text_of_a_refusal_does_not_show_the_remote_s_password(self, tmp_path: Path, remote: Repository) -> None:
        clone = remote.clone(tmp_path / "clone", depth=1)
        clone.git("remote", "set-url", "origin", "http://robot:password@127.0.0.1:1/product.git")

        with pytest.raises(ReleaseError) as refused:
            previous(clone)

        assert "password" not in str(refused.value)

    def test_clone_of_one_branch_without_its_remote_is_refused_rather_than_guessed(
        self, tmp_path: Path, repository: Repository, remote: Repository
    ) -> None:
        play(repository, "branch:feature 1.6.0 push")
        clone = Repository(tmp_path / "clone")
        repository.git("clone", "--quiet", "--single-branch", "--branch=feature", remote.url, str(clone.folder))
        remote.folder.rename(tmp_path / "moved.git")

        with pytest.raises(ReleaseError, match=r"history is incomplete.*'git fetch' failed in .*\(--base\)"):
            previous(clone)
        assert previous(clone, "HEAD") == "1.5.2"


class TestRefusals:
    @pytest.mark.parametrize(
        "base",
        [
            "nowhere", "origin/nowhere", "-", "--", "-x", "--help", "--upload-pack=touch hacked", "--output=hacked", "main; touch hacked",
            "$(touch hacked)", "a b", "main^{tree}", "HEAD:pyproject.toml", "main..main", "^main", "main\n", "main\0", "\udcff",
            "x" * 1_000_000, GONE[:39], GONE.upper(),
        ],
    )  # fmt: skip
    def test_name_a_base_that_is_no_commit(self, tmp_path: Path, repository: Repository, base: str) -> None:
        bump(repository, "1.5.2")

        with pytest.raises(ReleaseError) as refused:
            previous(repository, base)

        assert len(str(refused.value)) < 1000
        assert not list(tmp_path.rglob("hacked"))

    @pytest.mark.usefixtures("remote")
    def test_tell_what_to_do_about_an_unknown_base(self, repository: Repository) -> None:
        assert refused(check(repository, "--base=nowhere")) == (
            "scripts/version-check: 'nowhere' is not a commit of this clone: fetch it, or name another one as the base.\n"
        )

    def test_name_a_repository_without_a_commit(self, repository: Repository) -> None:
        repository.write(pyproject("0.1.0"))

        with pytest.raises(ReleaseError, match="has no commit yet"):
            previous(repository)

    @pytest.mark.usefixtures("isolated_git")
    def test_name_a_folder_that_is_no_repository(self, tmp_path: Path) -> None:
        (tmp_path / "pyproject.toml").write_text('[project]\nversion = "0.1.0"\n', encoding="utf-8")

        with pytest.raises(ReleaseError, match="not a git repository"):
            previous(Repository(tmp_path))

    def test_name_git_where_it_is_missing(
        self, repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        bump(repository, "0.1.0")
        monkeypatch.setenv("PATH", str(tmp_path))

        with pytest.raises(ReleaseError, match="git can't be run"):
            previous(repository)

    @pytest.mark.parametrize(
        ("text", "complaint"),
        [
            (None, "can't be read: No such file or directory"),
            ("", 'has no version: write version = "…" below'),
            ("[project]\n", "has no version"),
            ("project = []\n", "has no version"),
            ("{", "has no version"),
            ("[project]\nversion = " + "[" * 5000, "has no version"),
            ('[project]\nversion = "latest"\n', "The root version 'latest' is a name that can move"),
            ("[project]\nversion = 1.5\n", "The root version '1.5' is not SemVer 2.0"),
        ],
    )
    def test_name_a_file_without_a_version(self, repository: Repository, text: str | None, complaint: str) -> None:
        bump(repository, "1.5.2")
        repository.write({"pyproject.toml": text})

        refused(check(repository), complaint)

    @pytest.mark.parametrize("version", ["1.6.0-alpha.1.1", "1.6.0+build", "v1.6.0"])
    def test_of_what_is_not_stable_name_the_versions_that_are_allowed(
        self, repository: Repository, version: str
    ) -> None:
        commit = bump(repository, "1.5.2")
        bump(repository, version)

        assert refused(check(repository)).endswith(
            "Allowed: 1.5.2 (unchanged), 1.5.3 or a later patch of 1.5, 1.6.0, 2.0.0. "
            f"1.5.2 is the version of commit {commit[:12]}.\n"
        )


class TestCommand:
    """scripts/version-check."""

    @pytest.mark.parametrize(
        ("story", "line"),
        [
            ("0.1.0", "0.1.0: the first version"),
            ("1.5.2 1.5.7", "1.5.7: may follow 1.5.2. 1.5.2 is the version of commit "),
            ("1.5.2 2.0.0", "2.0.0: may follow 1.5.2. 1.5.2 is the version of commit "),
        ],
    )
    def test_prints_what_was_compared(self, repository: Repository, story: str, line: str) -> None:
        play(repository, story)

        said = check(repository)
        assert said.code == 0
        assert said.startswith(line)

    def test_needs_python_and_git_alone_and_takes_the_folder_as_seen_from_the_caller(
        self, tmp_path: Path, repository: Repository
    ) -> None:
        play(repository, "0.4.0 0.3.1")

        done = _run("version-check", "--folder", repository.folder.name, folder=tmp_path)

        assert done.returncode == 1
        reason = "The root version 0.3.1 may not follow 0.4.0: it is a downgrade"
        assert done.stderr.startswith(f"scripts/version-check: {reason}")
        named = _run("release-version", "--folder", repository.folder.name, "alpha", "7", "1", folder=tmp_path)
        assert (named.returncode, named.stdout) == (0, "0.3.1-alpha.7.1\n")

    @pytest.mark.usefixtures("remote")
    def test_leaves_clone_and_work_as_they_are(self, repository: Repository) -> None:
        play(repository, "branch:feature 1.6.0")
        repository.write({"README.md": "not committed\n"})
        before = _state(repository)

        assert check(repository).code == 0
        assert _state(repository) == before


def _state(repository: Repository) -> tuple[str, str]:
    return repository.git("for-each-ref"), repository.git("status", "--porcelain", "--branch")


def _run(script: str, *arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [ROOT / "scripts" / script, *arguments], cwd=folder, capture_output=True, text=True, check=False, timeout=60
    )
