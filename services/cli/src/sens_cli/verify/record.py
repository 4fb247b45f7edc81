"""What should be running: the record of a release (``release.json`` of the GitOps repository), or what options say."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from sens_common.errors import SettingsError

MAXIMUM_BYTES: Final = 64 * 1024

# SemVer 2.0 without build metadata, which a tag of an image can't carry.
_VERSION = re.compile(
    r"(?P<root>(?:0|[1-9][0-9]*)(?:\.(?:0|[1-9][0-9]*)){2})(?:-(?P<pre>[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*))?"
)
_COMMIT = re.compile(r"[0-9a-f]{7,40}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_FULL_COMMIT = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What should be running; None where nothing is said.

    Attributes:
        version: Of the images (``0.5.0-alpha.12.1``).
        commit: Of the product, or its first 7 digits or more.
        images: Digest of each image, by its name.
    """

    version: str | None = None
    commit: str | None = None
    images: Mapping[str, str] = field(default_factory=dict)

    @property
    def root(self) -> str | None:
        """The version without its pre-release: what the services answer, whatever their images are tagged with."""
        return None if self.version is None else self.version.partition("-")[0]

    @property
    def channel(self) -> str | None:
        """Channel of the version: alpha, rc or stable; None when there is no version or it is of none."""
        match = _VERSION.fullmatch(self.version or "")
        if match is None:
            return None
        first = (match["pre"] or "stable").partition(".")[0]
        return first if first in {"alpha", "rc", "stable"} else None


def version(text: str, what: str) -> str:
    """Return a version.

    Raises:
        SettingsError: It is none; the text begins with what it is of.
    """
    if len(text) > 128 or not _VERSION.fullmatch(text):  # noqa: PLR2004 - longest tag, OCI distribution specification 1.1
        raise SettingsError(f"{what}: {text[:100]!r} is no version, such as 0.5.0 or 0.5.0-alpha.12.1")
    return text


def commit(text: str, what: str) -> str:
    """Return a commit; raises as `version`."""
    if not _COMMIT.fullmatch(text):
        raise SettingsError(f"{what}: {text[:100]!r} is no commit: 7 to 40 lower-case hexadecimal digits")
    return text


def read_record(path: Path) -> Expected | None:
    """Read the record of a release, None when there is none yet.

    Raises:
        SettingsError: It can't be read; the text names file and key.
    """
    try:
        document = json.loads(read_limited(path))
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError) as error:
        raise SettingsError(
            f"{path} is no JSON: {str(error)[:300]}; restore it from the history of the repository"
        ) from None
    if not isinstance(document, dict):
        raise SettingsError(f"{path} is no record of a release: an object is asked for")
    full = commit(_text(document, "product_commit", path), f"{path}: product_commit")
    if len(full) != _FULL_COMMIT:
        raise SettingsError(f"{path}: product_commit is {full}, and must have 40 digits")
    return Expected(
        version=version(_text(document, "version", path), f"{path}: version"),
        commit=full,
        images=_digests(document.get("images"), path),
    )


def read_limited(path: Path) -> str:
    """Return the text of a small file.

    Raises:
        FileNotFoundError: There is none.
        SettingsError: It can't be read, or is not small.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAXIMUM_BYTES + 1)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise SettingsError(f"{path} can't be read: {error.strerror}") from None
    if len(content) > MAXIMUM_BYTES:
        raise SettingsError(f"{path} is longer than {MAXIMUM_BYTES} bytes")
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise SettingsError(f"{path} is no UTF-8 text") from None


def _text(document: dict[str, Any], key: str, path: Path) -> str:
    value = document.get(key)
    if not isinstance(value, str):
        raise SettingsError(f"{path}: {key} is missing or no text")
    return value


def _digests(images: object, path: Path) -> dict[str, str]:
    if not isinstance(images, dict):
        raise SettingsError(f"{path}: images is missing or no object")
    found: dict[str, str] = {}
    for name, image in images.items():
        digest = image.get("digest") if isinstance(image, dict) else None
        if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
            raise SettingsError(f"{path}: images.{name[:100]!r} has no digest (sha256: and 64 digits)")
        found[name] = digest
    return found
