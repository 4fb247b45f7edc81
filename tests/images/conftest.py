"""The images of the newest commit, built once for all tests that run them."""

import os
import shutil
import subprocess
from collections.abc import Iterator

import pytest

from support.images import Built
from support.services import ROOT
from tools.images.__main__ import parse
from tools.images.builders import find_builder


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Built]:
    """Every image is built, and has answered and stopped; further options of the build are in SENS_TEST_IMAGES_OPTIONS."""
    storage = tmp_path_factory.mktemp("images")
    # Of an option that is given twice, the later one holds.
    arguments = ["--storage", str(storage), *os.environ.get("SENS_TEST_IMAGES_OPTIONS", "").split()]
    command = [str(ROOT / "scripts" / "build-images"), *arguments]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=1500)
    assert result.returncode == 0, result.stdout + result.stderr
    print(result.stdout)  # noqa: T201 - sizes and times, beside a failure or with -s
    options = parse(arguments)
    yield Built(find_builder(options.builder, options.storage), tuple(command))
    shutil.rmtree(storage)
