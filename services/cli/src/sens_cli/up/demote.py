"""Becomes a program as another account: executed as a file of its own, by root, with nothing but the standard library.

``python -I -S demote.py SPECIFICATION COMMAND…``; the specification is a JSON object (see `Specification`). Folders that the account can't
enter, root's home for example, are not opened up for it: the program gets a mount namespace (mount_namespaces(7)) in which an empty folder
lies over them, with only those parts in their places that the program needs. No other program sees that.
"""

import ctypes
import json
import os
import stat
import sys
from typing import TypedDict

_CLONE_NEWNS = 0x20000  # Linux, include/uapi/linux/sched.h
_MS_BIND, _MS_REC, _MS_PRIVATE, _MS_NOSUID = 4096, 16384, 1 << 18, 2  # Linux, include/uapi/linux/mount.h
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38  # Linux, include/uapi/linux/prctl.h
_LINUX = sys.platform.startswith("linux")


class Specification(TypedDict):
    """As whom a program runs.

    Attributes:
        user: Number of the account.
        group: Number of its group.
        parent: Process that the program ends with.
        signal: What it gets when that process ends.
        reach: Absolute paths of folders that the program needs; what they hold may be read by everybody, or by the account.
    """

    user: int
    group: int
    parent: int
    signal: int
    reach: list[str]


def closed(path: str, user: int, group: int) -> str | None:
    """Return the first folder on the way to a path that an account can't enter, None where it gets through to the path."""
    part = "/"
    for name in (*path.strip("/").split("/"), ""):
        status = os.stat(part)  # noqa: PTH116 - pathlib takes longer to import than all of this
        shift = 6 if status.st_uid == user else 3 if status.st_gid == group else 0
        if stat.S_ISDIR(status.st_mode) and not status.st_mode >> shift & 0o1:
            return part
        part = os.path.join(part, name)  # noqa: PTH118 - same
    return None


def _mount(source: str, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    arguments = (text.encode() if text is not None else None for text in (source, target, kind))
    if libc.mount(*arguments, ctypes.c_ulong(flags), data.encode() if data is not None else None) != 0:
        raise OSError(ctypes.get_errno(), f"mount on {target}: {os.strerror(ctypes.get_errno())}")


def _open_ways(wanted: Specification) -> None:
    """Make a namespace in which the account reaches what it needs, where it does not anyway."""
    hidden: dict[str, list[str]] = {}
    for path in sorted(wanted["reach"]):  # the shorter ones first: what lies below them is there already then
        obstacle = closed(path, wanted["user"], wanted["group"])
        if obstacle is not None and obstacle != path:
            hidden.setdefault(obstacle, []).append(path)
    if not hidden:
        return
    if not _LINUX:
        raise OSError(0, f"it can't enter {', '.join(hidden)}")
    os.umask(0o022)  # for the folders on the way
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNS) != 0:
        reason = os.strerror(ctypes.get_errno())
        raise OSError(
            ctypes.get_errno(), f"it can't enter {', '.join(hidden)}, and the system gives no mount namespace: {reason}"
        )
    _mount("none", "/", None, _MS_REC | _MS_PRIVATE)
    for obstacle, paths in hidden.items():
        parts = {path: os.open(path, os.O_PATH | os.O_DIRECTORY) for path in paths}
        _mount("tmpfs", obstacle, "tmpfs", _MS_NOSUID, "mode=0755,size=64k")
        for path, descriptor in parts.items():
            if not os.path.isdir(path):  # noqa: PTH112 - as above
                os.makedirs(path, mode=0o755)  # noqa: PTH103 - same
                _mount(f"/proc/self/fd/{descriptor}", path, None, _MS_BIND | _MS_REC)
            os.close(descriptor)


def main(wanted: Specification, command: list[str]) -> None:
    """Become the program; returns only by an error.

    Raises:
        OSError: The system refuses something.
    """
    _open_ways(wanted)
    os.setgroups([])
    os.setgid(wanted["group"])
    os.setuid(wanted["user"])
    if _LINUX:
        libc = ctypes.CDLL(None)
        libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        # A change of the account clears it, so it comes last.
        libc.prctl(_PR_SET_PDEATHSIG, wanted["signal"], 0, 0, 0)
    if os.getppid() != wanted["parent"]:
        sys.exit(1)  # it died before the setting was made
    os.execv(command[0], command)  # noqa: S606 - what it is for


if __name__ == "__main__":
    try:
        main(json.loads(sys.argv[1]), sys.argv[2:])
    except OSError as error:
        sys.exit(f"{sys.argv[2]} can't be run as user {json.loads(sys.argv[1])['user']}: {error.strerror or error}")
