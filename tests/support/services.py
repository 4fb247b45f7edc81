"""The services of this repository, as their folders say."""

from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).parents[2]


class Service(NamedTuple):
    """A folder below ``services``."""

    name: str

    @property
    def package(self) -> str:
        """Name of the import package."""
        return "sens_" + self.name.replace("-", "_")

    @property
    def source(self) -> Path:
        """Folder of the package."""
        return ROOT / "services" / self.name / "src" / self.package

    @property
    def modules(self) -> list[Path]:
        """The package's Python files."""
        return sorted(self.source.rglob("*.py"))


SERVICES: Final = [Service(path.parent.name) for path in sorted(ROOT.glob("services/*/pyproject.toml"))]
IMAGES: Final = [service for service in SERVICES if service.name not in {"common", "cli", "payloads"}]
