"""The images, as ``images.toml`` lists them. Called by scripts/lock, it prints the folders of their code and locks."""

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
    further_ports: Mapping[str, int] = {}
    writable: tuple[str, ...] = ()
    production: bool = True
    trial: Mapping[str, str] = {}

    @classmethod
    def read(cls, name: str, table: Mapping[str, Any]) -> Self:
        """Read the table of an image."""
        return cls(name, **{**table, "writable": tuple(table.get("writable", ()))})

    @property
    def folder(self) -> str:
        """Return its service below ``services``; its lock has the same name."""
        return self.module.removeprefix("sens_").replace("_", "-")

    @property
    def packages(self) -> tuple[str, str]:
        """Return the import packages of this repository that it holds."""
        return "sens_common", self.module


IMAGES: Final = tuple(
    Image.read(name, table) for name, table in tomllib.loads(_FILE.read_text(encoding="utf-8")).items()
)

# What no image may hold, whatever its base brings: an upgrade is another image, not an installation.
PACKAGING_TOOLS: Final = frozenset({"ensurepip", "hatchling", "pip", "setuptools", "uv", "wheel", "zensical"})

if __name__ == "__main__":
    print(*(image.folder for image in IMAGES))
