"""Tables as Markdown with columns that line up, and how things are called in them."""

from collections.abc import Sequence
from types import MappingProxyType
from typing import Final

from tools.bench.figures import GENERATOR

PAYLOADS: Final = MappingProxyType(
    {
        "numbers": "5 numbers",
        "numbers-and-text": "5 numbers and a text",
        "twenty-numbers": "20 numbers",
        "split": "5 numbers in 5 messages",
    }
)
"""Payloads as they are shown."""
NAMES: Final = MappingProxyType(
    {
        "broker": "broker",
        "ingestion": "ingestion",
        "nats": "NATS",
        "telemetry": "telemetry",
        "postgres": "PostgreSQL",
        "telegraf": "Telegraf",
        "subscriber": "subscriber",
        GENERATOR: "generator",
    }
)
"""Processes in the order of the path, as they are shown."""


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table whose first column is text and whose others are figures."""
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        first, *others = (
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        return f"| {' | '.join([first, *others])} |"

    rule = (
        "| "
        + " | ".join("-" * (width - bool(column)) + ":" * bool(column) for column, width in enumerate(widths))
        + " |"
    )
    return "\n".join([line(head), rule, *(line(row) for row in rows)])
