"""What the API's package does past the API, where it is installed: it is found as an entry point, never imported by name."""

from typing import Any, Final

from sens_common.errors import SensError

DEAD_LETTERS: Final = "sens.dead_letters"


def load(group: str) -> Any:
    """Return the only object of a group of entry points.

    Raises:
        SensError: The package that has it is not installed.
    """
    from importlib.metadata import entry_points  # noqa: PLC0415 - looks at every installed package

    for found in entry_points(group=group):
        return found.load()
    raise SensError(
        "the administration is not part of this installation: it comes with the package sens-platform-api; in a cluster, run the same"
        " command in the API's pod with kubectl exec"
    )
