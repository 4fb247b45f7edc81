"""Tables in a terminal; importing a library for them would cost a third of all the CPU that a short command uses."""

import os
import shutil
import sys
import unicodedata
from collections.abc import Iterator, Sequence
from typing import Final

_BETWEEN: Final = "   "
_NARROWEST: Final = 4
_LONG_WORD: Final = 20
_BOLD: Final = "\x1b[1m"
_PLAIN: Final = "\x1b[0m"


def print_rows(rows: Sequence[Sequence[str]], *, bold_header: bool = False, bold_first_column: bool = False) -> None:
    """Print rows of equally many cells below each other; in a terminal, cells are folded so that the lines fit.

    Args:
        rows: The first one may be a header.
        bold_header: Whether a terminal shows the first row in bold letters.
        bold_first_column: The same for the first column.
    """
    columns = list(zip(*rows, strict=True))
    widths = [max(map(text_width, column)) for column in columns]
    available = terminal_width()
    if available is not None:
        words = [max(text_width(word) for cell in column for word in cell.split(" ")) for column in columns]
        widths = fitted(widths, words, available - len(_BETWEEN) * (len(widths) - 1))
    has_bold = available is not None and os.environ.get("TERM") not in {None, "", "dumb"}
    for row_number, row in enumerate(rows):
        for line in lines_of(row, widths):
            cells = [
                f"{_BOLD}{cell}{_PLAIN}"
                if has_bold and ((bold_header and row_number == 0) or (bold_first_column and column == 0))
                else cell
                for column, cell in enumerate(line)
            ]
            sys.stdout.write(_BETWEEN.join(cells).rstrip() + "\n")


def terminal_width() -> int | None:
    """Return the columns of the terminal that standard output is, None where it is a file or a pipe."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def fitted(widths: Sequence[int], words: Sequence[int], available: int) -> list[int]:
    """Return the widths of columns, the widest ones made narrower until all fit, if that is possible.

    Args:
        widths: Of the columns as they are.
        words: Of the longest word in each; a column in which one is not very long becomes narrower than that only when nothing else helps.
        available: Columns of the terminal.

    >>> fitted([5, 30, 40], [5, 12, 12], 45)
    [5, 20, 20]
    >>> fitted([17, 30], [17, 30], 37)
    [17, 20]
    """
    narrow = list(widths)
    for narrowest in ([min(word, _LONG_WORD) for word in words], [_NARROWEST] * len(widths)):
        while sum(narrow) > available:
            wide = [(width, column) for column, width in enumerate(narrow) if width > narrowest[column]]
            if not wide:
                break
            narrow[max(wide)[1]] -= 1
    return narrow


def lines_of(cells: Sequence[str], widths: Sequence[int]) -> Iterator[list[str]]:
    """Yield the lines of one row, each as its cells filled up with spaces."""
    folded = [fold(cell, width) for cell, width in zip(cells, widths, strict=True)]
    for number in range(max(map(len, folded))):
        parts = [parts[number] if number < len(parts) else "" for parts in folded]
        yield [part + " " * (width - text_width(part)) for part, width in zip(parts, widths, strict=True)]


def fold(text: str, width: int) -> list[str]:
    """Return a text in pieces that are not wider than `width` columns, words whole where they fit.

    >>> fold("a word or two", 8)
    ['a word', 'or two']
    >>> fold("abcdefgh", 3)
    ['abc', 'def', 'gh']
    """
    pieces, piece, used = [], "", 0
    for character in text:
        wide = _width(character)
        if used + wide > width and piece:
            head, space, rest = piece.rpartition(" ") if character != " " else (piece, " ", "")
            pieces.append(head if space else piece)
            piece = rest if space else ""
            used = text_width(piece)
            if character == " ":
                continue
        piece += character
        used += wide
    return [*pieces, piece]


def text_width(text: str) -> int:
    """Return how many columns of a terminal a text takes."""
    return len(text) if text.isascii() else sum(map(_width, text))


def _width(character: str) -> int:
    """Return the columns of one character (Unicode Standard Annex 11, East Asian Width)."""
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in {"W", "F"} else 1
