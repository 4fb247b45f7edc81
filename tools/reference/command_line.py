"""The page of the command `sens`."""

import re

import typer
from typer.cli import get_docs_for_click

from sens_cli.__main__ import app


def command_line_page() -> str:
    """Return the page of the command `sens`, as typer describes it."""
    command = typer.main.get_command(app)
    text = get_docs_for_click(obj=command, ctx=typer.Context(command), name="sens")
    lines = ["# Command line", "", "In a clone the command is `.venv/bin/sens`. Every command has `--help`."]
    path = ""
    for line in text.splitlines()[1:]:
        if heading := re.fullmatch(r"#+ `(.+)`", line):
            path = heading[1]
        inner = re.fullmatch(
            r"\* `([a-z][a-z-]*)`(?:: .*)?", line
        )  # a command of the current one, with a text cut short
        if inner is not None:
            words = f"{path or 'sens'} {inner[1]}"
            lines.append(f"* [`{words}`](#{words.replace(' ', '-')})")
        elif not line.startswith("* `--help`"):
            lines.append(line)
    # Click's mark for lines that stay lines begins the examples.
    return re.sub(r"\x08\n((?:.+\n)+)", r"```sh\n\1```\n", "\n".join(lines)).replace("**Options**:\n\n\n", "").rstrip()
