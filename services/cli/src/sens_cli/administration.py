"""The administration command of the API's package, as a program of its own: the same one as ``kubectl exec`` runs."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, ClassVar, Final

from sens_cli.log_lines import readable
from sens_cli.target import administration_environment
from sens_common.errors import SchemaError, SensError, SettingsError, UnavailableError

_TIMEOUT_SECONDS: Final = 3600


class RefusedError(SensError):
    """The program refused what was asked for."""


class UsageError(SensError):
    """The program did not understand what was asked for."""

    exit_code: ClassVar[int] = 2


_ERRORS: Final[dict[int, type[SensError]]] = {
    each.exit_code: each for each in (UsageError, UnavailableError, SchemaError, SettingsError)
}


def administer(data_dir: Path, room: str, command: str, *arguments: str) -> Any:
    """Run ``python -m sens_platform_api.admin ROOM COMMAND --json …``; return its document.

    Raises:
        SensError: It refused: has its text and its exit code.
    """
    printed = run_module(data_dir, "sens_platform_api.admin", room, command, "--json", *arguments)
    try:
        return json.loads(printed)
    except ValueError as error:
        raise SensError("the administration command answered with something else than JSON") from error


def run_module(data_dir: Path, name: str, *arguments: str) -> str:
    """Run a module with the settings of the instance (or of the environment); return what it printed.

    Raises:
        SensError: It failed: has its text and its exit code.
    """
    result = subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-P", "-m", name, *arguments],
        env=administration_environment(data_dir),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_SECONDS,
        check=False,
    )
    if result.returncode != 0:
        lines = [readable(line) for line in result.stderr.splitlines() if line.strip()]
        text = lines[-1] if lines else f"{name} ended with code {result.returncode}"
        raise _ERRORS.get(result.returncode, RefusedError)(text.removeprefix("python -m sens_platform_api.admin "))
    return result.stdout
