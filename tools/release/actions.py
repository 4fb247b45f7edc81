"""What a step of a GitHub Actions workflow tells its run: outputs, a notice, its summary.

The forms are those of docs.github.com/actions/reference/workflows-and-actions/workflow-commands. Without the files that a run names in its environment,
nothing is written: the same commands run on any machine.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from sens_cli.release.versions import ReleaseError
from tools.release.program import printable

_MAXIMUM: Final = 4000


def set_output(name: str, value: str, environment: Mapping[str, str] = os.environ) -> None:
    """Give a step's output, for the steps and jobs that follow.

    Raises:
        ReleaseError: The value has more than one line, with which it could give further outputs.
    """
    if not value.isprintable():
        raise ReleaseError(f"The output {name} would have line breaks or control characters in it: {value[:100]!r}.")
    _append("GITHUB_OUTPUT", f"{name}={value}\n", environment)


def add_summary(markdown: str, environment: Mapping[str, str] = os.environ) -> None:
    """Add to what the run's page shows."""
    _append("GITHUB_STEP_SUMMARY", markdown, environment)


def notice(title: str, text: str) -> str:
    """Return the line that shows a notice on the run's page."""
    return f"::notice title={_escaped(title).replace(':', '%3A').replace(',', '%2C')}::{_escaped(text)}"


def harmless(text: str) -> str:
    """Return a text as it can be printed in a run: one line, not a command of its log, not too long."""
    # The older form of a command is found anywhere in a line.
    return printable(text).replace("##[", "# #[")[:_MAXIMUM]


def _escaped(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _append(variable: str, text: str, environment: Mapping[str, str]) -> None:
    if file := environment.get(variable):
        with Path(file).open("a", encoding="utf-8") as output:
            output.write(text)
