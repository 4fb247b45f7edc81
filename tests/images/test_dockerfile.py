"""The Dockerfile: one image per service, from a fixed base, without root, shell or health check of its own."""

import re

import pytest

from support.services import IMAGES as SERVICES
from support.services import ROOT
from tools.images.__main__ import declared_base
from tools.images.catalogue import IMAGES, Image

TEXT = (ROOT / "Dockerfile").read_text(encoding="utf-8")


def stage(name: str) -> str:
    """Return the text of a stage."""
    match = re.search(rf"^FROM \S+ AS {re.escape(name)}$\n(.*?)(?=^FROM )", TEXT, re.MULTILINE | re.DOTALL)
    assert match is not None, name
    return match[1]


class TestBase:
    def test_is_a_stage_with_a_digest_that_an_argument_replaces(self) -> None:
        assert re.search(r"^ARG BASE=base$", TEXT, re.MULTILINE)
        base = declared_base(TEXT)
        assert base is not None
        assert re.fullmatch(r"docker\.io/library/python:3\.\d+-slim-\w+@sha256:[0-9a-f]{64}", base)
        assert set(re.findall(r"^FROM (\S+)", TEXT, re.MULTILINE)) == {base, "${BASE}", "tools", "runtime"}

    def test_of_a_dockerfile_from_before_is_left_to_it(self) -> None:
        assert declared_base("ARG BASE=docker.io/library/python:3\nFROM ${BASE} AS tools\n") is None


class TestNoTarget:
    def test_fails_and_names_every_image(self) -> None:
        last = TEXT[TEXT.rindex("\nFROM ") :]

        assert last.rstrip().endswith("exit 1")
        assert [image.name for image in IMAGES if image.name not in last] == []


class TestEveryImage:
    def test_belongs_to_a_service(self) -> None:
        assert {image.folder for image in IMAGES} == {service.name for service in SERVICES}

    @pytest.mark.parametrize("image", IMAGES, ids=lambda image: image.name)
    def test_starts_its_own_service_without_a_shell(self, image: Image) -> None:
        assert f'ENTRYPOINT ["python", "-m", "{image.packages[1]}"]' in stage(image.name)

    @pytest.mark.parametrize("image", IMAGES, ids=lambda image: image.name)
    def test_listens_on_all_addresses(self, image: Image) -> None:
        assert image.port_setting.replace("__PORT", "__HOST") + "=0.0.0.0" in stage(image.name)

    @pytest.mark.parametrize("image", IMAGES, ids=lambda image: image.name)
    def test_says_where_it_listens(self, image: Image) -> None:
        exposed = re.findall(r"^EXPOSE (.*)$", stage(image.name), re.MULTILINE)

        assert [sorted(map(int, line.split())) for line in exposed] == [
            sorted({image.port, *image.further_ports.values()})
        ]

    def test_has_a_stage_and_there_are_no_others(self) -> None:
        assert set(re.findall(r"^FROM runtime AS (\S+)$", TEXT, re.MULTILINE)) == {image.name for image in IMAGES}

    def test_whose_folder_has_another_name_is_found_by_its_own(self) -> None:
        others = [image for image in IMAGES if image.name != image.folder]

        assert others
        for image in others:
            assert f"ln -s {image.folder}.txt requirements/{image.name}.txt" in TEXT
            assert f"ln -s {image.folder} services/{image.name}" in TEXT

    @pytest.mark.parametrize("image", IMAGES, ids=lambda image: image.name)
    def test_holds_the_further_code_that_the_list_says(self, image: Image) -> None:
        found = re.findall(rf'\b{image.name}\) further="?([a-z -]+?)"? ;;', TEXT)

        assert found == [" ".join(image.folders[1:])] * bool(image.folders[1:])

    def test_runs_as_numbers_that_are_not_root(self) -> None:
        assert (
            set(re.findall(r"^USER (.*)$", TEXT, re.MULTILINE)) == {image.user for image in IMAGES} == {"65532:65532"}
        )

    def test_leaves_health_checks_to_the_cluster(self) -> None:
        assert "HEALTHCHECK" not in TEXT

    @pytest.mark.parametrize("label", ["version", "revision", "source", "created"])
    def test_says_what_it_is(self, label: str) -> None:
        assert f'org.opencontainers.image.{label}="${{{label.upper()}}}"' in stage("runtime")

    def test_knows_its_commit(self) -> None:
        assert "ENV SENS_PRODUCT_COMMIT=${REVISION}" in stage("runtime")


class TestInstallation:
    def test_takes_nothing_without_a_hash_and_compiles_nothing(self) -> None:
        fetching = [
            line for line in TEXT.replace("\\\n", " ").split("&&") if "install" in line and "requirements/" in line
        ]

        assert len(fetching) == 2
        for command in fetching:
            assert "--require-hashes --no-deps --only-binary :all:" in command

    def test_runs_no_package_manager(self) -> None:
        assert not re.search(r"\b(apt|apt-get|curl|wget)\b", TEXT)
