"""Files that are there as a whole or not at all."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from sens_common.errors import SettingsError, words_of


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """Give a file to write; it gets its name, and takes the place of an older one, when the context is left without an error.

    Raises:
        SettingsError: The folder is missing, or nothing can be written there.
    """
    try:
        descriptor, part = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    except OSError as error:
        raise SettingsError(f"{path} can't be written: {words_of(error)}") from error
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        Path(part).chmod(0o666 & ~umask)  # mkstemp lets the owner alone read it
        Path(part).replace(path)
    except BaseException:
        Path(part).unlink(missing_ok=True)
        raise
