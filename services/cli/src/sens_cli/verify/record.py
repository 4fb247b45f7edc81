"""What should be running: the record of a release (``release.json`` of the GitOps repository), or what options say."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from sens_cli.release.record import MAXIMUM_BYTES, parse_released
from sens_cli.release.versions import ReleaseError, Version
from sens_common.errors import SettingsError

_COMMIT = re.compile(r"[0-9a-f]{7,40}")


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

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """Read the record of a release, None when there is none yet.

        Raises:
            SettingsError: It can't be read; the text names file and key.
        """
        try:
            release, images = parse_released(read_limited(path), str(path))
        except FileNotFoundError:
            return None
        except ReleaseError as error:
            raise SettingsError(str(error)) from None
        digests = {name: image.digest for name, image in images.items()}
        return cls(version=str(release.version), commit=release.product_commit, images=digests)

    @property
    def root(self) -> str | None:
        """The version without its pre-release: what the services answer, whatever their images are tagged with."""
        return None if self.version is None else str(Version.parse(self.version).core)

    @property
    def channel(self) -> str | None:
        """Channel of the version: alpha, rc or stable; None when there is no version or it is of none."""
        try:
            return Version.parse(self.version or "").channel
        except ReleaseError:
            return None


def version(text: str, what: str) -> str:
    """Return a version.

    Raises:
        SettingsError: It is none; the text begins with what it is of.
    """
    try:
        return str(Version.parse(text))
    except ReleaseError as error:
        raise SettingsError(f"{what}: {error}") from None


def commit(text: str, what: str) -> str:
    """Return a commit; raises as `version`."""
    if not _COMMIT.fullmatch(text):
        raise SettingsError(f"{what}: {text[:100]!r} is not a commit: 7 to 40 lower-case hexadecimal digits")
    return text


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
        raise SettingsError(f"{path} is not UTF-8 text") from None
