"""Plays a workflow of GitHub: bash runs the scripts of its jobs in their order, with the values that GitHub would give them.

A step that uses an action is the test's own preparation.
"""

import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from support.git import environment

# What is not set there is an empty text, as in GitHub's expressions.
_MAY_BE_EMPTY = ("github.event.", "inputs.", "needs.", "secrets.", "steps.", "vars.")


class PlayedWorkflow:
    """A run of a workflow.

    Attributes:
        runner: Variables that the runner sets.
        contexts: What expressions refer to, by its full name.
        log: What all steps have printed.
        failed: Name of the step that failed, or its script; None when none did.
        folder: For the files of the runner: what step 1 of the job `plan` puts out is in `plan-1`.
    """

    def __init__(
        self, file: Path, checkout: Path, folder: Path, runner: Mapping[str, str], contexts: Mapping[str, str]
    ) -> None:
        self.contexts = dict(contexts)
        self.folder = folder
        self.log = ""
        self.failed: str | None = None
        self._file = file
        self._checkout = checkout
        self.runner = dict(runner)

    @property
    def jobs(self) -> dict[str, dict[str, Any]]:
        """Return its jobs by name, in their order."""
        jobs: dict[str, dict[str, Any]] = yaml.safe_load(self._file.read_text(encoding="utf-8"))["jobs"]
        return jobs

    def job(self, name: str) -> bool:
        """Run a job's scripts up to the first that fails; tell whether all of them succeeded."""
        job = self.jobs[name]
        cwd = self._checkout / job.get("defaults", {}).get("run", {}).get("working-directory", ".")
        for number, step in enumerate(step for step in job["steps"] if "run" in step):
            if "if" in step and not self._holds(step["if"]):
                continue
            output = self.folder / f"{name}-{number}"
            output.write_text("")
            given = {key: self._value(str(text)) for key, text in {**job.get("env", {}), **step.get("env", {})}.items()}
            done = subprocess.run(
                ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]],
                cwd=cwd,
                env=environment() | self.runner | {"GITHUB_OUTPUT": str(output)} | given,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
                timeout=100,
            )
            self.log += done.stdout + done.stderr
            if done.returncode:
                self.failed = step.get("name", step["run"])
                return False
            for line in output.read_text().splitlines():
                key, _, value = line.partition("=")
                self.contexts[f"steps.{step.get('id')}.outputs.{key}"] = value
        for key, text in job.get("outputs", {}).items():
            self.contexts[f"needs.{name}.outputs.{key}"] = self._value(text)
        return True

    def _holds(self, condition: str) -> bool:
        parts = re.fullmatch(r"(\S+) != '(.*)'", condition)
        assert parts is not None, condition
        return self._context(parts[1]) != parts[2]

    def _value(self, text: str) -> str:
        def first(match: re.Match[str]) -> str:
            return next((found for name in match[1].split(" || ") if (found := self._context(name))), "")

        return re.sub(r"\$\{\{ (.+?) \}\}", first, text)

    def _context(self, name: str) -> str:
        assert name in self.contexts or name.startswith(_MAY_BE_EMPTY), f"{name} is not known"
        return self.contexts.get(name, "")
