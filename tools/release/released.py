"""What an environment has, as the files in the clone say. Called by scripts of the GitOps repository; needs Python alone."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from sens_cli.release.record import parse as parse_record
from sens_cli.release.record import values
from sens_cli.release.versions import ENVIRONMENTS, ReleaseError
from tools.release.environment import EnvironmentFiles
from tools.release.program import add_folder, parser_of, run_program

# The GitOps repository, where this is scripts/lib/tools/release.
_ROOT: Final = Path(__file__).resolve().parents[4]
_HERE: Final = "the work tree"


class WorkTree:
    """The files of a clone as they are, committed or not.

    Args:
        folder: The clone.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self, commit: str, path: str) -> str | None:
        """Return a file's text, None when it is not there; the commit has no say."""
        del commit
        try:
            return (self._folder / path).read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError) as error:
            raise ReleaseError(f"{self._folder / path} can't be read: {error}.") from error


def release_values(environment: EnvironmentFiles, files: WorkTree) -> str:
    """Return the values of the chart that follow from an environment's release.

    Raises:
        ReleaseError: There is no release, or its files contradict each other.
    """
    record = environment.read(files, _HERE)
    if record is None:
        raise ReleaseError(f"{environment.name} has no release yet: there is no {environment.record}.")
    return values(record)


def rewrite(environment: EnvironmentFiles, files: WorkTree, folder: Path) -> str:
    """Write commit and values of ``release.json`` into the Application, whatever it has; return what was done.

    Raises:
        ReleaseError: There is no record, or the Application lacks its places.
    """
    text = files.read(_HERE, environment.record)
    if text is None:
        raise ReleaseError(f"{environment.record} is missing: there is no release to write into the Application.")
    record = parse_record(text, environment.record)
    written = environment.write(files, _HERE, record)[environment.application]
    if written == files.read(_HERE, environment.application):
        return f"{environment.application} has {record.release.version} already."
    (folder / environment.application).write_text(written, encoding="utf-8", newline="\n")
    return f"{environment.application} has {record.release.version} now."


def main(arguments: Sequence[str]) -> int:
    """Print or write it; return 1 when it is refused."""
    parser = parser_of(
        "python3 -m tools.release.released",
        "values: prints the chart's values that follow from a release. "
        "rewrite: writes commit and values of release.json into the Application.",
    )
    parser.add_argument("command", choices=["values", "rewrite"])
    parser.add_argument("environment", choices=sorted(ENVIRONMENTS))
    add_folder(parser, _ROOT, "the one this is in")
    options = parser.parse_args(arguments)
    environment, files = EnvironmentFiles(options.environment), WorkTree(options.folder)
    if options.command == "values":
        return run_program(options.command, lambda: release_values(environment, files).removesuffix("\n"))
    return run_program(options.command, lambda: rewrite(environment, files, options.folder))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
