"""The command `sens` in the process of the test."""

from typing import cast

from sens_cli.__main__ import main


def sens(*arguments: str) -> int:
    """Run a command; return its exit code."""
    try:
        main(arguments)
    except SystemExit as end:
        return cast("int", end.code)
    return 0
