"""The images, as ``images.toml`` lists them. Called by scripts/lock, it prints the folders of each one's code.

The first folder of a line names the image's lock.
"""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

_FILE: Final = Path(__file__).parents[2] / "images.toml"


class Image(NamedTuple):
    """An image of the platform; the file describes its members.

    Attributes:
        name: What people call it, and what the Dockerfile's stage and its ARG SERVICE are called.
    """

    name: str
    module: str
    port: int
    port_setting: str
    user: str
    further_modules: tuple[str, ...] = ()
    further_ports: Mapping[str, int] = {}
    writable: tuple[str, ...] = ()
    production: bool = True
    trial: Mapping[str, str] = {}

    @classmethod
    def read(cls, name: str, table: Mapping[str, Any]) -> Self:
        """Read the table of an image."""
        return cls(name, **{**table, **{key: tuple(table.get(key, ())) for key in ("further_modules", "writable")}})

    @property
    def folder(self) -> str:
        """Return its service below ``services``; its lock has the same name."""
        return self.folders[0]

    @property
    def folders(self) -> tuple[str, ...]:
        """Return the folders below ``services`` whose code it holds, beside the shared one: its service's, then others."""
        return tuple(module.removeprefix("sens_").replace("_", "-") for module in (self.module, *self.further_modules))

    @property
    def packages(self) -> tuple[str, ...]:
        """Return the import packages of this repository that it holds."""
        return "sens_common", self.module, *self.further_modules


IMAGES: Final = tuple(
    Image.read(name, table) for name, table in tomllib.loads(_FILE.read_text(encoding="utf-8")).items()
)

# What no image may hold, whatever its base brings: an upgrade is another image, not an installation.
PACKAGING_TOOLS: Final = frozenset({"ensurepip", "hatchling", "pip", "setuptools", "uv", "wheel", "zensical"})

if __name__ == "__main__":
    for image in IMAGES:
        print(*image.folders)
