"""A program named kubectl that answers from a table and writes down how it was called."""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

_PROGRAM = """#!{python} -IS
import json, pathlib, sys, time
folder = pathlib.Path(__file__).parent
arguments = sys.argv[1:]
given = sys.stdin.read()
with (folder / "calls").open("a") as calls:
    calls.write(json.dumps([arguments, given]) + "\\n")
table = json.loads((folder / "table").read_text())
for words, answer in table["answers"]:
    if all(any(word in argument for argument in arguments) for word in words):
        if answer.get("hangs"):
            time.sleep(600)
        sys.stdout.write(answer.get("output", "") * answer.get("times", 1))
        sys.stderr.write(answer.get("errors", ""))
        sys.exit(answer.get("code", 0))
if "create" in arguments and json.loads(given)["kind"] == "SelfSubjectReview":
    print(json.dumps({{"status": {{"userInfo": {{"username": table["user"]}}}}}}))
    sys.exit(0)
if "create" in arguments:
    for review in json.loads(given)["items"]:
        asked = review["spec"]["resourceAttributes"]
        key = [asked["verb"], asked["resource"], asked.get("subresource", ""), asked.get("namespace", "")]
        review["status"] = {{"allowed": key in table["rights"]}}
        print(json.dumps(review, indent=4))
    sys.exit(0)
sys.stderr.write("the table has no answer for " + repr(arguments))
sys.exit(99)
"""

type Answer = Mapping[str, str | int | bool]
"""``output``, which is printed several ``times``; ``errors``, ``code``; or ``hangs``."""


class FakeKubectl:
    """The program in a folder that is first on the PATH."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._answers: list[tuple[list[str], Answer]] = []
        self._rights: list[tuple[str, str, str, str]] = []
        self._user = "an-administrator"
        program = folder / "kubectl"
        program.write_text(_PROGRAM.format(python=sys.executable), encoding="utf-8")
        program.chmod(0o755)
        self._write()

    def answer(self, words: Sequence[str], answer: Answer) -> None:
        """Answer so when each of the words is part of an argument; earlier answers come first."""
        self._answers.append((list(words), answer))
        self._write()

    def allow(self, verb: str, resource: str, namespace: str, subresource: str = "") -> None:
        """Answer an access review with yes; all others are answered with no."""
        self._rights.append((verb, resource, subresource, namespace))
        self._write()

    def be(self, user: str) -> None:
        """Be logged in as a user."""
        self._user = user
        self._write()

    @property
    def calls(self) -> list[list[str]]:
        """The arguments of every call so far."""
        try:
            lines = (self._folder / "calls").read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return []
        return [json.loads(line)[0] for line in lines]

    def _write(self) -> None:
        table = {"answers": self._answers, "rights": self._rights, "user": self._user}
        (self._folder / "table").write_text(json.dumps(table), encoding="utf-8")


@pytest.fixture
def fake_kubectl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeKubectl:
    """A kubectl that has no answers yet."""
    folder = tmp_path / "programs"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder), prepend=":")
    return FakeKubectl(folder)
