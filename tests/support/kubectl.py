"""A program named kubectl that answers from a table, keeps secrets as a cluster does, and writes down how it was called."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from support.programs import Programs

_PROGRAM = """
table = json.loads((here / "table").read_text())
objects = table["objects"]
keep = lambda: (here / "table").write_text(json.dumps(table))
for words, answer in table["answers"]:
    if all(any(word in argument for argument in arguments) for word in words):
        if answer.get("hangs"):
            time.sleep(600)
        sys.stdout.write(answer.get("output", "") * answer.get("times", 1))
        sys.stderr.write(answer.get("errors", "").replace("STDIN", given))
        sys.exit(answer.get("code", 0))
options = dict(one[2:].split("=", 1) for one in arguments if one.startswith("--") and "=" in one)
verb, *words = [one for one in arguments if not one.startswith("--")]
document = json.loads(given) if given else {}
if verb == "create" and document["kind"] == "SelfSubjectReview":
    print(json.dumps({"status": {"userInfo": {"username": table["user"]}}}))
elif verb == "create" and "items" in document:
    for review in document["items"]:
        asked = review["spec"]["resourceAttributes"]
        key = [asked["verb"], asked["resource"], asked.get("subresource", ""), asked.get("namespace", "")]
        review["status"] = {"allowed": key in table["rights"]}
        print(json.dumps(review, indent=4))
elif verb == "create":
    key = document["metadata"]["namespace"] + "/" + document["metadata"]["name"]
    if key in objects:
        sys.exit("Error from server (AlreadyExists): it exists")
    objects[key] = document
    keep()
elif words[:1] != ["secret"]:
    sys.stderr.write("the table has no answer for " + repr(arguments))
    sys.exit(99)
elif (key := options["namespace"] + "/" + words[1]) not in objects:
    sys.exit("Error from server (NotFound): secrets " + repr(words[1]) + " not found")
elif verb == "patch":
    assert options["patch-file"] == "/dev/stdin" and options["type"] == "merge"
    objects[key]["stringData"] |= document["stringData"]
    for name, value in document.get("data", {}).items():
        assert value is None  # which removes it (RFC 7386)
        objects[key]["stringData"].pop(name, None)
    keep()
elif "range" in options["output"]:
    print(*objects[key]["stringData"])
elif "go-template" in options["output"]:
    sys.stdout.write("set" if "webhook.github.secret" in objects[key]["stringData"] else "")
"""

type Answer = Mapping[str, str | int | bool]
"""``output``, which is printed several ``times``; ``errors``, in which STDIN is what was given; ``code``; or ``hangs``."""


class FakeKubectl:
    """The program, first on the PATH."""

    def __init__(self, programs: Programs) -> None:
        self._programs = programs
        self._file = programs.folder / "table"
        self._answers: dict[tuple[str, ...], Answer] = {}
        self._file.write_text(json.dumps({"answers": [], "rights": [], "objects": {}, "user": "an-administrator"}))
        programs.put("kubectl", _PROGRAM)

    def answer(self, words: Sequence[str], answer: Answer) -> None:
        """Answer so when each of the words is part of an argument; earlier answers come first, and the same words replace one."""
        self._answers[tuple(words)] = answer
        self._write("answers", list(self._answers.items()))

    def allow(self, verb: str, resource: str, namespace: str, subresource: str = "") -> None:
        """Answer an access review with yes; all others are answered with no."""
        self._write("rights", [*self._table["rights"], (verb, resource, subresource, namespace)])

    def be(self, user: str) -> None:
        """Be logged in as a user."""
        self._write("user", user)

    def keep(self, objects: Mapping[str, Mapping[str, Any]]) -> None:
        """Have these secrets, by ``namespace/name``."""
        self._write("objects", objects)

    @property
    def objects(self) -> dict[str, dict[str, Any]]:
        """The secrets that are there, by ``namespace/name``."""
        objects: dict[str, dict[str, Any]] = self._table["objects"]
        return objects

    @property
    def calls(self) -> list[list[str]]:
        """The arguments of every call so far."""
        return [call.arguments for call in self._programs.calls("kubectl")]

    @property
    def _table(self) -> dict[str, Any]:
        table: dict[str, Any] = json.loads(self._file.read_text(encoding="utf-8"))
        return table

    def _write(self, key: str, value: object) -> None:
        self._file.write_text(json.dumps(self._table | {key: value}), encoding="utf-8")


@pytest.fixture
def fake_kubectl(programs: Programs) -> FakeKubectl:
    """A kubectl that has no answers and no secrets yet."""
    return FakeKubectl(programs)
