"""Looks for known vulnerabilities in the locked libraries. Called by scripts/vulnerabilities; needs Python alone."""

import argparse
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Final

from tools.vulnerabilities.locks import Accepted, locked, read_accepted
from tools.vulnerabilities.osv import ADDRESS, Database, UnreachableError, Vulnerability

_ROOT: Final = Path(__file__).resolve().parents[2]
_ACCEPTED: Final = "accepted-vulnerabilities.toml"


def main(arguments: Sequence[str]) -> int:
    """Print what was found; return 1 when there is a vulnerability that nobody has accepted."""
    parser = argparse.ArgumentParser(
        prog="scripts/vulnerabilities",
        description="Looks for known vulnerabilities in all locked libraries, in the open database OSV. Exits with 1 when there is one that is "
        f"not accepted in requirements/{_ACCEPTED}. Where the database can't be reached it says 'not run' and why, and exits with 0.",
        allow_abbrev=False,
    )
    parser.add_argument("--folder", type=Path, default=_ROOT / "requirements", help="where the locks are")
    parser.add_argument("--address", default=ADDRESS, help="the database; %(default)s by default")
    parser.add_argument("--must-run", action="store_true", help="exit with 2 where the database can't be reached")
    options = parser.parse_args(arguments)
    try:
        packages = locked(sorted(options.folder.glob("*.txt")))
        accepted = read_accepted(options.folder / _ACCEPTED)
        vulnerabilities = list(Database(options.address).vulnerabilities(sorted(packages)))
    except UnreachableError as error:
        print(f"not run: {error} No library was looked at.")
        return 2 if options.must_run else 0
    except (OSError, ValueError) as error:
        print(f"scripts/vulnerabilities: {error}", file=sys.stderr)
        return 1
    today = datetime.now(UTC).date()
    open_vulnerabilities = [
        vulnerability
        for vulnerability in vulnerabilities
        if not any(holds(one, vulnerability, today) for one in accepted)
    ]
    for vulnerability in vulnerabilities:
        for line in told(
            vulnerability,
            packages[vulnerability.package],
            [one for one in accepted if names(one, vulnerability)],
            today,
        ):
            print(line)
    for one in accepted:
        if not any(names(one, vulnerability) for vulnerability in vulnerabilities):
            print(f"{one.id} is accepted and no longer there: remove it from requirements/{_ACCEPTED}.")
    print(
        f"{len(packages)} versions of libraries, {len(vulnerabilities)} known vulnerabilities, {len(open_vulnerabilities)} of them not accepted."
    )
    return 1 if open_vulnerabilities else 0


def names(accepted: Accepted, vulnerability: Vulnerability) -> bool:
    """Tell whether an acceptance is about a vulnerability."""
    return accepted.id in {vulnerability.id, *vulnerability.aliases}


def holds(accepted: Accepted, vulnerability: Vulnerability, today: date) -> bool:
    """Tell whether a vulnerability is accepted today."""
    return names(accepted, vulnerability) and today <= accepted.until


def told(
    vulnerability: Vulnerability, locks: Sequence[str], accepted: Sequence[Accepted], today: date
) -> Iterator[str]:
    """Yield what a person has to know about a vulnerability."""
    also = f" ({', '.join(vulnerability.aliases)})" if vulnerability.aliases else ""
    yield f"{vulnerability.package.name} {vulnerability.package.version}: {vulnerability.id}{also}: {vulnerability.summary or 'no summary'}"
    yield f"    locked in {', '.join(locks)}; {'repaired in ' + ', '.join(vulnerability.fixed) if vulnerability.fixed else 'no version repairs it yet'}"
    for one in accepted:
        state = "accepted until" if today <= one.until else "WAS ACCEPTED ONLY UNTIL"
        yield f"    {state} {one.until}: {one.reason}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
