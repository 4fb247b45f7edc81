"""scripts/store-digests: the digests of the stores' images, looked up in a registry and written beside their tags."""

import shutil
from pathlib import Path

import pytest

from support.gitops import text_of, values_of
from support.registry import SmallRegistry, upload
from support.release import call, refused
from tools.release import store_digests

ENVIRONMENTS = ("test", "production")
LABELS: dict[str, dict[str, str]] = {"linux/amd64": {}, "linux/arm64": {}}


@pytest.fixture
def folder(gitops: Path, tmp_path: Path) -> Path:
    """A GitOps repository of its own, as it is written."""
    shutil.copytree(gitops, tmp_path / "gitops")
    return tmp_path / "gitops"


@pytest.fixture
def digests(small_registry: SmallRegistry, folder: Path) -> dict[str, str]:
    """What the tags of the values stand for."""
    small_registry.public = True
    found = values_of(folder, "test")
    return {
        key: upload(small_registry, f"{where}/{image}", found[key]["image"]["tag"], LABELS)
        for key, where, image in store_digests.STORES
    }


class TestLookingUp:
    def test_prints_and_changes_nothing(
        self, small_registry: SmallRegistry, folder: Path, digests: dict[str, str]
    ) -> None:
        before = text_of(folder / "environments")

        said = call(store_digests.main, f"--folder={folder}", f"--host={small_registry.host}")

        assert said.code == 0
        tag = values_of(folder, "test")["nats"]["image"]["tag"]
        lines = said.splitlines()
        assert (lines[0], len(lines)) == (f"test: docker.io/library/nats:{tag} is {digests['nats']}: has none", 4)
        assert text_of(folder / "environments") == before

    def test_writes_the_digests_and_nothing_else(
        self, small_registry: SmallRegistry, folder: Path, digests: dict[str, str]
    ) -> None:
        before = {name: values_of(folder, name) for name in ENVIRONMENTS}

        said = call(store_digests.main, f"--folder={folder}", f"--host={small_registry.host}", "--write")

        assert said.code == 0
        assert said.count(": written") == 4
        for name in ENVIRONMENTS:
            for key, digest in digests.items():
                before[name][key]["image"]["digest"] = digest
            assert values_of(folder, name) == before[name]
        again = call(store_digests.main, f"--folder={folder}", f"--host={small_registry.host}")
        assert again.count(": has it") == 4

    @pytest.mark.usefixtures("digests")
    def test_of_a_tag_that_is_not_there_writes_nothing(self, small_registry: SmallRegistry, folder: Path) -> None:
        file = folder / "environments/production/values.yaml"
        tag = values_of(folder, "production")["database"]["image"]["tag"]
        file.write_text(file.read_text(encoding="utf-8").replace(tag, "0.0.1"), encoding="utf-8")

        said = call(store_digests.main, f"--folder={folder}", f"--host={small_registry.host}", "--write")

        refused(said, "timescale/timescaledb has no tag 0.0.1")
        assert values_of(folder, "test")["nats"]["image"]["digest"] == ""

    @pytest.mark.parametrize("before", ["  image:\n    tag", "    digest: "])
    def test_names_a_file_that_was_written_in_another_way(self, folder: Path, before: str) -> None:
        file = folder / "environments/test/values.yaml"
        file.write_text(file.read_text(encoding="utf-8").replace(before, f"{before}# "), encoding="utf-8")

        text = "environments/test/values.yaml does not name the image of nats as it is read here"
        refused(call(store_digests.main, f"--folder={folder}", "--host=127.0.0.1:1"), text)

    def test_tells_when_nobody_answers(self, folder: Path) -> None:
        refused(call(store_digests.main, f"--folder={folder}", "--host=127.0.0.1:1"), "got no answer")


def test_the_stores_are_those_that_the_policies_let_in(gitops: Path) -> None:
    for name in ENVIRONMENTS:
        policy = (gitops / f"bootstrap/policies/sens-{name}.yaml").read_text(encoding="utf-8")
        for store in store_digests.STORES:
            assert f"'docker.io/{store.folder}/{store.image}'" in policy
