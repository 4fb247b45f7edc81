"""Follows a run of a codec, and shows what it has found."""

import time
from collections.abc import Callable
from typing import Any, Final

from sens_cli.api import Api
from sens_common.command_line.output import print_json, print_pairs, print_table
from sens_common.errors import SensError

_INTERVAL_SECONDS: Final = 1.0
ENDED: Final = frozenset({"finished", "cancelled", "failed"})


class RunFailedError(SensError):
    """A run has failed, or somebody has cancelled it."""


def follow(
    api: Api, run: dict[str, Any], tell: Callable[[str], None], *, pause: Callable[[float], None] = time.sleep
) -> dict[str, Any]:
    """Wait for the end of a run; return it.

    Args:
        api: Of its tenant.
        run: As the API has answered.
        tell: Told, a line each, when what it is at changes.
        pause: Sleeps for so many seconds.
    """
    told = ""
    while run["state"] not in ENDED:
        line = f"run {run['id']} is {run['state']}: {run['counts']['messages']:,} messages so far"
        if line != told:
            tell(line)
            told = line
        pause(_INTERVAL_SECONDS)
        run = api.get(f"codec-runs/{run['id']}")
    return run


def show(run: dict[str, Any], *, as_json: bool) -> None:
    """Print a run.

    Raises:
        RunFailedError: It has not ended well.
    """
    if as_json:
        print_json(run)
    else:
        _print(run)
    if run["state"] in {"failed", "cancelled"}:
        raise RunFailedError(f"run {run['id']} was {run['state']}" + (f": {run['failure']}" if run["failure"] else ""))


def _print(run: dict[str, Any]) -> None:
    counts = run["counts"]
    pairs: list[tuple[str, object]] = [("run", run["id"]), ("state", run["state"]), ("messages", counts["messages"])]
    if run["kind"] == "compare":
        pairs += [
            ("the same", counts["unchanged"]),
            ("different", counts["changed"]),
            (f"failing with {run['before']} alone", counts["failing_before"]),
            (f"failing with {run['codec']} alone", counts["failing_after"]),
            ("failing with both", counts["failed"]),
        ]
    else:
        pairs += [
            ("messages of which nothing changes", counts["unchanged"]),
            ("messages with changes", counts["changed"]),
            ("messages that can't be decoded or stored", counts["failed"]),
            ("values added", counts["added"]),
            ("values changed", counts["changed_values"]),
            ("values removed", counts["removed"]),
            ("readings without a message", counts["uncovered"]),
        ]
    print_pairs(pairs)
    if run["differences"]:
        rows = [
            (
                each["time"],
                *((each["device"],) if run["kind"] == "compare" else ()),
                each["metric"],
                each["before"],
                each["after"],
            )
            for each in run["differences"]
        ]
        heads = ("TIME", *(("DEVICE",) if run["kind"] == "compare" else ()), "METRIC", "BEFORE", "AFTER")
        print_table(heads, rows, empty="")
    if run["errors"]:
        rows = [
            (each["time"], f"{each['sequence']}/{each['index']}", each["reason"], each["detail"])
            for each in run["errors"]
        ]
        print_table(("TIME", "ENVELOPE", "REASON", "DETAIL"), rows, empty="")
    if run["uncovered"]:
        rows = [(each["first"], each["last"], each["readings"]) for each in run["uncovered"]]
        print_table(("WITHOUT A MESSAGE FROM", "TO", "READINGS"), rows, empty="")
