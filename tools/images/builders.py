"""The programs that build and run images: docker, podman, buildah."""

import contextlib
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple, Protocol, override

from tools.images.source import ImageError
from tools.program import Program


class Build(NamedTuple):
    """One build.

    Attributes:
        context: Folder with the Dockerfile.
        target: Stage to build.
        reference: Name and tag that the image gets.
        arguments: Values of the Dockerfile's ARGs.
        secrets: Files that are mounted while building, by name.
        epoch: Time that every new file and the image get, seconds since 1970.
        uncached: Whether every step is done again, whatever was kept of earlier builds.
    """

    context: Path
    target: str
    reference: str
    arguments: Mapping[str, str]
    secrets: Mapping[str, Path]
    epoch: int
    uncached: bool = False


class Run(NamedTuple):
    """A process from an image, on the host's network, with a read-only root and no rights.

    Attributes:
        reference: Image.
        environment: Added to the image's own variables.
        writable: Folders that it may write to.
        command: Instead of the image's entry point.
    """

    reference: str
    environment: Mapping[str, str]
    writable: Sequence[str] = ()
    command: Sequence[str] = ()


class Builder(Protocol):
    """A program that builds and runs images."""

    name: str

    def build(self, build: Build) -> None:
        """Build an image."""

    def load(self, archive: Path, reference: str) -> None:
        """Make an image of one layer from a tar archive of a root file system."""

    def exists(self, reference: str) -> bool:
        """Tell whether an image is there."""

    def remove(self, reference: str) -> None:
        """Forget an image."""

    def size_bytes(self, reference: str) -> int:
        """Return the size of an image with its base, unpacked."""

    def start(self, run: Run, log: Path) -> contextlib.AbstractContextManager[Program]:
        """Run an image; its output goes to a file."""

    def mounted(self, reference: str) -> contextlib.AbstractContextManager[Path]:
        """Give the image's files as a folder."""


class Engine:
    """docker and podman, whose commands are alike."""

    def __init__(self, name: str) -> None:
        self.name = name

    def build(self, build: Build) -> None:
        """Build an image."""
        times = ["--timestamp", str(build.epoch)] if self.name == "podman" else []
        run_program([self.name, "build", *times, *build_options(build)], DOCKER_BUILDKIT="1")

    def load(self, archive: Path, reference: str) -> None:
        """Make an image of one layer."""
        run_program([self.name, "import", str(archive), reference])

    def exists(self, reference: str) -> bool:
        """Tell whether an image is there."""
        return answers([self.name, "image", "inspect", reference])

    def remove(self, reference: str) -> None:
        """Forget an image."""
        run_program([self.name, "image", "rm", reference])

    def size_bytes(self, reference: str) -> int:
        """Return the size of an image with its base."""
        return int(run_program([self.name, "image", "inspect", "--format", "{{.Size}}", reference]))

    @contextlib.contextmanager
    def start(self, run: Run, log: Path) -> Iterator[Program]:
        """Run an image."""
        name = f"sens-trial-{secrets.token_hex(4)}"
        command = [self.name, "run", "--name", name, "--network", "host", "--read-only", "--cap-drop", "ALL"]
        command += ["--security-opt", "no-new-privileges"]
        for folder in run.writable:
            command += ["--tmpfs", folder]
        for variable, value in run.environment.items():
            command += ["--env", f"{variable}={value}"]
        if run.command:
            command += ["--entrypoint", run.command[0]]
        command += [run.reference, *run.command[1:]]
        end = [self.name, "kill", "--signal", "TERM", name]
        container = _Contained(run.reference, command, log, end=end)
        container.start()
        try:
            yield container
        finally:
            answers([self.name, "rm", "--force", name])
            container.stop(signal.SIGKILL)

    @contextlib.contextmanager
    def mounted(self, reference: str) -> Iterator[Path]:
        """Give a copy of the image's files."""
        name = f"sens-files-{secrets.token_hex(4)}"
        folder = Path(run_program(["mktemp", "--directory"]))
        try:
            run_program([self.name, "create", "--name", name, reference])
            run_program([self.name, "cp", f"{name}:/", str(folder)])
            yield folder
        finally:
            answers([self.name, "rm", "--force", name])
            shutil.rmtree(folder)


class _Contained(Program):
    """A container that an engine's command runs in the foreground, which ends with the container's exit code."""

    def __init__(self, name: str, command: Sequence[str], log: Path, *, end: Sequence[str]) -> None:
        super().__init__(name, command, log)
        self._end = end

    @override
    def ask_to_end(self) -> None:
        """Send SIGTERM to the container's process 1."""
        run_program(self._end)


class Buildah:
    """Buildah, which needs neither a service nor namespaces to build: for root in a plain container, too.

    Args:
        storage: Folder of the images; None for the machine's own.
    """

    name = "buildah"

    def __init__(self, storage: Path | None) -> None:
        self._program: Final = ["buildah"]
        # Else buildah takes overlay where it works, and vfs, which is several times slower, where it does not.
        if driver := os.environ.get("STORAGE_DRIVER"):
            self._program.extend(["--storage-driver", driver])
        if storage is not None:
            self._program.extend(["--root", str(storage / "images"), "--runroot", str(storage / "run")])
        # The plainest way, which works everywhere; who sets another one has a reason.
        self._isolation = os.environ.get("BUILDAH_ISOLATION", "chroot")

    def build(self, build: Build) -> None:
        """Build an image."""
        options = ["--isolation", self._isolation, "--layers", "--timestamp", str(build.epoch)]
        run_program([*self._program, "build", *options, *build_options(build)])

    def load(self, archive: Path, reference: str) -> None:
        """Make an image of one layer."""
        container = run_program([*self._program, "from", "scratch"])
        try:
            run_program([*self._program, "add", "--quiet", container, str(archive), "/"])
            run_program([*self._program, "commit", "--quiet", container, reference])
        finally:
            run_program([*self._program, "rm", container])

    def exists(self, reference: str) -> bool:
        """Tell whether an image is there."""
        return answers([*self._program, "inspect", "--type", "image", reference])

    def remove(self, reference: str) -> None:
        """Forget an image."""
        run_program([*self._program, "rmi", reference])

    def size_bytes(self, reference: str) -> int:
        """Return the size of an image with its base."""
        with self.mounted(reference) as root:
            return sum(path.lstat().st_size for path in root.rglob("*") if not path.is_dir())

    @contextlib.contextmanager
    def start(self, run: Run, log: Path) -> Iterator[Program]:
        """Run an image."""
        inspected = json.loads(run_program([*self._program, "inspect", "--type", "image", run.reference]))
        config = inspected["OCIv1"]["config"]
        user, group = numeric_user(config.get("User", ""))
        with self.mounted(run.reference) as root:
            wanted = {
                "root": str(root),
                "writable": list(run.writable),
                "user": user,
                "group": group,
                "workdir": config.get("WorkingDir") or "/",
                "environment": dict(entry.split("=", 1) for entry in config["Env"]) | dict(run.environment),
                "command": list(run.command) or config["Entrypoint"] + config.get("Cmd", []),
            }
            enter = Path(__file__).with_name("enter.py")
            command = ["unshare", "--mount", "--pid", "--fork", "--kill-child", sys.executable, str(enter)]
            process = _Unshared(run.reference, [*command, json.dumps(wanted)], log)
            process.start()
            try:
                yield process
            finally:
                process.stop(signal.SIGKILL)

    @contextlib.contextmanager
    def mounted(self, reference: str) -> Iterator[Path]:
        """Give the image's files."""
        container = run_program([*self._program, "from", "--pull-never", reference])
        try:
            yield Path(run_program([*self._program, "mount", container]))
        finally:
            run_program([*self._program, "rm", container])


class _Unshared(Program):
    """A command of `unshare`, whose child is process 1 of its namespace."""

    @override
    def ask_to_end(self) -> None:
        """Send SIGTERM to that child."""
        if self.process is not None:
            number = self.process.pid  # psutil, which tells children, is not there where images are built
            for child in Path(f"/proc/{number}/task/{number}/children").read_text(encoding="ascii").split():
                os.kill(int(child), signal.SIGTERM)


# docker takes secrets in a build only with its plug-in buildx.
_CHECKS: Final = {
    "docker": (["docker", "version"], ["docker", "buildx", "version"]),
    "podman": (["podman", "version"],),
    "buildah": (["buildah", "version"],),
}


def _listed(checks: Sequence[Sequence[str]]) -> str:
    return ", ".join(f"'{' '.join(check)}'" for check in checks)


def find_builder(wanted: str | None, storage: Path | None) -> Builder:
    """Return the builder that is wanted, or the first one that works.

    Raises:
        ImageError: None does.
    """
    for name, checks in _CHECKS.items():
        if wanted in {None, name} and shutil.which(name) and all(answers(check) for check in checks):
            return Buildah(storage) if name == "buildah" else Engine(name)
    if wanted:
        raise ImageError(f"{wanted} is missing, or one of these fails: {_listed(_CHECKS[wanted])}.")
    raise ImageError(
        "Building images takes docker (with buildx, and its service running), podman or buildah: install one of them."
    )


def build_options(build: Build) -> list[str]:
    """Return the options and the context that every builder takes."""
    options = ["--target", build.target, "--tag", build.reference, *(["--no-cache"] if build.uncached else [])]
    for name, value in build.arguments.items():
        options += ["--build-arg", f"{name}={value}"]
    for name, file in build.secrets.items():
        options += ["--secret", f"id={name},src={file}"]
    return [*options, str(build.context)]


def numeric_user(user: str) -> tuple[int, int]:
    """Return the numbers of an image's user and group.

    Raises:
        ImageError: They are not numbers, or the user is root: Kubernetes could not tell that it is not.
    """
    match = re.fullmatch(r"([1-9][0-9]*):([1-9][0-9]*)", user)
    if match is None:
        raise ImageError(f"the image's user is {user!r}; it must be two numbers other than 0, as 65532:65532.")
    return int(match[1]), int(match[2])


def answers(command: Sequence[str]) -> bool:
    """Tell whether a command succeeds."""
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False).returncode == 0


def run_program(command: Sequence[str], **environment: str) -> str:
    """Run a command and return what it wrote, without surrounding white space.

    Raises:
        ImageError: It failed; the end of what it wrote follows.
    """
    result = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        env=os.environ | environment,
    )
    if result.returncode != 0:
        written = (result.stdout + result.stderr).strip().splitlines()[-40:]
        raise ImageError(
            "\n".join([f"'{' '.join(command[:3])} …' failed with exit code {result.returncode}:", *written])
        )
    return result.stdout.strip()
