"""Images that are really built and run; where SENS_TEST_IMAGES=1 alone."""

import contextlib
import os
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from tools.images.builders import Builder, Run
from tools.images.source import Commit
from tools.program import Program

needs_images: Final = [
    pytest.mark.skipif(
        os.environ.get("SENS_TEST_IMAGES") != "1",
        reason="not run: images are built where SENS_TEST_IMAGES=1 and docker, podman or buildah is there",
    ),
    pytest.mark.timeout(1800),
]


def understands_secrets(engine: str) -> bool:
    """Tell whether an engine's `build` takes secrets: docker's does with its plug-in buildx."""
    shown = subprocess.run([engine, "build", "--help"], capture_output=True, text=True, check=True)
    return "--secret" in shown.stdout


class Built(NamedTuple):
    """The built images.

    Attributes:
        builder: What built them, and runs them.
        command: The command that did.
    """

    builder: Builder
    command: tuple[str, ...]

    def reference(self, name: str) -> str:
        """Return the reference of an image."""
        return f"localhost/{name}:{Commit.read(None).product_version}"

    def run(self, name: str, log: Path, environment: Mapping[str, str], *command: str) -> str:
        """Run a command of an image to its end; return what it wrote."""
        with self.builder.start(Run(self.reference(name), environment, command=command), log) as process:
            code = process.wait(60)
        written = log.read_text(encoding="utf-8")
        assert code == 0, written
        return written

    @contextlib.contextmanager
    def service(
        self, name: str, log: Path, environment: Mapping[str, str], writable: tuple[str, ...] = ()
    ) -> Iterator[Program]:
        """Run an image as it is; it must still run when the context ends, and stop on SIGTERM."""
        with self.builder.start(Run(self.reference(name), environment, writable), log) as process:
            yield process
            assert process.exit_code is None, log.read_text(encoding="utf-8")
            process.ask_to_end()
            assert process.wait(30) == 0, log.read_text(encoding="utf-8")
