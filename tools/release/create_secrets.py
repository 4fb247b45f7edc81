"""Asks for the cluster's secrets and creates them. Called by scripts/create-secrets of the GitOps repository; needs kubectl.

A value comes from a prompt without echo, or from the standard input, and is printed nowhere.
"""

import argparse
import getpass
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final, TextIO

from sens_cli.release.versions import ReleaseError
from tools.release.cluster_secrets import Question, create, read_app_key, set_webhook_secret, wanted
from tools.release.kubectl import ClusterAdministration
from tools.release.program import parser_of, run_program

_NAME: Final = "scripts/create-secrets"


def answers_of(stream: TextIO) -> Callable[[Question], str]:
    """Read ``key=value``, one a line; return what answers a question with them.

    Raises:
        ReleaseError: A line is something else; its content is not in the text.
    """
    answers = {}
    for number, line in enumerate(stream, 1):
        key, sign, value = line.rstrip("\r\n").partition("=")
        if line.strip():
            if not sign:
                raise ReleaseError(f"Line {number} of the standard input is not key=value.")
            answers[key.strip()] = value

    def find(question: Question) -> str:
        if question.key not in answers:
            raise ReleaseError(f"{question.key} is missing on the standard input.")
        return answers[question.key]

    return find


def prompt(question: Question) -> str:
    """Ask a person."""
    text = f"{question.text}{' (empty: a random one)' if question.made_when_empty else ''}: "
    return getpass.getpass(text) if question.secret else input(text)


def run(options: argparse.Namespace, ask: Callable[[Question], str]) -> Iterator[str]:
    """Create what is missing, and yield what was done.

    Raises:
        ReleaseError: A value is missing, or the cluster refuses.
    """
    kubectl = ClusterAdministration(options.context)
    if options.part == "webhook":
        yield set_webhook_secret(kubectl, ask, replace=options.replace)
        return
    parts = wanted(options.registry, options.account, _app_key(options))[options.part]
    chosen = [one for one in parts if options.only in {None, one.name}]
    if not chosen:
        raise ReleaseError(f"{options.part} has no secret {options.only!r}: {', '.join(one.name for one in parts)}.")
    for one in chosen:
        yield create(kubectl, one, ask, replace=options.replace)


def _app_key(options: argparse.Namespace) -> str | None:
    if options.github_app_key is None:
        return None
    if options.part != "argocd":
        raise ReleaseError(f"--github-app-key is for argocd, and {options.part} has no access to repositories.")
    try:
        return read_app_key(Path(options.github_app_key).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ReleaseError(f"{options.github_app_key} can't be read: {type(error).__name__}.") from None


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the command line; what is wrong ends the program with exit code 2."""
    parser = parser_of(
        _NAME,
        "Creates the secrets of one part of the cluster, from a prompt or from lines key=value on the standard "
        "input, and prints none of them.",
        "Keys: registry-user, registry-token and postgres-password for test and production; repository-user and "
        "repository-token for argocd (with --github-app-key: github-app-id, github-app-installation-id); webhook-secret for webhook. "
        "An empty postgres-password makes a random one. The passwords of the services' own in the database and in NATS are random, "
        "and added to a secret that has them not.",
    )
    parser.add_argument("part", choices=["test", "production", "argocd", "webhook"])
    parser.add_argument("--replace", action="store_true", help="put other values in the place of those that exist")
    parser.add_argument("--only", metavar="NAME", help="this secret alone")
    parser.add_argument(
        "--github-app-key",
        metavar="FILE",
        help="argocd: read the repositories as a GitHub App with this private key, instead of with a token",
    )
    parser.add_argument("--context", help="context of kubectl; the current one by default")
    parser.add_argument("--registry", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--account", required=True, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> int:
    """Create what is missing and say what was done; return 1 when something was refused."""
    options = parse(arguments)
    try:
        return run_program(_NAME, lambda: run(options, prompt if sys.stdin.isatty() else answers_of(sys.stdin)))
    except (EOFError, KeyboardInterrupt):
        print(f"\n{_NAME}: stopped; what it has not named was not created.", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
