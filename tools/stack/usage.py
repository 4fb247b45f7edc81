"""What processes use, from the operating system: Linux' proc(5)."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

_TICKS: Final = os.sysconf("SC_CLK_TCK")


class Usage(NamedTuple):
    """Of a process and its children.

    Attributes:
        cpu_seconds: User and system time, of children that have ended too.
        resident_megabytes: Memory now, without what several of its processes share counted more than once where that is known.
    """

    cpu_seconds: float
    resident_megabytes: float


def tree(pid: int) -> list[int]:
    """Return a process and all its descendants that run."""
    found = [pid]
    for parent in found:
        for task in Path(f"/proc/{parent}/task").glob("*/children"):
            try:
                found += [int(child) for child in task.read_text(encoding="ascii").split()]
            except OSError:
                continue
    return found


def usage(pid: int) -> Usage:
    """Return what a process and its descendants use."""
    cpu = 0.0
    resident = 0.0
    for process in tree(pid):
        try:
            # Field 2 may hold spaces; 14 to 17 are user and system time, own and of children that were waited for.
            fields = Path(f"/proc/{process}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
            rollup = Path(f"/proc/{process}/smaps_rollup").read_text(encoding="ascii")
        except OSError:
            continue
        cpu += sum(int(field) for field in fields[11:15]) / _TICKS
        resident += next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:")) / 1024
    return Usage(cpu, resident)


def peak_megabytes(pid: int) -> float:
    """Return the most memory that a process has had resident in its life, 0 where it has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM:")), 0.0)


def difference(before: Mapping[str, Usage], after: Mapping[str, Usage], messages: int) -> dict[str, float]:
    """Return the CPU time of each process between two looks, microseconds a message."""
    return {name: (after[name].cpu_seconds - before[name].cpu_seconds) / messages * 1e6 for name in after}
