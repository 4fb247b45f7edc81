"""Where the product lies on this machine: its checkout, its commit, its data folder."""

import os
import subprocess
from pathlib import Path
from typing import Final

DATA_DIR_VARIABLE: Final = "SENS_DATA_DIR"


def checkout() -> Path | None:
    """Return the root of the source checkout that this package runs from, None when it was installed otherwise."""
    for folder in Path(__file__).resolve().parents:
        if (folder / "services" / "cli" / "pyproject.toml").is_file():
            return folder
    return None


def default_data_dir() -> Path:
    """Return the data folder: ``.sens`` in the checkout, else in the working directory."""
    named = os.environ.get(DATA_DIR_VARIABLE)
    if named:
        return Path(named)
    return (checkout() or Path.cwd()) / ".sens"


def product_commit() -> str:
    """Return the full SHA of the checkout's commit, or ``unknown``."""
    named = os.environ.get("SENS_PRODUCT_COMMIT")
    if named:
        return named
    root = checkout()
    if root is None or not (root / ".git").exists():
        return "unknown"
    try:
        answer = subprocess.run(  # noqa: S603 - our own folder is the only input
            ["git", "-C", str(root), "rev-parse", "HEAD"],  # noqa: S607 - git is where the user has it
            capture_output=True,
            text=True,
            timeout=5,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return answer.stdout.strip() if answer.returncode == 0 else "unknown"
