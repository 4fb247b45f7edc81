"""scripts/check-branch-protection, against a service that answers over HTTP; and what CODEOWNERS says about each file."""

import fnmatch
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from support.gitops import gitops_init
from support.hosting import GITOPS_NAME, TOKEN, HostingService
from tools.release.check_branch_protection import main

OWNER = "@SensSebastianSchlosser"
RULESET: list[dict[str, object]] = [
    {"type": "pull_request", "parameters": {"require_code_owner_review": True, "required_approving_review_count": 1}},
    {"type": "non_fast_forward"},
]
CLASSIC: dict[str, object] = {
    "required_pull_request_reviews": {"require_code_owner_reviews": True},
    "enforce_admins": {"enabled": True},
    "allow_force_pushes": {"enabled": False},
}


@pytest.fixture
def check(capsys: pytest.CaptureFixture[str]) -> Callable[[], tuple[int, str]]:
    def run() -> tuple[int, str]:
        code = main([GITOPS_NAME])
        output = capsys.readouterr()
        assert TOKEN not in output.out + output.err
        return code, output.out + output.err

    return run


Check = Callable[[], tuple[int, str]]


class TestEnforced:
    def test_by_a_ruleset(self, hosting: HostingService, check: Check) -> None:
        hosting.repositories[GITOPS_NAME].rules.extend(RULESET)

        code, text = check()
        assert code == 0
        assert "owners in CODEOWNERS have to approve changes" in text
        assert "list of exceptions" in text

    def test_by_classic_protection(self, hosting: HostingService, check: Check) -> None:
        hosting.repositories[GITOPS_NAME].protection = CLASSIC

        code, text = check()
        assert code == 0
        assert "list of exceptions" not in text


class TestNotEnforced:
    @pytest.mark.usefixtures("hosting")
    def test_without_any_protection(self, check: Check) -> None:
        code, text = check()

        assert code == 1
        assert "changes need no pull request: turn on 'Require a pull request before merging'" in text
        assert "owners in CODEOWNERS need not approve: turn on 'Require review from Code Owners'" in text
        assert "history can be overwritten" in text

    @pytest.mark.parametrize(
        ("change", "problem"),
        [
            ({"required_pull_request_reviews": {"require_code_owner_reviews": False}}, "need not approve"),
            ({"required_pull_request_reviews": None}, "need no pull request"),
            ({"enforce_admins": {"enabled": False}}, "administrators are exempt"),
            ({"allow_force_pushes": {"enabled": True}}, "history can be overwritten"),
        ],
    )
    def test_with_a_gap_in_classic_protection(
        self, hosting: HostingService, check: Check, change: dict[str, object], problem: str
    ) -> None:
        hosting.repositories[GITOPS_NAME].protection = CLASSIC | change

        code, text = check()
        assert code == 1
        assert problem in text

    @pytest.mark.parametrize("gap", [0, 1])
    def test_with_a_gap_in_the_ruleset(self, hosting: HostingService, check: Check, gap: int) -> None:
        hosting.repositories[GITOPS_NAME].rules.extend(rule for number, rule in enumerate(RULESET) if number != gap)

        assert check()[0] == 1


class TestNotKnown:
    def test_without_a_token(self, monkeypatch: pytest.MonkeyPatch, check: Check) -> None:
        monkeypatch.delenv("GITHUB_TOKEN", raising=False)
        monkeypatch.delenv("GH_TOKEN", raising=False)

        code, text = check()
        assert code == 1
        assert "There is no token: set GITHUB_TOKEN" in text

    @pytest.mark.usefixtures("hosting")
    def test_with_a_token_that_is_refused(self, monkeypatch: pytest.MonkeyPatch, check: Check) -> None:
        monkeypatch.setenv("GITHUB_TOKEN", "another")

        assert check()[0] == 1


def owners(file: Path) -> list[tuple[str, list[str]]]:
    """Return the lines of a CODEOWNERS: a pattern and its owners."""
    lines = [line.split() for line in file.read_text(encoding="utf-8").splitlines()]
    return [(line[0], line[1:]) for line in lines if line and not line[0].startswith("#")]


def owners_of(path: str, lines: list[tuple[str, list[str]]]) -> list[str]:
    """Return who owns a file: the last line that matches decides. Of the patterns, those that are used here."""
    found: list[str] = []
    for pattern, names in lines:
        assert pattern == "*" or (pattern.startswith("/") and not set(pattern) & set("*?[!\\")), pattern
        inside = path.startswith(pattern[1:]) if pattern.endswith("/") else path == pattern[1:]
        if inside or pattern == "*":
            found = names
    return found


class TestCodeOwners:
    # What a release of test changes, and people who look after test; nothing of it reaches production.
    FREE = ("environments/test/*", "applications/sens-platform-test.yaml")

    def test_each_file_but_tests_own_has_productions_owner(self, gitops: Path) -> None:
        lines = owners(gitops / ".github/CODEOWNERS")
        files = [path.relative_to(gitops).as_posix() for path in gitops.rglob("*") if path.is_file()]
        files += ["environments/production/release.json", "new/file"]
        free = [file for file in files if owners_of(file, lines) != [OWNER]]

        assert len(files) > 30
        assert free
        assert all(any(fnmatch.fnmatch(file, pattern) for pattern in self.FREE) for file in free), free

    def test_a_release_of_test_needs_no_review(self, gitops: Path) -> None:
        lines = owners(gitops / ".github/CODEOWNERS")
        changed = ("environments/test/release.json", "applications/sens-platform-test.yaml")

        assert [owners_of(file, lines) for file in changed] == [[], []]

    def test_names_the_owner_that_was_asked_for(self, tmp_path: Path) -> None:
        assert gitops_init(tmp_path / "new", "--set", "production_owner=@example/owners").returncode == 0
        names = {name for _, line in owners(tmp_path / "new/.github/CODEOWNERS") for name in line}

        assert names == {"@example/owners"}
        assert not subprocess.run(["grep", "-r", OWNER, tmp_path / "new"], capture_output=True, check=False).stdout
