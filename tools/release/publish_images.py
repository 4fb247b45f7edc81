"""The command line of publishing: ``python -m tools.release.publish_images``. Called by scripts/publish-images."""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Final

from sens_cli.release.record import Record, dump
from sens_cli.release.record import parse as parse_record
from sens_cli.release.versions import ReleaseError
from tools.release import actions, publish
from tools.release.plan import AFTER_A_MERGE, BY_HAND, EVENTS, Plan, Request, make_plan
from tools.release.program import parser_of
from tools.release.registry import Registry, host_of
from tools.release.registry_http import Credentials
from tools.release.source import Source

_NAME: Final = "scripts/publish-images"
TOKEN = "SENS_PLATFORM_INFRA_WORKFLOW_TOKEN"  # noqa: S105 - the name of a variable


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the command line; what is wrong ends the program with exit code 2."""
    parser = parser_of(
        _NAME,
        "Publishes the images of a commit, step by step: plan, check, login, build, sign, tag, record, dispatch. "
        "Each step prints what the next ones are given; '-' reads it from the standard input. "
        "The registry's login is in SENS_REGISTRY_USER and SENS_REGISTRY_PASSWORD; for ghcr.io, a run's own in SENS_GHCR_USER and "
        "SENS_GHCR_TOKEN holds without them.",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    plan = commands.add_parser(
        "plan", allow_abbrev=False, help="decide what is published, or refuse it; print the plan"
    )
    event = "workflow_run (after a merge) or workflow_dispatch (by a person)"
    plan.add_argument("--event", required=True, help=event)
    plan.add_argument("--run-number", required=True, help="number of the run, from 1")
    plan.add_argument("--run-attempt", required=True, help="number of its attempt, from 1")
    plan.add_argument("--head-sha", default="", help="after a merge: the commit that was tested")
    plan.add_argument("--ref", default="", help="by a person: branch, tag or full commit; main when empty")
    plan.add_argument("--release-version", default="", help="by a person: the version; the run's own alpha when empty")
    plan.add_argument("--update-test-environment", default="", help="by a person: true or false; false when empty")
    plan.add_argument(
        "--registry", default="", help="host and folder of the images; that of GITHUB_REPOSITORY when empty"
    )
    plan.add_argument("--folder", type=Path, default=Path.cwd(), help="the clone; the working directory by default")

    def step(name: str, text: str, *files: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, allow_abbrev=False, help=text)
        for file in files:
            command.add_argument(f"--{file}", required=True, metavar="FILE", help=f"what '{file}' is in; '-' for stdin")
        return command

    step("check", "see that no tag of the plan is published from anything else", "plan")
    step("login", "log docker and cosign in to the plan's registry", "plan")
    build = step("build", "build and push without a tag what is not published yet; print the digests", "plan")
    build.add_argument("--source", help="https address of the repository, for the images' labels")
    for name, text in (
        ("sign", "sign what was built"),
        ("tag", "give what was built the plan's tag, which is never moved"),
    ):
        step(name, text, "plan").add_argument("--digests", required=True, metavar="JSON", help="what 'build' printed")
    step("record", "print the record of what is published", "plan")
    target = commands.add_parser("target", allow_abbrev=False, help="print the GitOps repository that dispatch tells")
    dispatch = step("dispatch", f"start the update of test with the token in {TOKEN}", "record")
    dispatch.add_argument("--event", required=True, help=f"{event}, which test follows backwards too")
    for command in (target, dispatch):
        command.add_argument(
            "--gitops-repository",
            default="",
            metavar="OWNER/NAME",
            help="sens-platform-infra of GITHUB_REPOSITORY's owner when empty",
        )
    return parser.parse_args(arguments)


def run(options: argparse.Namespace) -> None:
    """Do what the command says.

    Raises:
        ReleaseError: It is refused.
    """
    if options.command == "plan":
        _plan(options)
        return
    if options.command == "target":
        owner, _, name = _gitops_repository(options).partition("/")
        actions.set_output("gitops-owner", owner)
        actions.set_output("gitops-name", name)
        print(f"{owner}/{name}")
        return
    if options.command == "dispatch":
        _dispatch(options)
        return
    plan = Plan.parse(_read(options.plan))
    registry = Registry.logged_in(plan.registry)
    match options.command:
        case "check":
            kept = publish.standing(plan, registry)
            for image in plan.images:
                state = f"published from this commit as {kept[image]}: kept" if image in kept else "not published yet"
                print(f"{registry.repository(image)}:{plan.version}: {state}")
        case "login":
            host = host_of(plan.registry)
            print(publish.login(host, Credentials.from_environment(host)))
        case "build":
            _print("digests", json.dumps(publish.build(plan, registry, options.source), sort_keys=True))
        case "sign":
            publish.sign(registry, publish.parse_digests(plan, options.digests))
        case "tag":
            publish.tag(plan, registry, publish.parse_digests(plan, options.digests))
        case _:
            record = publish.make_record(plan, registry, publish.run_url())
            actions.add_summary(publish.summary(record))
            _print("record", _line(record))


def _plan(options: argparse.Namespace) -> None:
    registry = options.registry
    if not registry:
        registry = f"ghcr.io/{_repository('--registry')}".lower()
    request = Request(**{field.name: getattr(options, field.name) for field in fields(Request)})
    plan = make_plan(request, Source(options.folder), registry)
    actions.set_output("update-test", "true" if plan.update_test else "false")
    _print("plan", plan.dump())


def _dispatch(options: argparse.Namespace) -> None:
    if options.event not in EVENTS:
        raise ReleaseError(f"--event {options.event[:100]!r} is neither {AFTER_A_MERGE} nor {BY_HAND}.")
    record = parse_record(_read(options.record), "the record")
    repository = _gitops_repository(options)
    token = os.environ.get(TOKEN, "").strip()
    if not token:
        print(
            actions.notice(
                "Test was not updated",
                f"{record.release.version} is published, and {repository} was not told: the secret {TOKEN} is not set.",
            )
        )
        return
    publish.dispatch(record, repository, token, by_hand=options.event == BY_HAND)
    print(f"{repository}: the update of test to {record.release.version} was started")


def _gitops_repository(options: argparse.Namespace) -> str:
    named: str = options.gitops_repository
    return named or f"{_repository('--gitops-repository').partition('/')[0]}/sens-platform-infra"


def _repository(option: str) -> str:
    repository = os.environ.get("GITHUB_REPOSITORY", "")
    if not repository:
        raise ReleaseError(f"GITHUB_REPOSITORY is not set: name what is meant with {option}.")
    return repository


def _line(record: Record) -> str:
    return json.dumps(json.loads(dump(record)), sort_keys=True)


def _read(file: str) -> str:
    try:
        return sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ReleaseError(f"{file!r} can't be read: {error}.") from None


def _print(name: str, value: str) -> None:
    actions.set_output(name, value)
    print(value)


def main(arguments: Sequence[str]) -> int:
    """Do a step; return 1 when it is refused."""
    options = parse(arguments)
    try:
        run(options)
    except ReleaseError as error:
        print(f"{_NAME}: {actions.harmless(str(error))}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
