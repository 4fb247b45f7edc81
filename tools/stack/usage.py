"""What processes use, and which they are: a process with all its descendants."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

import psutil

_MEGABYTE: Final = 1 << 20


class Usage(NamedTuple):
    """Of a process and its children.

    Attributes:
        cpu_seconds: User and system time, of children that have ended too.
        resident_megabytes: Memory now; what several of its processes share is counted once.
    """

    cpu_seconds: float
    resident_megabytes: float


def tree(pid: int) -> list[psutil.Process]:
    """Return a process and all its descendants that run; nothing when it has ended."""
    try:
        parent = psutil.Process(pid)
        return [parent, *parent.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def usage(pid: int) -> Usage:
    """Return what a process and its descendants use."""
    cpu = 0.0
    resident = 0.0
    for process in tree(pid):
        try:
            with process.oneshot():
                times, memory = process.cpu_times(), process.memory_full_info()
        except psutil.Error:  # it has ended meanwhile
            continue
        cpu += times.user + times.system + times.children_user + times.children_system
        resident += memory.pss / _MEGABYTE
    return Usage(cpu, resident)


def peak_megabytes(pid: int) -> float:
    """Return the most memory that a process has had resident in its life, 0 where it has ended.

    Linux' proc_pid_status(5) tells it, which psutil does not read.
    """
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM:")), 0.0)


def difference(before: Mapping[str, Usage], after: Mapping[str, Usage], messages: int) -> dict[str, float]:
    """Return the CPU time of each process between two looks, microseconds a message."""
    return {name: (after[name].cpu_seconds - before[name].cpu_seconds) / messages * 1e6 for name in after}
