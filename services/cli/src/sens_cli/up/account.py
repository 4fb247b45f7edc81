"""As whom the children of ``sens up`` run when root starts it: never as root.

An account named `NAME` is taken where somebody has made one. No account is made: else a number is taken that no account has and that
no system gives to anybody by itself, so that it owns nothing but what ``sens up`` gives it.
"""

import asyncio
import json
import os
import pwd
import signal
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple

from sens_cli.up import demote
from sens_common.errors import SensError

NAME: Final = "sens-platform"
_NUMBERS: Final = range(60_706, 61_184)
"""Not given to users, services or containers (systemd documentation, "Users, Groups, UIDs and GIDs on systemd Systems")."""
_CHECK_SECONDS: Final = 60
_CHECK: Final = "import asyncio, ctypes, ssl, sens_common.settings, uvicorn"


class Account(NamedTuple):
    """An account of the operating system, or a number that none has.

    Attributes:
        name: Its name, or the number.
        uid: User.
        gid: Group.
    """

    name: str
    uid: int
    gid: int


class Children(NamedTuple):
    """How children are started.

    Attributes:
        account: As whom, None for as ourselves.
        reach: Folders that they need.
    """

    account: Account | None = None
    reach: tuple[str, ...] = ()

    def command(self, command: list[str], orphan_signal: int = signal.SIGKILL) -> list[str]:
        """Return the command line that runs a command as the account; `orphan_signal` is what it gets when we die."""
        if self.account is None:
            return command
        specification: demote.Specification = {
            "user": self.account.uid,
            "group": self.account.gid,
            "parent": os.getpid(),
            "signal": int(orphan_signal),
            "reach": list(self.reach),
        }
        return [sys.executable, "-I", "-S", demote.__file__, json.dumps(specification), *command]

    def environment(self, environment: dict[str, str]) -> dict[str, str]:
        """Return the environment of a child: root's home is none of the account's business."""
        if self.account is None:
            return environment
        return environment | {"HOME": "/nonexistent", "USER": self.account.name, "LOGNAME": self.account.name}

    def give(self, *paths: Path) -> None:
        """Make folders and files the account's, with all that they hold.

        Raises:
            OSError: The system refuses.
        """
        if self.account is None:
            return
        for path in paths:
            if not path.exists():
                continue
            _give(path, self.account)
            for folder, _, names in os.walk(path):
                for name in (".", *names):
                    _give(Path(folder, name), self.account)


def _give(path: Path, account: Account) -> None:
    """Give one file; not one that has a second name, which may lie elsewhere, and not what a link points to."""
    status = path.lstat()
    single = status.st_nlink == 1 or path.is_dir()
    if single and (status.st_uid, status.st_gid) != (account.uid, account.gid):
        os.chown(path, account.uid, account.gid, follow_symlinks=False)


def children_account() -> Account | None:
    """Return the account for the children: None for our own, another one when we are root.

    Raises:
        SensError: There is no free number.
    """
    if os.geteuid() != 0:
        return None
    try:
        entry = pwd.getpwnam(NAME)
    except KeyError:
        pass
    else:
        if entry.pw_uid == 0:
            raise SensError(f"the account {NAME} is root's: give it another number, or remove it")
        return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)
    taken = {entry.pw_uid for entry in pwd.getpwall()}
    for number in _NUMBERS:
        if number not in taken:
            return Account(str(number), number, number)
    raise SensError(f"no number from {_NUMBERS.start} to {_NUMBERS.stop - 1} is free: make an account named {NAME}")


OURSELVES: Final = Children()
"""Children run as we do."""


async def children(data: Path, *, check: str = _CHECK) -> Children:
    """Return how children are started, given the data folder.

    Raises:
        SensError: The account can't run them: says why and what to do.
    """
    account = children_account()
    if account is None:
        return OURSELVES
    found = Children(account, tuple(_existing((sys.base_prefix, sys.prefix, *sys.path, str(data)))))
    checking = await asyncio.create_subprocess_exec(
        *found.command([sys.executable, "-P", "-c", check]),
        cwd="/",
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(_CHECK_SECONDS):
            _, said = await checking.communicate()
    except TimeoutError:
        checking.kill()
        await checking.wait()
        said = b"no answer"
    if checking.returncode == 0:
        return found
    lines = said.decode(errors="replace").strip().splitlines() or ["no message"]
    raise SensError(
        f"started by root, the platform's programs run as account {account.name}, which can't run them: {lines[-1]}\n"
        "Start as another user, or put the programs and the data folder where everybody can read them, below /opt for example."
    )


def _existing(paths: Iterable[str]) -> Iterable[str]:
    """Return the folders among the paths, each once, by their real names."""
    return dict.fromkeys(os.path.realpath(path) for path in paths if path and os.path.isdir(path))  # noqa: PTH112 - text in, text out
