"""The images of the newest commit, built once for all tests that run them."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from scripts.lib.images.builders import find_builder

from support.images import Built
from support.services import ROOT


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Built]:
    """Every image is built, and has answered and stopped; further options of the build are in SENS_TEST_IMAGES_OPTIONS."""
    storage: Path = tmp_path_factory.mktemp("images")
    options = os.environ.get("SENS_TEST_IMAGES_OPTIONS", "").split()
    command = [str(ROOT / "scripts" / "build-images"), "--storage", str(storage), *options]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=1500)
    assert result.returncode == 0, result.stdout + result.stderr
    print(result.stdout)  # noqa: T201 - sizes and times, beside a failure or with -s
    name = options[options.index("--builder") + 1] if "--builder" in options else None
    yield Built(find_builder(name, storage), tuple(command))
    subprocess.run(["rm", "-rf", storage], check=True)
