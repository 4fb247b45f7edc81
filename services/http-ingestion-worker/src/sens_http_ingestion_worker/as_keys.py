"""The AS keys of sources in files, as a Kubernetes secret is mounted: ``TENANT/SOURCE/as-key``, and nowhere else.

Where a source has a folder here, its requests are checked: one without a key that can be used lets none pass, so that a secret that is missing
opens nothing.
"""

import asyncio
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from sens_common.health import Problems

_FILE: Final = "as-key"
_MAX_FILE_BYTES: Final = 1024
_MAX_KEYS: Final = 4
_MAX_SOURCES: Final = 1000
_INTERVAL_SECONDS: Final = 3.0
_KEY: Final = re.compile(r"[0-9a-f]{32}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_FOLDER: Final = "folder"  # key of a problem


class AsKey(NamedTuple):
    """With what the requests of a source are signed.

    Attributes:
        keys: In lower case; several while one is changed for another.
        problem: Why there is none, empty where there is one.
    """

    keys: tuple[str, ...] = ()
    problem: str = ""

    def __repr__(self) -> str:
        """Tell nothing."""
        return "AsKey(…)"


type _Owner = tuple[str, str]
"""Tenant and source."""


class AsKeys:
    """The keys that the files hold.

    Attributes:
        problems: What is wrong with them.
    """

    def __init__(self, folder: str) -> None:
        self._folder = Path(folder)
        self._by_owner: Mapping[_Owner, AsKey] | None = None  # until they were read once
        self.problems = Problems("as_keys")

    def of(self, tenant: str, source: str) -> AsKey | None:
        """Return the key of a source, None where its requests are not checked."""
        if self._by_owner is None:
            return AsKey(problem="the AS keys can't be read")
        return self._by_owner.get((tenant, source))

    async def keep_reading(self) -> None:
        """Read the files again and again."""
        while True:
            await asyncio.sleep(_INTERVAL_SECONDS)
            await self.read()

    async def read(self) -> None:
        """Read the files; while their folder can't be read, the last known keys hold."""
        try:
            found = await asyncio.to_thread(lambda: dict(self._read()))
        except OSError as error:
            self.problems.set(_FOLDER, "the AS keys can't be read", f"{error.filename}: {error.strerror}")
            return
        self.problems.clear(_FOLDER)
        for owner in (self._by_owner or {}).keys() - found.keys():
            self.problems.clear("/".join(owner))
        for owner, key in found.items():
            if key.problem:
                self.problems.set("/".join(owner), key.problem)
            else:
                self.problems.clear("/".join(owner))
        self._by_owner = found

    def _read(self) -> Iterator[tuple[_Owner, AsKey]]:
        """Yield what each source has.

        Raises:
            OSError: A folder can't be read, or there are too many sources.
        """
        count = 0
        for tenant in _folders(self._folder):
            for source in _folders(tenant):
                count += 1
                if count > _MAX_SOURCES:
                    raise OSError(0, f"more than {_MAX_SOURCES:,} sources have a folder", str(self._folder))
                yield (tenant.name, source.name), _key_in(source / _FILE)


def _folders(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(each for each in folder.iterdir() if not each.name.startswith(".") and each.is_dir())


def _key_in(path: Path) -> AsKey:
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        return AsKey(problem=f"the AS key is missing: there is no file {path}")
    except OSError as error:
        return AsKey(problem=f"the AS key can't be read: {path}: {error.strerror}")
    keys = content.decode("ascii", errors="replace").lower().split()
    if len(content) > _MAX_FILE_BYTES or not 1 <= len(keys) <= _MAX_KEYS or not all(map(_KEY.fullmatch, keys)):
        return AsKey(problem=f"{path} holds no AS key: 32 hexadecimal digits, or up to {_MAX_KEYS} such lines")
    return AsKey(tuple(keys))
