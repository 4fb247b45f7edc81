"""Prints what commands of ``sens`` cost: ``scripts/startup-cost``, while an instance of ``sens up`` runs.

A command's cost is its own CPU (user and system) as the kernel accounts it (wait4(2)), not the time that it takes: that also holds
what the servers do, and what else the machine does.
"""

import argparse
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

_SENS: Final = (sys.executable, "-P", "-m", "sens_cli")
_COMMANDS: Final = (
    (*_SENS, "--version"),
    (*_SENS, "--help"),
    (*_SENS, "devices"),
    (*_SENS, "metrics"),
    (*_SENS, "dead-letters", "list"),
    (*_SENS, "publish", "startup-cost", "--metric", "x=1"),
    (*_SENS, "tenants", "list"),
    (*_SENS, "tenants", "limits", "demo"),
    (*_SENS, "keys", "list"),
    (*_SENS, "audit"),
    (*_SENS, "dead-letters", "list", "--unrouted"),
    (*_SENS, "migrate"),
)


def cpu_seconds(command: Sequence[str]) -> float:
    """Return the CPU that a command used.

    Raises:
        ValueError: It failed; has what it wrote to standard error.
    """
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as child:
        assert child.stderr is not None  # noqa: S101 - for the type checker: it was asked for
        said = child.stderr.read()
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode != 0:
        raise ValueError(said.decode(errors="replace").strip())
    return usage.ru_utime + usage.ru_stime


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a table; return the exit code."""
    parser = argparse.ArgumentParser(prog="scripts/startup-cost", description=__doc__)
    parser.add_argument("--runs", type=int, default=10, help="runs of each command; %(default)s by default")
    parser.add_argument("--data-dir", type=Path, help="data folder of the instance")
    options = parser.parse_args(arguments)
    # As at a user's: the code is compiled once, by the first run.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    if options.data_dir is not None:
        os.environ["SENS_DATA_DIR"] = str(options.data_dir)
    print("| Command | CPU, median of", options.runs, "| Least |")
    print("| --- | --- | --- |")
    for command in ((sys.executable, "-P", "-c", "pass"), *_COMMANDS):
        name = "Python alone" if "-c" in command else f"`sens {' '.join(command[4:])}`"
        try:
            cpu_seconds(command)
            found = [cpu_seconds(command) for _ in range(options.runs)]
        except ValueError as error:
            sys.stderr.write(f"scripts/startup-cost: {name}: {error}\n")
            return 1
        print(f"| {name} | {statistics.median(found):.2f} s | {min(found):.2f} s |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
