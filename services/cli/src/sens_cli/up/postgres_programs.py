"""The programs of PostgreSQL that a data folder is served with: the embedded ones, or others that the command line names."""

import subprocess
from pathlib import Path
from typing import Final

from sens_cli.up.data import DataFolder, write_file
from sens_common.errors import SensError

_NOTE: Final = "postgres-programs"
_NEEDED: Final = ("postgres", "initdb")
_TIMESCALEDB: Final = ("lib*/timescaledb.so", "lib*/*/timescaledb.so")
"""From the folder above the programs: where installations keep their extensions."""


def have_timescaledb(programs: Path) -> bool:
    """Tell whether TimescaleDB is installed with the programs in a folder."""
    return any(next(programs.parent.glob(pattern), None) for pattern in _TIMESCALEDB)


def note(data: DataFolder, programs: Path | None) -> None:
    """Keep in mind with which programs the data folder was made, where others can't serve it."""
    if programs is not None and have_timescaledb(programs):
        write_file(data.path / _NOTE, f"{programs}\n", 0o644)


def check(data: DataFolder, programs: Path | None) -> None:
    """Find out before the start what PostgreSQL would fail on.

    Args:
        data: The data folder.
        programs: Folder that the command line names, None for the embedded programs.

    Raises:
        SensError: The folder has no such programs, or they can't serve the data.
    """
    if programs is not None:
        _check_found(programs)
    noted = data.path / _NOTE
    if noted.exists() and not (programs is not None and have_timescaledb(programs)):
        made_with = noted.read_text(encoding="utf-8").strip()
        raise SensError(
            f"the data folder {data.path} was made with TimescaleDB, of the programs in {made_with}: start with"
            f" --postgres-programs {made_with}"
        )
    version = data.postgres / "PG_VERSION"
    if programs is not None and version.exists() and (old := version.read_text().strip()) != (new := _major(programs)):
        raise SensError(
            f"the data folder {data.path} is of PostgreSQL {old}, and the programs in {programs} are of {new}: a new major"
            " version needs a dump and a restore"
        )


def _check_found(programs: Path) -> None:
    for name in _NEEDED:
        if not (programs / name).is_file():
            raise SensError(f"--postgres-programs {programs}: there is no {name}; name the folder of an installation")


def _major(programs: Path) -> str:
    """Return the programs' major version."""
    try:
        answer = subprocess.run(  # noqa: S603 - what the command line names
            [str(programs / "postgres"), "--version"], capture_output=True, text=True, check=True, timeout=20
        )
        return answer.stdout.split()[2].partition(".")[0]
    except (OSError, subprocess.SubprocessError, IndexError) as error:
        raise SensError(f"--postgres-programs {programs}: postgres does not tell its version: {error}") from error
