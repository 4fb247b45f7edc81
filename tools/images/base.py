"""A base for images where no registry can be reached: Debian's trixie with its Python 3.13, from Debian's own mirror."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final

from tools.images.builders import Builder, run_program
from tools.images.source import ImageError

REFERENCE: Final = "localhost/sens-platform-base:trixie"
_SUITE: Final = "trixie"
_PACKAGES: Final = ("ca-certificates", "python3-minimal", "python3-venv", "tzdata")
# Nothing of a service reads these. The licences in usr/share/doc stay.
_LEFT_OUT: Final = (
    "usr/share/info",
    "usr/share/locale",
    "usr/share/man",
    "var/cache/apt",
    "var/lib/apt/lists",
    "var/log",
    "etc/hostname",
    "etc/resolv.conf",
)


def ensure_debian_base(builder: Builder) -> str:
    """Make the base where the builder does not have it yet; return its name.

    Raises:
        ImageError: debootstrap is missing, fails, or this is not root.
    """
    if not builder.exists(REFERENCE):
        with tempfile.TemporaryDirectory(prefix="sens-base-") as folder:
            archive = Path(folder) / "base.tar"
            _bootstrap(Path(folder) / "root", archive)
            builder.load(archive, REFERENCE)
    return REFERENCE


def _bootstrap(root: Path, archive: Path) -> None:
    # Debian keeps it in a folder that is only on root's PATH.
    program = shutil.which("debootstrap", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")
    if program is None or os.geteuid() != 0:
        raise ImageError(
            "--debian-base takes debootstrap and root's rights: install the package debootstrap, run as root."
        )
    # debootstrap takes its own default mirror, or the one that /usr/share/debootstrap/mirror names.
    run_program([program, "--variant=minbase", f"--include={','.join(_PACKAGES)}", _SUITE, str(root)])
    try:
        for name in _LEFT_OUT:
            path = root / name
            if path.is_dir():
                shutil.rmtree(path)
                path.mkdir()
            else:
                path.unlink(missing_ok=True)
        for document in (root / "usr/share/doc").rglob("*"):
            if document.name != "copyright" and not document.is_dir():
                document.unlink()
        run_program(
            [
                "tar",
                "--directory",
                str(root),
                "--sort=name",
                "--numeric-owner",
                "--one-file-system",
                "-cf",
                str(archive),
                ".",
            ]
        )
    finally:
        # What debootstrap mounted and could not unmount must not be deleted with the folder.
        subprocess.run(["umount", str(root / "proc"), str(root / "sys")], capture_output=True, check=False)
