"""scripts/vulnerabilities, against a database that speaks OSV's protocol."""

import json
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.http_server import Answer, Asked, serving
from support.release import Said, call, refused
from support.services import ROOT
from tools.vulnerabilities.__main__ import main
from tools.vulnerabilities.locks import locked, read_accepted

ENTRY = {
    "id": "GHSA-aaaa-bbbb-cccc",
    "aliases": ["CVE-2026-1234"],
    "summary": "A header\nof a stranger is trusted",
    "affected": [
        {"package": {"ecosystem": "PyPI", "name": "Some-Library"}, "ranges": [
            {"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "1.2.4"}]},
            {"type": "GIT", "events": [{"introduced": "0"}, {"fixed": "0123abc"}]},
        ]},
        {"package": {"ecosystem": "npm", "name": "some-library"}, "ranges": [
            {"type": "SEMVER", "events": [{"introduced": "0"}, {"fixed": "9.9.9"}]},
        ]},
    ],
}  # fmt: skip


@dataclass
class Osv:
    """The database.

    Attributes:
        address: Where it listens.
        vulnerable: The entries of a name and version.
        entries: By their id.
        answer: Takes the place of the right answer.
        queries: What it was asked about.
    """

    address: str = ""
    vulnerable: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    entries: dict[str, Mapping[str, object]] = field(default_factory=dict)
    answer: Callable[[str], Answer | None] = lambda _path: None
    queries: list[tuple[str, str]] = field(default_factory=list)

    def said(self, asked: Asked) -> Answer:
        if instead := self.answer(asked.target):
            return instead
        if asked.method == "GET":
            return Answer(200, self.entries[asked.target.removeprefix("/v1/vulns/")])
        assert asked.target == "/v1/querybatch"
        return Answer(200, {"results": [self.query(one) for one in json.loads(asked.body)["queries"]]})

    def query(self, one: Mapping[str, Any]) -> Mapping[str, object]:
        assert one["package"]["ecosystem"] == "PyPI"
        key = one["package"]["name"], one["version"]
        self.queries.append(key)
        found = self.vulnerable.get(key, [])
        # One entry a page.
        number = int(one.get("page_token", "0"))
        if number >= len(found):
            return {}
        page: dict[str, object] = {"vulns": [{"id": found[number], "modified": "2026-01-01T00:00:00Z"}]}
        return page | ({"next_page_token": str(number + 1)} if number + 1 < len(found) else {})


@pytest.fixture
def osv() -> Iterator[Osv]:
    state = Osv()
    with serving(state.said) as host:
        state.address = f"http://{host}"
        yield state


@pytest.fixture
def locks(tmp_path: Path) -> Path:
    folder = tmp_path / "requirements"
    folder.mkdir()
    hashed = "{} \\\n    --hash=sha256:" + "a" * 64 + "\n"
    (folder / "api.txt").write_text(
        hashed.format("some-library==1.2.3") + hashed.format("other==2.0 ; os_name == 'nt'")
    )
    (folder / "dev.txt").write_text(hashed.format("Some_Library==1.2.3"))
    (folder / "accepted-vulnerabilities.toml").write_text("")
    return folder


def accept(locks: Path, name: str, *, days: int) -> None:
    until = datetime.now(UTC).date() + timedelta(days=days)
    text = f'[[accepted]]\nid = "{name}"\nreason = "nobody calls it"\nuntil = {until}\n'
    (locks / "accepted-vulnerabilities.toml").write_text(text)


def look(osv: Osv, locks: Path, *more: str) -> Said:
    return call(main, f"--folder={locks}", f"--address={osv.address}", *more)


def passed(said: Said, text: str) -> None:
    """See that nothing is refused, and this is said."""
    assert said.code == 0
    assert text in said


@pytest.fixture
def vulnerability(osv: Osv) -> Osv:
    osv.vulnerable["some-library", "1.2.3"] = [str(ENTRY["id"])]
    osv.entries[str(ENTRY["id"])] = ENTRY
    return osv


class TestWhatIsLookedAt:
    def test_is_each_version_once(self, osv: Osv, locks: Path) -> None:
        assert look(osv, locks) == "2 versions of libraries, 0 known vulnerabilities, 0 of them not accepted.\n"
        assert sorted(osv.queries) == [("other", "2.0"), ("some-library", "1.2.3")]

    def test_is_every_lock_of_this_repository(self) -> None:
        files = sorted((ROOT / "requirements").glob("*.txt"))
        packages = locked(files)

        assert {name for names in packages.values() for name in names} == {file.stem for file in files}
        assert len(packages) > 50
        assert read_accepted(ROOT / "requirements/accepted-vulnerabilities.toml") == []

    def test_is_never_a_file_that_locks_nothing(self, osv: Osv, locks: Path) -> None:
        (locks / "empty.txt").write_text("# nothing\n")

        refused(look(osv, locks), "empty.txt locks nothing")


class TestAVulnerability:
    def test_fails_and_says_where_it_is_and_what_repairs_it(self, vulnerability: Osv, locks: Path) -> None:
        assert refused(look(vulnerability, locks)).splitlines() == [
            "some-library 1.2.3: GHSA-aaaa-bbbb-cccc (CVE-2026-1234): A header of a stranger is trusted",
            "    locked in api, dev; repaired in 1.2.4",
            "2 versions of libraries, 1 known vulnerabilities, 1 of them not accepted.",
        ]

    def test_on_a_later_page_is_found_too(self, vulnerability: Osv, locks: Path) -> None:
        vulnerability.vulnerable["some-library", "1.2.3"].append("PYSEC-2026-7")
        vulnerability.entries["PYSEC-2026-7"] = {"id": "PYSEC-2026-7", "details": "More"}

        said = "some-library 1.2.3: PYSEC-2026-7: More\n    locked in api, dev; no version repairs it yet\n"
        refused(look(vulnerability, locks), said)

    def test_that_was_withdrawn_is_none(self, vulnerability: Osv, locks: Path) -> None:
        vulnerability.entries[str(ENTRY["id"])] = ENTRY | {"withdrawn": "2026-02-01T00:00:00Z"}

        assert look(vulnerability, locks).code == 0

    @pytest.mark.parametrize("name", ["GHSA-aaaa-bbbb-cccc", "CVE-2026-1234"])
    def test_that_is_accepted_passes_and_is_shown(self, vulnerability: Osv, locks: Path, name: str) -> None:
        accept(locks, name, days=0)

        passed(look(vulnerability, locks), ": nobody calls it")

    def test_fails_again_when_its_time_is_over(self, vulnerability: Osv, locks: Path) -> None:
        accept(locks, "CVE-2026-1234", days=-1)

        refused(look(vulnerability, locks), "WAS ACCEPTED ONLY UNTIL")

    def test_that_is_gone_is_told_from_what_is_accepted(self, osv: Osv, locks: Path) -> None:
        accept(locks, "CVE-2026-1234", days=9)

        passed(look(osv, locks), "CVE-2026-1234 is accepted and no longer there")

    @pytest.mark.parametrize(
        "text",
        [
            "accepted",
            '[[accepted]]\nid = "x"\n',
            '[[accepted]]\nid = "x"\nreason = " "\nuntil = 2030-01-01\n',
            '[[accepted]]\nid = "x"\nreason = "y"\nuntil = "soon"\n',
            '[[accepted]]\nid = "x"\nreason = "y"\nuntil = 2030-01-01\nmore = 1\n',
        ],
    )
    def test_is_accepted_with_reason_and_day_alone(self, vulnerability: Osv, locks: Path, text: str) -> None:
        (locks / "accepted-vulnerabilities.toml").write_text(text)

        refused(look(vulnerability, locks), "accepted-vulnerabilities.toml: ")


class TestADatabaseThatDoesNotAnswer:
    @pytest.mark.parametrize(
        ("path", "status", "body", "why"),
        [
            *(
                (path, *case)
                for path in ("/v1/querybatch", "/v1/vulns/GHSA-aaaa-bbbb-cccc")
                for case in (
                    (503, b"", "answered 503 Service Unavailable"),
                    (403, b"proxy", "answered 403 Forbidden"),
                    (200, b"<html>", "answered no JSON"),
                    (200, b"[]", "answered no JSON object"),
                )
            ),
            ("/v1/querybatch", 200, b"{}", "something else than one result for each package"),
            ("/v1/querybatch", 200, b'{"results": []}', "something else than one result for each package"),
        ],
    )
    def test_is_told_and_nothing_counts_as_looked_at(  # noqa: PLR0917 - two parameters and fixtures
        self,
        vulnerability: Osv,
        locks: Path,
        path: str,
        status: int,
        body: bytes,
        why: str,
    ) -> None:
        vulnerability.answer = lambda asked: Answer(status, body) if asked == path else None

        said = look(vulnerability, locks)
        passed(said, why)
        assert said.startswith("not run: ")
        assert "known vulnerabilities" not in said

        assert look(vulnerability, locks, "--must-run").code == 2

    def test_because_nobody_listens(self, locks: Path) -> None:
        passed(look(Osv("http://127.0.0.1:1"), locks), "not run: http://127.0.0.1:1 can't be reached: ")


def test_the_script_needs_python_alone(tmp_path: Path) -> None:
    done = subprocess.run(
        [ROOT / "scripts/vulnerabilities", "--address=http://127.0.0.1:1"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("not run: ")


class TestProposals:
    def test_are_made_for_actions_locks_and_the_images_base(self) -> None:
        configuration = yaml.safe_load((ROOT / ".github/dependabot.yml").read_text(encoding="utf-8"))
        watched: dict[str, list[str]] = {}
        for each in configuration["updates"]:
            watched[each["package-ecosystem"]] = each.get("directories") or [each["directory"]]

        assert watched.keys() == {"github-actions", "pip", "docker"}
        (locks,), (image,) = watched["pip"], watched["docker"]
        assert len(list((ROOT / locks.strip("/")).glob("*.txt"))) > 5
        assert (ROOT / image.strip("/") / "Dockerfile").is_file()
        assert "/infra/gitops/template/.github/workflows" in watched["github-actions"]
