"""Each test runs a small service as a process of its own, because signals and exit codes are a process's."""

import json
import os
import subprocess
import sys
import textwrap

import pytest

PREAMBLE = """
import asyncio, os, signal
from sens_common import errors
from sens_common.lifecycle import run
from sens_common.settings import ServiceSettings
def stop_me(number=signal.SIGTERM):
    os.kill(os.getpid(), number)
"""


def run_service(body: str, **environment: str) -> tuple[int, list[dict[str, object]], str]:
    """Run a service whose main has the body; return its exit code, its log, and what it wrote beside the log."""
    program = f"{PREAMBLE}async def main(settings, stop):\n{textwrap.indent(textwrap.dedent(body), '    ')}\n"
    program += "run('example', ServiceSettings, main)"
    result = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=os.environ | environment,
    )
    entries = [json.loads(line) for line in result.stderr.splitlines() if line.startswith("{")]
    rest = "\n".join(line for line in result.stderr.splitlines() if not line.startswith("{"))
    return result.returncode, entries, result.stdout + rest


def events(entries: list[dict[str, object]]) -> list[object]:
    return [entry["event"] for entry in entries]


class TestRun:
    @pytest.mark.parametrize("number", ["SIGTERM", "SIGINT"])
    def test_ends_with_0_after_a_stop(self, number: str) -> None:
        code, entries, rest = run_service(f"stop_me(signal.{number}); await stop.wait()")

        assert (code, events(entries), rest) == (0, ["starting", "stopped"], "")

    def test_ends_with_the_errors_code_and_a_line_for_people(self) -> None:
        code, entries, rest = run_service("raise errors.UnavailableError('NATS is not there; start it')")

        assert code == 69
        assert (entries[-1]["level"], entries[-1]["error"]) == ("error", "NATS is not there; start it")
        assert rest == ""

    def test_ends_with_78_when_a_setting_is_wrong_and_names_it(self) -> None:
        code, entries, rest = run_service("raise AssertionError", SENS_LOG__LEVEL="loud")

        assert code == 78
        assert str(entries[-1]["error"]).startswith("SENS_LOG__LEVEL: ")
        assert "loud" not in str(entries)
        assert rest == ""

    def test_says_each_error_of_a_task_group(self) -> None:
        code, entries, rest = run_service(
            """
            async with asyncio.TaskGroup() as group:
                async def fail(error):
                    raise error
                group.create_task(fail(errors.UnavailableError('one')))
                group.create_task(fail(errors.SchemaError('two')))
            """
        )

        assert code == 70
        assert sorted(str(entry["error"]) for entry in entries if entry["level"] == "error") == ["one", "two"]
        assert rest == ""

    def test_shows_the_trace_of_an_unforeseen_error(self) -> None:
        code, _entries, rest = run_service("raise ZeroDivisionError('unforeseen')")

        assert code == 1
        assert "ZeroDivisionError: unforeseen" in rest

    @pytest.mark.parametrize("grouped", [False, True])
    def test_counts_a_stop_while_starting_as_a_stop(self, grouped: bool) -> None:
        body = "from sens_common.stopping import before_stop\nstop_me()\nawait before_stop(stop, asyncio.sleep(60))"
        if grouped:
            body = body.replace("await ", "async with asyncio.TaskGroup() as group: await ")

        code, entries, rest = run_service(body)

        assert (code, events(entries)[-1], rest) == (0, "stopped", "")
        assert {entry["level"] for entry in entries} == {"info"}

    def test_gives_up_work_that_does_not_end_in_time(self) -> None:
        code, entries, rest = run_service("stop_me(); await asyncio.sleep(600)", SENS_SHUTDOWN_SECONDS="0.05")

        assert (code, rest) == (0, "")
        assert "not stopped in time; what is under way is given up" in events(entries)
