"""A small disk of its own for a server, so that it can be full while the machine's is not: a tmpfs, which only root may mount."""

import os
import subprocess
from pathlib import Path
from typing import Final, Self

_SIZE_BYTES: Final = 8 << 30
_ATTEMPTS: Final = 50


class Disk:
    """A mounted tmpfs.

    Attributes:
        folder: Where it is mounted.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def mounted(cls, folder: Path) -> Self | None:
        """Make the folder and mount a disk there; None where that is not allowed."""
        folder.mkdir(mode=0o755)
        if os.geteuid() != 0:
            return None
        command = ["mount", "-t", "tmpfs", "-o", f"size={_SIZE_BYTES},mode=755", "sens-stack", str(folder)]
        try:
            subprocess.run(command, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            return None
        return cls(folder)

    def unmount(self) -> None:
        """Take it away, now or when nobody uses it any more."""
        subprocess.run(["umount", "--lazy", str(self.folder)], check=False, capture_output=True)

    def fill(self) -> None:
        """Leave no room: the disk becomes as small as what it holds.

        Raises:
            OSError: It grew faster than it could be shrunk.
        """
        for _ in range(_ATTEMPTS):
            state = os.statvfs(self.folder)
            if self._resize((state.f_blocks - state.f_bfree) * state.f_frsize):
                return
        raise OSError(f"{self.folder} can't be made full")

    def make_room(self) -> None:
        """Give it its first size again."""
        self._resize(_SIZE_BYTES)

    def _resize(self, size_bytes: int) -> bool:
        command = ["mount", "-o", f"remount,size={size_bytes}", str(self.folder)]
        return subprocess.run(command, check=False, capture_output=True).returncode == 0
