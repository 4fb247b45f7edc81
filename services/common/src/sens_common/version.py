"""The running product: its version and the commit from which it was built."""

import os
from functools import cache
from importlib.metadata import version

import msgspec


class Version(msgspec.Struct, frozen=True):
    """Answer of ``/version``.

    Attributes:
        name: The service.
        version: The product's version (SemVer 2.0).
        product_commit: Full SHA of the commit, or ``unknown``.
    """

    name: str
    version: str
    product_commit: str


@cache
def product_version() -> str:
    """Return the product's version."""
    return version("sens-common")


def service_version(service: str) -> Version:
    """Return the version of a service; images and ``sens up`` set ``SENS_PRODUCT_COMMIT``."""
    return Version(service, product_version(), os.environ.get("SENS_PRODUCT_COMMIT") or "unknown")
