"""A kubectl that keeps objects in a file: for tests of what goes to it, and of what it is told on its command line."""

import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

# It is run as a program of its own, so that its command line is the one that every user of a machine could see.
_PROGRAM = """#!{python}
import base64, json, sys
from pathlib import Path
here = Path(__file__).parent
state = json.loads((here / "state.json").read_text())
arguments = sys.argv[1:]
text = "" if sys.stdin.isatty() else sys.stdin.read()
state["calls"].append(arguments)
options = dict(one.removeprefix("--").split("=", 1) for one in arguments if one.startswith("--") and "=" in one)
words = [one for one in arguments if not one.startswith("--")]

def done(code, out="", err=""):
    (here / "state.json").write_text(json.dumps(state))
    sys.stdout.write(out)
    sys.stderr.write(err)
    sys.exit(code)

if state["failure"]:
    done(1, err=state["failure"].replace("STDIN", text))
if words[:2] == ["create", "token"]:
    done(0, state["token"] + "\\n")
if words[:2] == ["config", "view"]:
    done(0, json.dumps(state["config"]))
if words[0] == "create":
    one = json.loads(text)
    key = one["metadata"]["namespace"] + "/" + one["metadata"]["name"]
    if key in state["objects"]:
        done(1, err="Error from server (AlreadyExists): it exists")
    state["objects"][key] = one
    done(0, "secret/" + one["metadata"]["name"])
key = options["namespace"] + "/" + words[2]
if key not in state["objects"]:
    done(1, err="Error from server (NotFound): secrets " + repr(words[2]) + " not found")
if words[0] == "patch":
    assert options["patch-file"] == "/dev/stdin" and options["type"] == "merge"
    patch = json.loads(text)
    state["objects"][key]["stringData"].update(patch["stringData"])
    for name, value in patch.get("data", {}).items():
        assert value is None  # which removes it (RFC 7386)
        state["objects"][key]["stringData"].pop(name, None)
    done(0, "secret/" + words[2])
if "range" in options["output"]:
    done(0, " ".join(state["objects"][key]["stringData"]))
if "go-template" in options["output"]:
    done(0, "set" if "webhook.github.secret" in state["objects"][key]["stringData"] else "")
done(0, "secret/" + words[2])
"""


class State(NamedTuple):
    """What the program has kept and heard."""

    objects: dict[str, dict[str, Any]]
    calls: list[list[str]]


class StatefulKubectl:
    """The program in a folder of its own.

    Args:
        folder: Where it is put; it has to come first on PATH.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._file = folder / "state.json"
        self.set(objects={}, calls=[], failure="", token="", config={})
        program = folder / "kubectl"
        program.write_text(_PROGRAM.replace("{python}", sys.executable), encoding="utf-8")
        program.chmod(0o755)

    def set(self, **values: object) -> None:
        """Set parts of its state."""
        state = json.loads(self._file.read_text(encoding="utf-8")) if self._file.exists() else {}
        self._file.write_text(json.dumps(state | values), encoding="utf-8")

    @property
    def state(self) -> State:
        """Return what it has now."""
        state = json.loads(self._file.read_text(encoding="utf-8"))
        return State(state["objects"], state["calls"])
