"""The services whose settings and metrics are listed."""

import importlib
import importlib.util
from types import ModuleType
from typing import Final

from tools.images.catalogue import IMAGES

SERVICES: Final = {image.folder: image.module for image in IMAGES}


def module_of(package: str, name: str) -> ModuleType | None:
    """Return a service's module, None when it has none of that name."""
    if importlib.util.find_spec(f"{package}.{name}") is None:
        return None
    return importlib.import_module(f"{package}.{name}")
