"""The documentation is complete in itself: it builds, and its pages load nothing from other servers."""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest

from sens_common.dead_letters import Reason
from support.services import ROOT
from tools.reference.reasons import HELP

LOADS = {"script": "src", "link": "href", "img": "src", "iframe": "src", "source": "src", "object": "data"}
NOT_LOADED = {"canonical", "prev", "next", "alternate"}


class _Loaded(HTMLParser):
    """Collects the addresses of what a browser loads with a page."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        address = attributes.get(LOADS.get(tag, ""))
        if address and attributes.get("rel") not in NOT_LOADED:
            self.addresses.append(address)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The built site."""
    folder = tmp_path_factory.mktemp("documentation")
    shutil.copy(ROOT / "zensical.toml", folder)
    shutil.copytree(ROOT / "docs", folder / "docs")
    result = subprocess.run(
        [sys.executable, "-m", "zensical", "build", "--strict"], cwd=folder, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    yield folder / "site"
    shutil.rmtree(folder)


class TestSite:
    def test_has_a_page_for_every_source(self, site: Path) -> None:
        for source in (ROOT / "docs").rglob("*.md"):
            name = source.relative_to(ROOT / "docs").with_suffix("")
            page = site / (name.parent if name.name == "index" else name) / "index.html"
            assert page.is_file(), source

    def test_loads_nothing_from_other_servers(self, site: Path) -> None:
        pages = list(site.rglob("*.html"))
        foreign = {}
        for page in pages:
            parser = _Loaded()
            parser.feed(page.read_text(encoding="utf-8"))
            assert parser.addresses, page
            foreign[page.name] = [address for address in parser.addresses if "//" in address]

        assert len(pages) > 1
        assert {page: addresses for page, addresses in foreign.items() if addresses} == {}

    def test_can_be_searched(self, site: Path) -> None:
        assert "conflicting_value" in (site / "search.json").read_text(encoding="utf-8")


class TestLimitsOfThisInstallation:
    """What must be done before real customer data: each line leads to the page that does it, or is marked open."""

    def rows(self, heading: str) -> list[list[str]]:
        text = (ROOT / "docs/operations/limits.md").read_text(encoding="utf-8")
        _, _, section = text.partition(f"\n## {heading}\n")
        lines = [line for line in section.partition("\n## ")[0].splitlines() if line.startswith("|")]
        return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]

    def test_say_where_each_thing_is_done_or_that_it_is_open(self) -> None:
        rows = self.rows("Before real customer data")
        assert len(rows) > 20
        for what, where in rows:
            assert "](" in where or "**open**" in where or "`sens verify" in where, what

    def test_say_that_there_is_one_node_and_no_high_availability(self) -> None:
        assert "One node, no high availability" in [limit for limit, _ in self.rows("What one server can't do")]


class TestReasonsOfDeadLetters:
    def test_each_has_its_row_with_an_example_and_what_helps(self) -> None:
        text = (ROOT / "docs/reference/dead-letter-reasons.md").read_text(encoding="utf-8")
        rows = {line.split("`")[1]: line for line in text.splitlines() if line.startswith("| `")}

        assert set(rows) == set(HELP) == set(Reason)
        for reason, row in rows.items():
            assert HELP[Reason(reason)].example in row
            assert HELP[Reason(reason)].remedy in row


class TestMapOfTheCode:
    def test_names_only_files_that_are_there(self) -> None:
        text = (ROOT / "docs/contributing/map.md").read_text(encoding="utf-8")
        tables = text.split("## How a message goes")[0]
        tops = {path.name for path in ROOT.iterdir()}
        named = [name for name in re.findall(r"`([\w./-]+)`", tables) if name.split("/")[0] in tops]

        missing = [name for name in named if not (ROOT / name).exists()]

        assert len(named) > 40
        assert missing == []

    def test_names_every_folder_of_services_and_tools(self) -> None:
        text = (ROOT / "docs/contributing/map.md").read_text(encoding="utf-8")
        services = [path.parent.name for path in (ROOT / "services").glob("*/pyproject.toml")]

        assert [name for name in services if f"services/{name}/" not in text] == []
