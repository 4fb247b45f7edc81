"""Fails when anything but an environment's release differs from main.

Called by scripts/release-guard of the GitOps repository; needs Python and git alone.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from sens_cli.release.versions import ENVIRONMENTS, ReleaseError, check_environment
from tools.release.clone import Clone
from tools.release.environment import EnvironmentFiles
from tools.release.program import add_folder, parser_of, printable, run_program

_NAME: Final = "scripts/release-guard"
_ABSENT: Final = "000000"
_REGULAR: Final = "100644"
_SHOWN: Final = 20
_KINDS: Final = {"120000": "is a symbolic link", "160000": "is a submodule", "100755": "is executable"}


def check(clone: Clone, environment: EnvironmentFiles, base: str, head: str) -> None:
    """See that a commit differs from where it left main in nothing but a release of an environment.

    Args:
        clone: The GitOps repository.
        environment: Whose release.
        base: A commit of main.
        head: The commit.

    Raises:
        ReleaseError: It differs in something else; the text names each file.
    """
    start = clone.attempt("merge-base", base, head)
    if start is None:
        raise ReleaseError(
            f"{head[:12]} and {base[:12]} have no commit in common: fetch the whole history (fetch-depth: 0)."
        )
    raw = clone.git("diff-tree", "-r", "--raw", "-z", "--no-renames", "--no-abbrev", start, head)
    if not raw:
        return
    if wrong := sorted(printable(text) for text in _differences(environment, raw)):
        raise ReleaseError(
            f"A release of {environment.name} changes {', '.join(sorted(environment.paths))}, and nothing else. "
            f"Here: {'; '.join(wrong[:_SHOWN])}{'; …' if len(wrong) > _SHOWN else ''}."
        )
    record = environment.read(clone, head)
    if record is None:
        raise ReleaseError(
            f"{environment.record} is missing at {head[:12]}: a release can't be taken away, only replaced."
        )
    check_environment(record.release.version, environment.name)
    if environment.write(clone, start, record)[environment.application] != clone.read(head, environment.application):
        raise ReleaseError(
            f"{environment.application} differs in more than the product commit and the release values: change the rest of it in "
            "a pull request of its own."
        )


def _differences(environment: EnvironmentFiles, raw: str) -> Iterator[str]:
    """Yield what is wrong with each file that differs ("git help diff-tree", raw output format)."""
    fields = raw.split("\0")
    for entry, path in zip(fields[0::2], fields[1::2], strict=False):
        before, after, _, _, status = entry.removeprefix(":").split()
        if path not in environment.paths:
            yield f"{path} {'is deleted' if status == 'D' else 'is added' if status == 'A' else 'is changed'}"
        elif after == _ABSENT:
            yield f"{path} is deleted"
        elif after != _REGULAR or before not in (_ABSENT, _REGULAR):
            yield f"{path} {_KINDS.get(after, f'has the mode {after} after {before}')}"


def main(arguments: Sequence[str]) -> int:
    """Check, and say what was checked; return 1 when something else differs."""
    parser = parser_of(
        _NAME,
        "Fails when anything but an environment's release differs from main: another file, a mode, a link, a "
        "deletion, a line of the Application, something that is in no commit.",
    )
    parser.add_argument("environment", choices=sorted(ENVIRONMENTS))
    parser.add_argument("--base", default="refs/remotes/origin/main", help="a commit of main; origin/main by default")
    parser.add_argument("--head", help="the commit to check; HEAD and what is in no commit yet by default")
    add_folder(parser, Path.cwd(), "the working directory")
    options = parser.parse_args(arguments)
    return run_program(_NAME, lambda: checked(options))


def checked(options: argparse.Namespace) -> str:
    """Check what the options name, and return what was checked."""
    clone, environment = Clone(options.folder), EnvironmentFiles(options.environment)
    head = clone.commit(options.head or "HEAD")
    check(clone, environment, clone.commit(options.base), head)
    if options.head is None:
        clone.require_clean()
    return f"{head[:12]} differs from main in nothing but a release of {options.environment}."


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
