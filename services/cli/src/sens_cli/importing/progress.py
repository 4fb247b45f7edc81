"""How far an import is: a file beside the one that is imported."""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from sens_cli.files import whole_file
from sens_common.errors import SettingsError

_IDENTIFYING_BYTES: Final = 1 << 20


@dataclass
class Progress:
    """How far an import is.

    Attributes:
        identity: Of the file and of how it is read.
        lines: So many lines, those that are empty or comments left out, were answered by the API.
        accepted: So many of them are in the stream.
        refused: So many are not.
        complete: Whether there are no more.
    """

    identity: str
    lines: int = 0
    accepted: int = 0
    refused: int = 0
    complete: bool = False

    def write(self, path: Path) -> None:
        """Keep it, as a whole or not at all."""
        with whole_file(path) as file:
            file.write(json.dumps(asdict(self), indent=2).encode())


def identity_of(path: Path, options: Mapping[str, object]) -> str:
    """Return what tells a file and how it is read from others: its size, its beginning, the options.

    Raises:
        SettingsError: It can't be read.
    """
    try:
        with path.open("rb") as file:
            beginning = file.read(_IDENTIFYING_BYTES)
            size = os.fstat(file.fileno()).st_size
    except OSError as error:
        raise SettingsError(f"{path} can't be read: {error.strerror}") from error
    told = json.dumps([size, dict(options)], sort_keys=True, default=str).encode()
    return hashlib.sha256(told + beginning).hexdigest()[:32]


def read_progress(path: Path, identity: str) -> Progress:
    """Return how far an import is; at its beginning where it was never begun.

    Raises:
        SettingsError: The file is of another import.
    """
    try:
        found = Progress(**json.loads(path.read_bytes()))
    except FileNotFoundError:
        return Progress(identity)
    except (OSError, ValueError, TypeError) as error:
        raise SettingsError(
            f"{path} can't be read as the state of an import: {error}; delete it to begin again"
        ) from error
    if found.identity != identity:
        raise SettingsError(
            f"{path} is the state of another file or of other options; delete it to begin again, or name another with --state"
        )
    return found
