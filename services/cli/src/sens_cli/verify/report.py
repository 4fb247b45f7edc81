"""What ``sens verify`` prints: a table with remedies for people, JSON for scripts."""

import sys
from collections import Counter
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from sens_cli.verify.outcome import Outcome, Status
from sens_common.command_line.output import show

_STYLES = {Status.OK: "green", Status.FAILED: "bold red", Status.NOT_RUN: "yellow"}


def print_report(outcomes: Sequence[Outcome]) -> None:
    """Print a line for each check, remedies below failures, and the counts."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("STATUS", no_wrap=True)
    table.add_column("CHECK", no_wrap=True)
    table.add_column("DETAIL", overflow="fold")
    for outcome in outcomes:
        table.add_row(Text(outcome.status, _STYLES[outcome.status]), outcome.name, Text(show(outcome.detail)))
        if outcome.remedy is not None:
            table.add_row("", "", Text(f"Remedy: {show(outcome.remedy)}", "bold"))
    # Into a pipe it writes plain lines that nothing wraps.
    target = Console(highlight=False, width=None if sys.stdout.isatty() else 10_000)
    target.print(table)
    target.print()
    target.print(Text(", ".join(f"{count} {status}" for status, count in counts(outcomes).items())))


def document(environment: str, outcomes: Sequence[Outcome], *, passed: bool) -> dict[str, Any]:
    """Return the report as a JSON document; its form is described in docs/operations/verify.md."""
    return {
        "environment": environment,
        "passed": passed,
        "counts": {_word(status): count for status, count in counts(outcomes).items()},
        "checks": [
            {
                "name": outcome.name,
                "status": _word(outcome.status),
                "detail": outcome.detail,
                "remedy": outcome.remedy,
                "seconds": outcome.seconds,
            }
            for outcome in outcomes
        ],
    }


def counts(outcomes: Sequence[Outcome]) -> dict[Status, int]:
    """Return how many checks ended in each way."""
    found = Counter(outcome.status for outcome in outcomes)
    return {status: found[status] for status in Status}


def _word(status: Status) -> str:
    return status.value.replace(" ", "_")
