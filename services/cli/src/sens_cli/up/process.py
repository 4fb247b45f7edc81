"""One child process: started so that it can't outlive its parent, written down so that a later start can find it.

On Linux the kernel ends the child when the parent dies (prctl(2), ``PR_SET_PDEATHSIG``). Elsewhere nothing does; there the next
start ends what the dead instance left running, by the numbers it wrote down.
"""

import asyncio
import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from sens_cli.log_lines import readable
from sens_cli.up.postgres import Identity

_PR_SET_PDEATHSIG: Final = 1  # Linux, include/uapi/linux/prctl.h
_TAIL_BYTES: Final = 16_384
_LINE_CHARACTERS: Final = 300
_LEFTOVER_SECONDS: Final = 6.0

_LINUX: Final[bool] = sys.platform.startswith("linux")

# Loaded before any fork: between fork and exec nothing may take a lock that another thread might hold.
_libc = ctypes.CDLL(None) if _LINUX else None


def end_with_parent(with_signal: int = signal.SIGKILL) -> Callable[[], None] | None:
    """Return what a child calls between fork and exec to be ended together with its parent; None where that is impossible.

    The setting is cleared when a process changes its account, so it has to come after that, as `subprocess.Popen` does it.
    The signal comes when the *thread* that started the child ends: start children from the main thread, or wait for them.
    """
    libc = _libc
    if libc is None:
        return None
    parent = os.getpid()

    def prepare() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, int(with_signal), 0, 0, 0)
        if os.getppid() != parent:  # it died before the setting was made
            os._exit(1)

    return prepare


async def start(
    command: list[str],
    *,
    environment: dict[str, str],
    folder: Path,
    log: Path,
    note: Path,
    identity: Identity,
    orphan_signal: int,
) -> asyncio.subprocess.Process:
    """Start a child with its own session, so that a terminal's Ctrl-C reaches the parent alone.

    Args:
        command: Program and arguments.
        environment: All of its environment.
        folder: Working directory.
        log: File that its output is added to.
        note: File in which its number is written down, for `end_leftovers`.
        identity: Whom to run as.
        orphan_signal: What it gets when the parent dies.

    Raises:
        OSError: It can't be started.
    """
    with log.open("ab") as output:
        child = await asyncio.create_subprocess_exec(
            *command,
            env=environment,
            cwd=folder,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            preexec_fn=end_with_parent(orphan_signal),
            **identity,
        )
    write_note(note, child.pid)
    return child


def write_note(note: Path, number: int) -> None:
    """Write down a process, for `end_leftovers`; whoever reads meanwhile finds the one before."""
    scratch = note.with_suffix(".new")
    scratch.write_text(json.dumps({"process": number, "identity": process_identity(number)}), encoding="utf-8")
    scratch.rename(note)


def process_identity(number: int) -> str | None:
    """Return what tells a process from a later one of the same number: the time of its start; None when it is gone."""
    try:
        status = Path(f"/proc/{number}/stat").read_text(encoding="utf-8", errors="replace")
        fields = status.rpartition(")")[2].split()
        if fields[0] in {"Z", "X"}:  # state and, below, start time in ticks since the boot: proc_pid_stat(5), 3 and 22
            return None
        return f"{_boot()} {fields[19]}"
    except OSError:
        if _LINUX:
            return None
    answer = subprocess.run(  # noqa: S603 - no input but a number
        ["/bin/ps", "-o", "lstart=", "-p", str(number)], capture_output=True, text=True, check=False
    )
    return answer.stdout.strip() or None


def _boot() -> str:
    """Return the identity of the system's boot (random(4)): ticks since another one say nothing."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def end_leftovers(run: Path) -> list[str]:
    """End what an earlier instance of the same data folder left running; return the components' names.

    A number is followed only when the process that has it started at the time that was written down.
    """
    left: dict[int, str] = {}
    for note in run.glob("*.pid"):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            content = json.loads(note.read_text(encoding="utf-8"))
            number = int(content["process"])
            if content["identity"] is not None and process_identity(number) == content["identity"]:
                left[number] = note.stem
        note.unlink(missing_ok=True)
    names = list(left.values())
    # A store gets the signal that it stops quickly by; whoever is still there afterwards is killed.
    for number, name in left.items():
        _send(number, signal.SIGQUIT if name == "postgresql" else signal.SIGTERM)
    deadline = time.monotonic() + _LEFTOVER_SECONDS
    while left and time.monotonic() < deadline:
        left = {number: name for number, name in left.items() if process_identity(number) is not None}
        time.sleep(0.02)
    for number in left:
        _send(number, signal.SIGKILL)
    return names


def _send(number: int, what: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(number, what)


def last_line(log: Path) -> str:
    """Return the last line of a log that says something, as a person would like to read it; empty when there is none."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - _TAIL_BYTES))
            lines = file.read().decode("utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    for line in reversed(lines):
        if line.strip():
            return readable(line.strip())[:_LINE_CHARACTERS]
    return ""
