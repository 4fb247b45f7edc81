"""Every image, built and tried for real: what it holds is its lock and its own code. Runs where SENS_TEST_IMAGES=1."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name

from support.images import Built, needs_images
from support.services import ROOT
from tools.images.builders import Run
from tools.images.catalogue import IMAGES, PACKAGING_TOOLS, Image
from tools.repository_rules import pinned

pytestmark = needs_images

PROBED = ("/", "/app", "/tmp")  # noqa: S108 - inside of the image
# What a process sees of itself, and what it is told when it writes.
PROBE = """
import errno, json, os, sys
def refusal(folder):
    try:
        open(os.path.join(folder, "probe"), "w").close()
    except OSError as error:
        return errno.errorcode[error.errno]
print(json.dumps({
    "process": os.getpid(),
    "users": sorted({*os.getresuid()}),
    "groups": sorted({*os.getresgid(), *os.getgroups()}),
    "refusals": {folder: refusal(folder) for folder in sys.argv[1:]},
}))
"""


@pytest.fixture(params=IMAGES, ids=lambda image: image.name)
def image(request: pytest.FixtureRequest) -> Image:
    """One of the images."""
    chosen: Image = request.param
    return chosen


@pytest.fixture
def files(built: Built, image: Image) -> Iterator[Path]:
    """The image's files."""
    with built.builder.mounted(built.reference(image.name)) as folder:
        yield folder


class TestProcess:
    def test_is_number_1_without_rights_on_a_root_that_it_can_not_write(
        self, built: Built, image: Image, tmp_path: Path
    ) -> None:
        log = tmp_path / "log"
        with built.builder.start(
            Run(built.reference(image.name), {}, image.writable, ("python", "-c", PROBE, *PROBED)), log
        ) as process:
            assert process.wait(60) == 0, log.read_text()

        seen = json.loads(log.read_text())
        assert (seen["process"], seen["users"], seen["groups"]) == (1, [65532], [65532])
        assert seen["refusals"] == {folder: None if folder in image.writable else "EROFS" for folder in PROBED}


class TestContents:
    def test_are_the_lock_and_its_own_code(self, image: Image, files: Path) -> None:
        libraries = {
            canonicalize_name(path.name.split("-")[0])
            for path in (files / "app").glob("lib/python3*/site-packages/*.dist-info")
        }
        own = {path.name for path in (files / "app/code").iterdir() if not path.name.endswith(".dist-info")}
        programs = {path.name for path in (files / "app/code").glob("bin/*")}
        locked = pinned(ROOT / "requirements" / f"{image.folder}.txt").keys()

        assert own - {"bin"} == set(image.packages)
        assert programs == ({"sens"} if "sens_cli" in image.packages else set())
        assert libraries <= locked
        assert {"pydantic", "structlog", "uvloop"} <= libraries

    def test_have_no_packaging_tools(self, files: Path) -> None:
        found = [path for tool in PACKAGING_TOOLS for path in files.glob(f"usr/**/python3*/**/{tool}")]
        found += [path for tool in PACKAGING_TOOLS for path in files.glob(f"app/**/{tool}")]

        assert found == []

    def test_have_byte_code_without_times(self, files: Path) -> None:
        compiled = list((files / "app").rglob("*.pyc"))

        assert compiled
        assert {path.read_bytes()[4:8] for path in compiled} == {b"\x01\x00\x00\x00"}  # PEP 552: unchecked hash

    def test_are_a_site_in_the_image_of_the_documentation_alone(self, image: Image, files: Path) -> None:
        assert (files / "app/site/index.html").is_file() == (image.name == "docs")


class TestBuilding:
    def test_twice_gives_the_same_files(self, built: Built) -> None:
        # The documentation's image takes every stage of the Dockerfile; all five take five times as long.
        result = subprocess.run(
            [*built.command, "--image", "docs", "--no-trial", "--check-reproducible"],
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )

        assert result.returncode == 0, result.stdout + result.stderr
        assert "built twice, the same" in result.stdout
