"""JSON documents that commands are given in files."""

import json
from pathlib import Path
from typing import Any, Final

import typer

_MOST_BYTES: Final = 10_000_000


def read_bytes(path: Path) -> bytes:
    """Return what is in a file.

    Raises:
        BadParameter: It can't be read, or is too large.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise typer.BadParameter(f"{path} can't be read: {error.strerror or error}") from None
    if len(content) > _MOST_BYTES:
        raise typer.BadParameter(f"{path} has more than {_MOST_BYTES:,} bytes")
    return content


def read_text(path: Path) -> str:
    """Return the text of a file.

    Raises:
        BadParameter: It can't be read, or is not text.
    """
    try:
        return read_bytes(path).decode()
    except UnicodeDecodeError:
        raise typer.BadParameter(f"{path} is not text in UTF-8") from None


def read_json[Document](path: Path, kind: type[Document]) -> Document:
    """Return the JSON document of a file.

    Raises:
        BadParameter: It can't be read, or is not a JSON document of this kind, an object or an array.
    """
    wanted = "a JSON object" if kind is dict else "a JSON array"
    try:
        document: Any = json.loads(read_text(path))
    except ValueError as error:
        raise typer.BadParameter(f"{path} is not JSON: {error}; {wanted} is needed") from None
    if not isinstance(document, kind):
        raise typer.BadParameter(f"{path} holds no {wanted.removeprefix('a ')}, which is needed")
    return document
