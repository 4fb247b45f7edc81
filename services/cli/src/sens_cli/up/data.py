"""The data folder: what lies where, one instance at a time, secrets.

::

    .sens/
    ├── postgres/  nats/        the stores' files
    ├── secrets/                passwords and the demo key, each readable by its owner alone
    ├── logs/                   one file per component; that of the previous start ends in .1
    ├── site/                   the built documentation
    ├── run/                    lock, process numbers, instance.json
    └── postgres-programs       of a folder that was made with TimescaleDB: where the programs were
"""

import fcntl
import json
import os
import secrets
import shutil
from pathlib import Path
from typing import Final

from sens_common.command_line.instance import Instance, instance_file
from sens_common.errors import SensError

LOG_LIMIT_BYTES: Final = 32 << 20
_FREE_BYTES: Final = 256 << 20
_LONGEST_PATH: Final = 900
"""Bytes; PostgreSQL's own limit for a path is 1023 (MAXPGPATH), and it puts its files below this one."""


class DataFolder:
    """The data folder of one running instance; `open` it first."""

    def __init__(self, path: Path) -> None:
        self.path = Path(os.path.abspath(path))  # noqa: PTH100 - resolve() would look at the disk, and may fail on it
        self.postgres = self.path / "postgres"
        self.nats = self.path / "nats"
        self.secrets = self.path / "secrets"
        self.logs = self.path / "logs"
        self.site = self.path / "site"
        self.run = self.path / "run"
        self._lock: int | None = None

    def open(self) -> None:
        """Make the folder where it is missing, and take it for this process until `close`.

        Raises:
            SensError: The folder can't be used: says why and what to do.
        """
        if len(os.fsencode(self.path)) > _LONGEST_PATH:
            raise SensError(
                f"the path of the data folder is longer than {_LONGEST_PATH} bytes, too long for PostgreSQL;"
                " choose a shorter one with --data-dir"
            )
        try:
            self.path.mkdir(mode=0o755, parents=True, exist_ok=True)
            self.run.mkdir(mode=0o755, exist_ok=True)
            for folder in (self.secrets, self.logs, self.nats):
                folder.mkdir(mode=0o700, exist_ok=True)
            self._take()
            probe = self.run / "probe"
            probe.write_bytes(b"0" * 4096)
            probe.unlink()
        except OSError as error:
            self.close()
            raise SensError(
                f"the data folder {self.path} can't be used: {error.strerror}; make it writable, or choose another one"
                " with --data-dir"
            ) from error
        free = shutil.disk_usage(self.path).free
        if free < _FREE_BYTES:
            self.close()
            raise SensError(
                f"the disk of {self.path} has {free >> 20} MB left, and the platform needs {_FREE_BYTES >> 20} MB to start;"
                " free some space, or choose a folder on another disk with --data-dir"
            )

    def _take(self) -> None:
        descriptor = os.open(self.run / "lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            holder = Instance.load(self.path)
            who = f" (process {holder.process}, API at {holder.api_url})" if holder is not None else ""
            raise SensError(
                f"the data folder {self.path} is in use by another sens up{who}; stop that one, or choose another folder"
                " with --data-dir and other ports with --port-offset"
            ) from None
        self._lock = descriptor

    def close(self) -> None:
        """Give the folder back."""
        if self._lock is not None:
            instance_file(self.path).unlink(missing_ok=True)
            os.close(self._lock)
            self._lock = None

    def secret(self, name: str) -> str:
        """Return the secret in the file of that name, made at its first use: 256 random bits as URL-safe text."""
        known = self.read_secret(name)
        if known is not None:
            return known
        value = secrets.token_urlsafe(32)
        self.write_secret(name, value)
        return value

    def read_secret(self, name: str) -> str | None:
        """Return a secret, None when there is none."""
        try:
            return (self.secrets / name).read_text(encoding="ascii").strip() or None
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError) as error:
            raise SensError(f"the secret {self.secrets / name} can't be read: {error}") from error

    def write_secret(self, name: str, value: str) -> None:
        """Keep a secret in a file that its owner alone may read; whole or not at all."""
        scratch = self.secrets / f"{name}.new"
        write_file(scratch, value + "\n", 0o600)
        scratch.rename(self.secrets / name)

    def log_file(self, component: str) -> Path:
        """Return the log file of a component."""
        return self.logs / f"{component}.log"

    def rotate_logs(self) -> None:
        """Set the previous start's logs aside."""
        for file in self.logs.glob("*.log"):
            file.rename(file.with_suffix(".log.1"))

    def bound_logs(self, limit_bytes: int = LOG_LIMIT_BYTES) -> None:
        """Set aside what a log holds when it has grown to its limit; the component goes on writing to the same file."""
        for file in self.logs.glob("*.log"):
            if file.stat().st_size > limit_bytes:
                shutil.copyfile(file, file.with_suffix(".log.1"))
                os.truncate(file, 0)

    def write_instance(self, instance: Instance) -> None:
        """Tell the other commands where this instance is."""
        file = instance_file(self.path)
        scratch = file.with_suffix(".new")
        write_file(scratch, json.dumps(instance.to_json(), indent=2) + "\n", 0o644)
        scratch.rename(file)


def write_file(file: Path, text: str, mode: int) -> None:
    """Write a file that has its mode from the first byte on, and is on the disk afterwards."""
    file.unlink(missing_ok=True)
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w", encoding="utf-8") as target:
        target.write(text)
        target.flush()
        os.fsync(target.fileno())
