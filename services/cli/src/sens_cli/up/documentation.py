"""Builds the documentation into the data folder, when its sources changed since the last time."""

import asyncio
import contextlib
import hashlib
import shutil
from pathlib import Path
from typing import Final

from sens_cli.up.account import OURSELVES, Children
from sens_cli.up.components import module
from sens_cli.up.process import end_with_parent, last_line

CONFIGURATION: Final = "zensical.toml"
_BUILD_SECONDS: Final = 60
_STAMP: Final = "site.stamp"


def sources(root: Path) -> list[Path]:
    """Return the files the documentation is made of, sorted; empty when there is none."""
    if not (root / CONFIGURATION).is_file() or not (root / "docs").is_dir():
        return []
    files = [path for path in (root / "docs").rglob("*") if path.is_file()]
    return [root / CONFIGURATION, *sorted(files)]


def fingerprint(root: Path, files: list[Path]) -> str:
    """Return a hash of the files' names and contents."""
    digest = hashlib.sha256()
    for file in files:
        content = file.read_bytes()
        digest.update(f"{file.relative_to(root)}\0{len(content)}\0".encode("utf-8", "surrogateescape"))
        digest.update(content)
    return digest.hexdigest()


async def build(root: Path | None, site: Path, *, log: Path, children: Children = OURSELVES) -> str:
    """Build the documentation of a checkout into the folder ``site``; return what people are told.

    Zensical writes below its configuration only, so it works on a copy; the finished site replaces the old one at once. Whatever
    goes wrong, the platform does without: the text says what.
    """
    files = sources(root) if root is not None else []
    if root is None or not files:
        return "no documentation here (docs/ or zensical.toml is missing): the site stays empty"
    try:
        return await _build(root, files, site, log, children)
    except TimeoutError:
        return f"the documentation can't be built: not done within {_BUILD_SECONDS} s (see {log})"
    except OSError as error:
        return f"the documentation can't be built: {error.strerror} ({error.filename})"


async def _build(root: Path, files: list[Path], site: Path, log: Path, children: Children) -> str:
    wanted = await asyncio.to_thread(fingerprint, root, files)
    if _stamp(site) == wanted:
        return "unchanged"
    workshop = site.with_name("site.new")
    await asyncio.to_thread(_copy, root, workshop)
    children.give(workshop)
    code = await _run(children.command([*module("zensical"), "build", "--clean"]), workshop, log)
    if code != 0:
        return f"the documentation can't be built: {last_line(log) or f'zensical ended with code {code}'} (see {log})"
    if not _exchange(workshop, site, wanted):
        return "the documentation can't be built: docs/ has no index page"
    return "built"


def _stamp(site: Path) -> str | None:
    """Return the fingerprint of what the site was built from, None when there is no site."""
    try:
        return site.with_name(_STAMP).read_text(encoding="ascii") if site.is_dir() else None
    except FileNotFoundError:
        return None


def _exchange(workshop: Path, site: Path, fingerprint_of_sources: str) -> bool:
    """Put the built site in the old one's place; return False when there is none."""
    built = workshop / "site"
    if not (built / "index.html").is_file():
        return False
    shutil.rmtree(site, ignore_errors=True)
    built.rename(site)
    site.with_name(_STAMP).write_text(fingerprint_of_sources, encoding="ascii")
    shutil.rmtree(workshop, ignore_errors=True)
    return True


def _copy(root: Path, workshop: Path) -> None:
    shutil.rmtree(workshop, ignore_errors=True)
    shutil.copytree(root / "docs", workshop / "docs")
    shutil.copyfile(root / CONFIGURATION, workshop / CONFIGURATION)


async def _run(command: list[str], folder: Path, log: Path) -> int:
    with log.open("ab") as output:
        child = await asyncio.create_subprocess_exec(
            *command,
            cwd=folder,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            preexec_fn=end_with_parent(),
        )
    try:
        async with asyncio.timeout(_BUILD_SECONDS):
            return await child.wait()
    finally:
        if child.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                child.kill()
            await child.wait()
