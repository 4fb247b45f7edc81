"""What the Linux user that works on test can do on the server itself: nothing as root, and no other way to the cluster's keys.

Only on the server there is something to look at. Who is root there may do everything, whatever this finds.
"""

import asyncio
import base64
import grp
import json
import os
import pwd
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final, Self, TypedDict

from sens_cli.verify.environment import Environment
from sens_cli.verify.outcome import CheckFailedError, NotRunError

USER: Final = "deploy-test"
RUNBOOK: Final = "The Linux user deploy-test, in docs/operations/runbook.md"

# Groups whose members become root, or read what root alone should.
_POWERFUL_GROUPS: Final = frozenset(
    {"root", "sudo", "wheel", "admin", "docker", "containerd", "k3s", "lxd", "incus", "incus-admin", "libvirt", "disk", "kmem", "shadow"}
)  # fmt: skip
_K3S: Final = "etc/rancher/k3s"
_SECRET: Final = (
    f"{_K3S}/k3s.yaml", "var/lib/rancher/k3s/server/cred", "var/lib/rancher/k3s/server/tls/client-admin.key",
    "var/lib/rancher/k3s/server/token", "var/lib/rancher/k3s/server/node-token", "var/lib/rancher/k3s/server/db",
    "var/lib/rancher/k3s/storage", "root/.kube", "etc/shadow",
)  # fmt: skip
"""What it must not read: the cluster's keys and its volumes."""
_GUARDED: Final = (
    f"{_K3S}/k3s.yaml", f"{_K3S}/config.yaml", "run/k3s/containerd/containerd.sock", "run/containerd/containerd.sock", "run/docker.sock",
    "usr/local/bin/k3s", "etc/systemd/system/k3s.service", "etc/sudoers", "etc/sudoers.d",
)  # fmt: skip
"""What it must not write to: who writes there is root soon."""

_MAXIMUM_FILES = 100
_MAXIMUM_BYTES = 1 << 20
_TIMEOUT_SECONDS = 10.0
_TOKEN = re.compile(r'"?\btoken"?\s*:\s*"?([A-Za-z0-9_.-]+)"?')
_OTHER_CREDENTIAL = re.compile(
    r'"?\b(client-key-data|client-key|client-certificate-data|client-certificate|auth-provider|exec|tokenFile|password)"?\s*:'
)


class _As(TypedDict, total=False):
    user: int
    group: int
    extra_groups: Sequence[int]


@dataclass(frozen=True, slots=True)
class LinuxUser:
    """An account of the server.

    Attributes:
        name: Its name.
        uid: Its number.
        gid: Number of its first group.
        groups: Numbers of all its groups.
        home: Its folder.
    """

    name: str
    uid: int
    gid: int
    groups: Sequence[int]
    home: Path

    @classmethod
    def find(cls, name: str) -> Self | None:
        """Return it, None when there is none."""
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            return None
        groups = os.getgrouplist(name, entry.pw_gid)
        return cls(name, entry.pw_uid, entry.pw_gid, groups, Path(entry.pw_dir))


async def check_host(environment: Environment, name: str = USER, root: Path = Path("/")) -> str:
    """See that the user has no sudo and no key of the cluster but its own.

    Args:
        environment: Whose account its kubeconfig may hold.
        name: The user.
        root: Where the server's files begin.
    """
    if environment.account is None:
        raise NotRunError("the account that looks after test is not known (--deploy-account or --test-namespace)")
    if not (root / _K3S).is_dir():
        raise NotRunError(f"this is not the server: there is no {root / _K3S}; run it there, as root")
    user = LinuxUser.find(name)
    if user is None:
        raise NotRunError(f"there is no Linux user {name} on this server")
    if os.geteuid() not in {0, user.uid}:
        raise NotRunError(f"what {name} can read is seen by root and by {name} alone: run it as one of them")
    readable, writable = await _reachable(user, root, _SECRET, "-r"), await _reachable(user, root, _GUARDED, "-w")
    rules = await _sudo_rules(user)
    problems = [
        *_standing(user),
        *(f"it can read {path}" for path in readable),
        *(f"it can write to {path}" for path in writable),
        *_kubeconfigs(user, environment.account),
        *([f"sudo: {rules}"] if rules else []),
    ]
    if problems:
        raise CheckFailedError(f"{name}: {'; '.join(problems)}", f"Take it away: {RUNBOOK}, has the command for each.")
    seen = f"{name} is in no powerful group, reads and writes none of {len(_SECRET) + len(_GUARDED)} files, and has no other kubeconfig"
    if rules is None:
        raise NotRunError(f"{seen}; but root alone can list what sudo allows it: sudo -l -U {name}")
    return f"{seen}; no sudo"


def _standing(user: LinuxUser) -> Iterator[str]:
    if user.uid == 0:
        yield "it is root by another name"
    for gid in sorted(set(user.groups)):
        try:
            group = grp.getgrgid(gid).gr_name
        except KeyError:
            continue
        if group in _POWERFUL_GROUPS:
            yield f"it is in the group {group}"


async def _reachable(user: LinuxUser, root: Path, paths: Sequence[str], access: str) -> list[Path]:
    """Return those of the paths that the user itself can read (``-r``) or write (``-w``), access lists included."""
    script = f'for path; do if test {access} "$path"; then echo "$path"; fi; done'
    code, output = await _run(["sh", "-c", script, "sh", *(str(root / path) for path in paths)], user)
    if code != 0:
        raise NotRunError(f"what {user.name} can reach could not be tried: {output.strip()[:200]}")
    return [Path(line) for line in output.splitlines()]


async def _sudo_rules(user: LinuxUser) -> str | None:
    """Return what sudo allows the user, "" when it is nothing, None when only root can tell."""
    program = shutil.which("sudo", path=f"{os.environ.get('PATH', '')}:/usr/bin:/usr/sbin")
    if program is None:
        return ""
    if os.geteuid() == 0:
        code, output = await _run([program, "-n", "-l", "-U", user.name])
        if "not allowed to run sudo" in output:
            return ""
        return " ".join(output.split())[:300] or f"sudo -l ended with {code}"
    code, output = await _run([program, "-n", "-l"])
    if code == 0:
        return " ".join(output.split())[:300]
    return "" if "may not run sudo" in output else None


def _kubeconfigs(user: LinuxUser, account: str) -> Iterator[str]:
    """Yield what is wrong with the kubeconfigs in its home: each may hold its own account's token, and nothing else."""
    found = (path for pattern in (".kube/*", "*kubeconfig*", "*.kubeconfig") for path in user.home.glob(pattern))
    for path in islice(sorted({path for path in found if path.is_file()}), _MAXIMUM_FILES):
        try:
            with path.open("rb") as file:
                text = file.read(_MAXIMUM_BYTES).decode(errors="replace")
        except OSError as error:
            yield f"{path} can't be read: {error.strerror}"
            continue
        if path.stat().st_mode & 0o077:
            yield f"others can read {path}"
        if other := _OTHER_CREDENTIAL.search(text):
            yield f"{path} holds a credential of another kind ({other[1]})"
        for token in _TOKEN.findall(text):
            if (subject := _subject(token)) != account:
                yield f"{path} holds a token of {subject}"


def _subject(token: str) -> str:
    """Return whose a token is: the claim ``sub`` (RFC 7519, section 4.1.2), unverified, as nothing is granted by it."""
    try:
        claims = token.split(".")[1]
        document = json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))
        return str(document["sub"])[:200]
    except (IndexError, ValueError, KeyError, TypeError):
        return "nobody that it names"


async def _run(command: Sequence[str], user: LinuxUser | None = None) -> tuple[int, str]:
    """Run a program, as a user where root asks for one; return its exit code and what it said."""
    identity: _As = {}
    if user is not None and os.geteuid() == 0:
        identity = {"user": user.uid, "group": user.gid, "extra_groups": list(user.groups)}
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            cwd="/",
            env={"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LC_ALL": "C"},
            **identity,
        )
    except OSError as error:
        raise NotRunError(f"{command[0]} can't be started: {error.strerror}") from None
    try:
        async with asyncio.timeout(_TIMEOUT_SECONDS):
            output, _ = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        raise NotRunError(f"{command[0]} gave no answer within {_TIMEOUT_SECONDS:g} s") from None
    return process.returncode or 0, output.decode(errors="replace")
