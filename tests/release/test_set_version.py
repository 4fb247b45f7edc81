"""scripts/set-version writes the root version in all places, and scripts/version-check names the place that disagrees."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sens_cli.release.versions import ReleaseError, Version
from support.git import Repository
from support.release import Said, call, refused
from support.services import ROOT
from tools.release import check_root_version, set_version
from tools.release.version_lines import FOLLOWERS, ROOT_LINE, check_version_lines, write_version, written

CHART: Final = "infra/helm/sens-platform/Chart.yaml"
DOCUMENT: Final = ROOT / "docs/operations/versions.md"
FILES: Final = sorted({ROOT_LINE.path, *(line.path for line in FOLLOWERS)})


def copied(folder: Path) -> Path:
    """Copy the repository's own files that have the version."""
    for name in FILES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    return folder


def replace(folder: Path, name: str, before: str, after: str) -> None:
    text = (folder / name).read_text(encoding="utf-8")
    assert before in text
    (folder / name).write_text(text.replace(before, after), encoding="utf-8")


@pytest.fixture
def product(tmp_path: Path) -> Path:
    folder = copied(tmp_path / "product")
    write_version(folder, Version(1, 5, 2))
    return folder


def set_to(version: str, product: Path) -> Said:
    return call(set_version.main, version, f"--folder={product}")


class TestSetVersion:
    def test_changes_all_lines_and_nothing_else(self, product: Path) -> None:
        before = {name: (product / name).read_text(encoding="utf-8").splitlines() for name in FILES}

        said = set_to("1.6.0", product)

        assert said.code == 0
        assert f"$ scripts/set-version 1.6.0\n{said}```" in DOCUMENT.read_text(encoding="utf-8")
        assert said.splitlines() == [
            "pyproject.toml: version 1.5.2 -> 1.6.0",
            f"{CHART}: version 1.5.2 -> 1.6.0",
            f"{CHART}: appVersion 1.5.2 -> 1.6.0",
        ]
        after = {name: (product / name).read_text(encoding="utf-8").splitlines() for name in FILES}
        pairs = [pair for name in FILES for pair in zip(before[name], after[name], strict=True)]
        assert sorted((old, new) for old, new in pairs if old != new) == [
            ("appVersion: 1.5.2", "appVersion: 1.6.0"),
            ('version = "1.5.2"', 'version = "1.6.0"'),
            ("version: 1.5.2", "version: 1.6.0"),
        ]

    @pytest.mark.parametrize(("step", "version"), [("patch", "1.5.3"), ("minor", "1.6.0"), ("major", "2.0.0")])
    def test_takes_the_next_of_a_kind(self, product: Path, step: str, version: str) -> None:
        assert set_to(step, product).code == 0

        check_version_lines(product, Version.parse(version))

    def test_may_be_run_again(self, product: Path) -> None:
        said = set_to("1.5.2", product)

        assert (said, said.code) == ("All places say 1.5.2 already.\n", 0)

    @pytest.mark.parametrize("version", ["v1.6.0", "1.6", "1.6.0-rc.1", "1.6.0+build", "latest", "", "1.6.0\n"])
    def test_refuses_what_is_no_root_version(self, product: Path, version: str) -> None:
        refused(set_to(version, product), "scripts/set-version: The root version")

        check_version_lines(product, Version(1, 5, 2))

    @pytest.mark.parametrize(
        ("before", "after", "said"),
        [
            ("\nappVersion: 1.5.2\n", "\n", "has 0 lines with the appVersion, and must have one"),
            ("\nversion: 1.5.2\n", "\nversion: 1.5.2\nversion: 1.5.2\n", "has 2 lines with the version"),
        ],
    )
    def test_writes_nothing_when_a_line_is_not_as_expected(
        self, product: Path, before: str, after: str, said: str
    ) -> None:
        replace(product, CHART, before, after)

        refused(set_to("1.6.0", product), said)
        assert written(product, ROOT_LINE) == "1.5.2"

    def test_names_a_file_that_is_missing(self, product: Path) -> None:
        (product / CHART).unlink()

        refused(set_to("1.6.0", product), f"{product / CHART} can't be read: No such file or directory")

    def test_needs_python_alone_and_takes_the_folder_as_seen_from_the_caller(self, product: Path) -> None:
        done = subprocess.run(
            [ROOT / "scripts/set-version", "1.6.0", f"--folder={product.name}"],
            cwd=product.parent,
            env={"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/")},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

        assert (done.returncode, done.stderr) == (0, "")
        check_version_lines(product, Version(1, 6, 0))

    @given(
        st.sampled_from(["\n", "\r\n"]),
        st.tuples(st.integers(0, 999), st.integers(0, 999), st.integers(0, 999)),
        st.sampled_from(['version: "{}"', "version: {}", "version:   {} # a remark"]),
    )
    def test_keeps_quotes_remarks_and_ends_of_lines(
        self, tmp_path_factory: pytest.TempPathFactory, end: str, numbers: tuple[int, int, int], line: str
    ) -> None:
        folder = tmp_path_factory.mktemp("product")
        chart = f"apiVersion: v2\n{line}\nappVersion: {{}}\ndependencies:\n  - version: 9.9.9\n"
        root = '[project]\nname = "x"\nversion = "{}"\n\n[tool.other]\nversion = "9.9.9"\n'
        for name, text in ((ROOT_LINE.path, root), (CHART, chart)):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(text.replace("{}", "1.5.2").replace("\n", end).encode())
        version = Version(*numbers)

        write_version(folder, version)

        for name, text in ((ROOT_LINE.path, root), (CHART, chart)):
            assert (folder / name).read_bytes() == text.replace("{}", str(version)).replace("\n", end).encode()


@pytest.mark.usefixtures("isolated_git")
class TestVersionCheck:
    def check(self, product: Path) -> Said:
        return call(check_root_version.main, f"--folder={product}")

    @pytest.fixture
    def committed(self, product: Path) -> Path:
        Repository.create(product).commit("Begin")
        return product

    def test_takes_a_version_that_all_files_have(self, committed: Path) -> None:
        assert set_to("minor", committed).code == 0

        assert self.check(committed).code == 0

    @pytest.mark.parametrize(
        ("name", "before", "after", "said"),
        [
            (CHART, "\nversion: 1.5.2", "\nversion: 1.5.1", ["has the version 1.5.1, and the root version is 1.5.2."]),
            (
                CHART,
                "\nappVersion: 1.5.2",
                "\nappVersion: 1.5.3",
                ["has the appVersion 1.5.3, and the root version is 1.5.2."],
            ),
            (
                "pyproject.toml",
                'version = "1.5.2"',
                'version = "1.6.0"',
                [f"has the {key} 1.5.2, and the root version is 1.6.0." for key in ("version", "appVersion")],
            ),
            (CHART, "\nappVersion: 1.5.2", "\nappVersion:", ["has the appVersion (nothing), and"]),
        ],
    )
    def test_names_each_file_that_disagrees_and_the_command_that_mends_it(
        self, committed: Path, name: str, before: str, after: str, said: list[str]
    ) -> None:
        replace(committed, name, before, after)

        told = refused(self.check(committed), *(f"{CHART} {sentence}" for sentence in said))

        assert told.count(" and the root version is ") == len(said)
        command = told.partition("'scripts/")[2].partition("'")[0].split()
        assert command[0] == "set-version"
        assert set_to(command[1], committed).code == 0
        assert self.check(committed).code == 0

    def test_of_this_repository_finds_no_disagreement(self) -> None:
        check_version_lines(ROOT, Version.parse(written(ROOT, ROOT_LINE)))


def test_no_other_file_has_the_version_of_the_product_as_its_own() -> None:
    """A file that declares a version of its own is either a place, or follows the root's (``[tool.hatch.version]``)."""
    for file in sorted((ROOT / "services").glob("*/pyproject.toml")):
        text = file.read_text(encoding="utf-8")
        assert 'dynamic = ["version"]' in text, file
        assert 'path = "../../pyproject.toml"' in text, file


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    folder = copied(tmp_path)
    (folder / CHART).write_bytes(b"version: \xff\n")

    with pytest.raises(ReleaseError, match="is not UTF-8"):
        check_version_lines(folder, Version(1, 0, 0))
