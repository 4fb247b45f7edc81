"""Becomes the process of an image that is mounted as a folder: root in new mount and PID namespaces runs it with a JSON argument.

The members of the argument: ``root`` (folder), ``writable`` (folders in the image), ``user`` and ``group`` (numbers), ``workdir``,
``environment``, ``command``. The image's root is read-only and its programs are not needed to get there, a shell least of all.
"""

import json
import os
import subprocess
import sys
from pathlib import Path


def main() -> None:
    """Mount, enter, drop every right, and execute."""
    wanted = json.loads(sys.argv[1])
    root = Path(wanted["root"])
    _mount("--bind", root, root)
    _mount("-o", "remount,bind,ro", root)
    _mount("-t", "proc", "proc", root / "proc")
    _mount("--rbind", "/dev", root / "dev")
    for folder in wanted["writable"]:
        _mount("-t", "tmpfs", "-o", "mode=1777", "tmpfs", root / folder.lstrip("/"))
    os.chroot(root)
    os.chdir(wanted["workdir"])
    os.setgroups([])
    os.setgid(wanted["group"])
    os.setuid(wanted["user"])
    os.execvpe(wanted["command"][0], wanted["command"], wanted["environment"])  # noqa: S606 - that no shell is needed is the point


def _mount(*arguments: str | Path) -> None:
    subprocess.run(["mount", *arguments], check=True)


if __name__ == "__main__":
    main()
