"""scripts/check-branch-protection, against a service that answers over HTTP; and what CODEOWNERS says about each file."""

import fnmatch
from pathlib import Path

import pytest

from support.gitops import text_of, written
from support.hosting import GITOPS_NAME, TOKEN, HostingService
from support.release import Said, call, refused
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


def check() -> Said:
    said = call(main, GITOPS_NAME)
    assert TOKEN not in said
    return said


class TestEnforced:
    def test_by_a_ruleset(self, hosting: HostingService) -> None:
        hosting.repositories[GITOPS_NAME].rules.extend(RULESET)

        said = check()
        assert said.code == 0
        assert "owners in CODEOWNERS have to approve changes" in said
        assert "list of exceptions" in said

    def test_by_classic_protection(self, hosting: HostingService) -> None:
        hosting.repositories[GITOPS_NAME].protection = CLASSIC

        said = check()
        assert said.code == 0
        assert "list of exceptions" not in said


class TestNotEnforced:
    @pytest.mark.usefixtures("hosting")
    def test_without_any_protection(self) -> None:
        refused(
            check(),
            "changes need no pull request: turn on 'Require a pull request before merging'",
            "owners in CODEOWNERS need not approve: turn on 'Require review from Code Owners'",
            "history can be overwritten",
        )

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
        self, hosting: HostingService, change: dict[str, object], problem: str
    ) -> None:
        hosting.repositories[GITOPS_NAME].protection = CLASSIC | change

        refused(check(), problem)

    @pytest.mark.parametrize("gap", [0, 1])
    def test_with_a_gap_in_the_ruleset(self, hosting: HostingService, gap: int) -> None:
        hosting.repositories[GITOPS_NAME].rules.extend(rule for number, rule in enumerate(RULESET) if number != gap)

        refused(check())


class TestNotKnown:
    def test_without_a_token(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("GITHUB_TOKEN", raising=False)
        monkeypatch.delenv("GH_TOKEN", raising=False)

        refused(check(), "There is no token: set GITHUB_TOKEN")

    @pytest.mark.usefixtures("hosting")
    def test_with_a_token_that_is_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("GITHUB_TOKEN", "another")

        refused(check())


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
        written(tmp_path / "new", "production_owner=@example/owners")
        names = {name for _, line in owners(tmp_path / "new/.github/CODEOWNERS") for name in line}

        assert names == {"@example/owners"}
        assert OWNER not in text_of(tmp_path / "new")
