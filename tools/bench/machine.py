"""The machine that figures come from."""

import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from sens_cli.up.nats import embedded_program
from tools.bench.figures import Machine

_SYNCS: Final = 100


def machine() -> Machine:
    """Describe the machine and the programs on it."""
    model = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
    nats = embedded_program()
    commands = {
        "mosquitto": ["mosquitto", "-h"],
        "nats-server": [str(nats), "--version"],
        "telegraf": ["telegraf", "--version"],
    }
    return Machine(
        processor=model[1] if model else platform.machine(),
        cores=len(os.sched_getaffinity(0)),
        memory_gigabytes=round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        kernel=f"{platform.system()} {platform.release()}",
        distribution=platform.freedesktop_os_release().get("PRETTY_NAME", "unknown"),
        python=platform.python_version(),
        optimised_python="--enable-optimizations" in str(sysconfig.get_config_var("CONFIG_ARGS")) or _is_debians(),
        commit=checkout_commit(Path()),
        sync_milliseconds=_sync_milliseconds(),
        versions={name: found for name, command in commands.items() if (found := _version(command))},
    )


def checkout_commit(folder: Path) -> str:
    """Return the commit of a checkout, with a note where it has changes."""
    return _output(["git", "-C", str(folder), "describe", "--always", "--dirty"])


def _is_debians() -> bool:
    """Tell whether this is the system's Python on Debian, which is built with profiles, but not by that option (its debian/rules)."""
    return sys.base_prefix == "/usr" and Path("/etc/debian_version").exists()


def _version(command: Sequence[str]) -> str:
    found = re.search(r"\d+\.\d+\S*", _output(command))
    return found[0].rstrip(",") if found else ""


def _output(command: Sequence[str]) -> str:
    program = shutil.which(command[0], path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if program is None:
        return ""
    try:
        # Some print their version beside a complaint about how they were called.
        return subprocess.run(
            [program, *command[1:]], capture_output=True, text=True, timeout=20, check=False
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError) as error:
        print(f"{command[0]} does not tell its version: {error}", file=sys.stderr)
        return ""


def _sync_milliseconds() -> float:
    times = []
    with tempfile.TemporaryFile() as file:
        for _ in range(_SYNCS):
            file.write(bytes(4096))
            file.flush()
            started = time.perf_counter()
            os.fdatasync(file.fileno())
            times.append(time.perf_counter() - started)
    return statistics.median(times) * 1e3
