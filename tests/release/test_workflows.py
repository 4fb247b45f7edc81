"""The workflows: who starts them, what they may do, and that they call the scripts as these are."""

import os
import re
import shlex
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from support.services import ROOT
from tools.images.__main__ import parse as parse_build_images
from tools.release.publish_images import TOKEN
from tools.release.publish_images import parse as parse_publish_images
from tools.release.set_version import STEPS

FOLDER = ROOT / ".github/workflows"
APP_KEY = "SENS_PLATFORM_APP_PRIVATE_KEY"
LOGIN = ("SENS_PLATFORM_REGISTRY_USER", "SENS_PLATFORM_REGISTRY_PASSWORD")
REGISTRY = ("SENS_REGISTRY_USER", "SENS_REGISTRY_PASSWORD")
FILES = sorted(FOLDER.glob("*.yml"))
# What a job may write, and nothing else.
WRITES = {
    ("publish-images", "images"): {"packages"},
    ("publish-images", "publish"): {"packages", "id-token"},
}

type Document = Mapping[str, Any]


class Step(NamedTuple):
    """A step with where it is."""

    workflow: str
    job: str
    content: Document

    @property
    def environment(self) -> Mapping[str, str]:
        found: Mapping[str, str] = self.content.get("env", {})
        return found


def read(file: Path) -> dict[str, Any]:
    # YAML 1.1 reads the key `on` as true.
    document = yaml.safe_load(file.read_text())
    return {"on" if key is True else str(key): value for key, value in document.items()}


WORKFLOWS = {file.stem: read(file) for file in FILES}


def jobs(workflow: str) -> Mapping[str, Document]:
    found: Mapping[str, Document] = WORKFLOWS[workflow]["jobs"]
    return found


def all_jobs() -> Iterator[tuple[str, str, Document]]:
    for workflow in WORKFLOWS:
        for name, job in jobs(workflow).items():
            yield workflow, name, job


def all_steps() -> Iterator[Step]:
    for workflow, name, job in all_jobs():
        for step in job["steps"]:
            yield Step(workflow, name, step)


def commands() -> Iterator[tuple[Step, list[str]]]:
    """Yield each command of each step as words; what stands for a value stays as it is written."""
    for step in all_steps():
        for line in str(step.content.get("run", "")).replace("\\\n", " ").splitlines():
            words = shlex.split(line.partition("<<<")[0])
            if words:
                yield step, words


def called(script: str) -> list[list[str]]:
    """Return the words after a script's name, of each call."""
    return [words[1:] for _, words in commands() if words[0] == script]


class TestRights:
    def test_are_none_by_default(self) -> None:
        assert [workflow["permissions"] for workflow in WORKFLOWS.values()] == [{}] * len(FILES)

    def test_to_write_are_few(self) -> None:
        found = {}
        for workflow, name, job in all_jobs():
            rights = job["permissions"]
            assert set(rights.values()) <= {"read", "write"}
            if writes := {right for right, kind in rights.items() if kind == "write"}:
                found[workflow, name] = writes

        assert found == WRITES

    def test_to_read_are_code_and_images(self) -> None:
        reads = {right for _, _, job in all_jobs() for right, kind in job["permissions"].items() if kind == "read"}

        assert reads == {"contents", "packages"}

    def test_are_not_left_in_the_clone(self) -> None:
        clones = [step for step in all_steps() if str(step.content.get("uses", "")).startswith("actions/checkout@")]

        assert len(clones) == len(list(all_jobs()))
        for step in clones:
            assert step.content["with"]["persist-credentials"] is False


class TestActions:
    def test_are_named_by_commit_and_say_their_version(self) -> None:
        lines = [line.strip() for file in FILES for line in file.read_text().splitlines() if "uses:" in line]

        assert lines
        for line in lines:
            assert re.fullmatch(r"(?:- )?uses: [\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line), line

    def test_are_of_one_commit_each(self) -> None:
        used = {str(step.content["uses"]) for step in all_steps() if "uses" in step.content}

        names = [use.partition("@")[0] for use in used]
        assert sorted(names) == sorted(set(names))


class TestRuns:
    def test_end(self) -> None:
        for _, _, job in all_jobs():
            assert isinstance(job["timeout-minutes"], int)
            assert job["runs-on"] == "ubuntu-24.04"

    def test_wait_for_each_other(self) -> None:
        for workflow in WORKFLOWS.values():
            assert workflow["concurrency"]["group"]

    def test_of_publishing_are_never_broken_off(self) -> None:
        assert WORKFLOWS["publish-images"]["concurrency"]["cancel-in-progress"] is False

    def test_after_a_pull_request_never_replace_a_merge_that_waits(self) -> None:
        group = str(WORKFLOWS["publish-images"]["concurrency"]["group"])
        shared = group.partition("&& 'merge'")[0]

        assert "github.event.workflow_run.event == 'push'" in shared
        assert "github.event.workflow_run.conclusion == 'success'" in shared
        assert "format('version-{0}', inputs.release_version)" in group

    def test_have_no_expression_in_a_script(self) -> None:
        for step in all_steps():
            assert "${{" not in str(step.content.get("run", ""))

    def test_stop_at_the_first_command_that_fails(self) -> None:
        # GitHub starts `bash` with -e and -o pipefail only where the shell is named.
        for workflow in WORKFLOWS.values():
            assert workflow["defaults"] == {"run": {"shell": "bash"}}

    def test_have_every_variable_that_they_use(self) -> None:
        for step in all_steps():
            used = set(re.findall(r"\$\{?([A-Za-z_][A-Za-z0-9_]*)", str(step.content.get("run", ""))))

            assert {name for name in used if not name.startswith("GITHUB_")} <= set(step.environment)

    def test_quote_every_variable(self) -> None:
        for step in all_steps():
            unquoted = re.sub(r'"[^"]*"', "", str(step.content.get("run", "")))

            assert "$" not in unquoted


class TestScripts:
    def test_that_are_called_exist(self) -> None:
        names = {words[0] for _, words in commands() if words[0].startswith("scripts/")}

        wanted = ("check", "test", "version-check", "build-images", "publish-images")
        assert {f"scripts/{name}" for name in wanted} <= names
        for name in names:
            assert os.access(ROOT / name, os.X_OK), name

    def test_are_all_that_is_called(self) -> None:
        others = {words[0] for _, words in commands() if not words[0].startswith("scripts/")}

        assert others == {"sudo"}

    def test_of_publishing_take_the_options_they_are_given(self) -> None:
        steps = [parse_publish_images(words).command for words in called("scripts/publish-images")]

        assert steps == ["plan", "check", "login", "build", "login", "sign", "tag", "record", "target", "dispatch"]

    def test_of_images_take_the_options_they_are_given(self) -> None:
        assert [parse_build_images(words).builder for words in called("scripts/build-images")] == ["docker"]

    def test_of_the_version_take_the_options_they_are_given(self) -> None:
        (words,) = called("scripts/version-check")
        command = [str(ROOT / "scripts/version-check"), "--help"]
        told = subprocess.run(command, capture_output=True, text=True, check=True).stdout

        assert [word.partition("=")[0] for word in words] == ["--base"]
        assert "--base" in told

    def test_without_options_are_given_none(self) -> None:
        assert [called(name) for name in ("scripts/check", "scripts/test")] == [[[]], [[]]]


class TestOutputs:
    def test_of_steps_are_those_that_the_scripts_set(self) -> None:
        text = (FOLDER / "publish-images.yml").read_text()

        assert set(re.findall(r"steps\.([\w.-]+)", text)) == {
            "plan.outputs.plan",
            "plan.outputs.update-test",
            "build.outputs.digests",
            "record.outputs.record",
            "target.outputs.gitops-owner",
            "target.outputs.gitops-name",
            "app.outputs.token",
        }

    def test_of_jobs_are_there(self) -> None:
        for workflow, name, job in all_jobs():
            needed = job.get("needs", [])
            needs = [needed] if isinstance(needed, str) else needed
            for other, output in re.findall(r"needs\.([\w-]+)\.outputs\.([\w-]+)", str(job)):
                assert other in needs, f"{workflow}: {name}"
                assert output in jobs(workflow)[other]["outputs"]


class TestCi:
    def test_runs_for_pull_requests_and_main(self) -> None:
        assert WORKFLOWS["ci"]["on"] == {"pull_request": None, "push": {"branches": ["main"]}}

    def test_compares_versions_with_the_whole_history_before_images_are_built(self) -> None:
        (clone, _) = jobs("ci")["version"]["steps"]

        assert clone["with"]["fetch-depth"] == 0
        assert jobs("ci")["images"]["needs"] == "version"

    def test_runs_the_tests_of_releases_with_each_version_that_may_follow(self) -> None:
        job = jobs("ci")["raised"]

        assert job["strategy"]["matrix"] == {"step": [*STEPS]}
        assert called("scripts/test-raised") == [["$STEP"]]

    def test_sees_no_secret(self) -> None:
        assert "secrets." not in (FOLDER / "ci.yml").read_text()


def holds(condition: str, github: Mapping[str, object]) -> bool:
    """Evaluate a condition of the few operators that are used here."""

    def value(match: re.Match[str]) -> str:
        found: object = github
        for part in match[1].split("."):
            found = found.get(part, "") if isinstance(found, dict) else ""
        return repr(found)

    python = re.sub(r"github\.([\w.]+)", value, condition).replace("&&", " and ").replace("||", " or ")
    return bool(eval(" ".join(python.split()), {"__builtins__": {}}))  # noqa: S307 - of this repository


class TestPublishing:
    def test_follows_ci_on_main_or_a_person(self) -> None:
        on = WORKFLOWS["publish-images"]["on"]

        assert set(on) == {"workflow_run", "workflow_dispatch"}
        assert on["workflow_run"] == {
            "workflows": [WORKFLOWS["ci"]["name"]],
            "types": ["completed"],
            "branches": ["main"],
        }
        assert set(on["workflow_dispatch"]["inputs"]) == {
            "ref",
            "release_version",
            "update_test_environment",
        }

    @pytest.mark.parametrize(
        ("change", "expected"),
        [
            ({}, True),
            ({"conclusion": "failure"}, False),
            ({"conclusion": "cancelled"}, False),
            ({"event": "pull_request"}, False),
            ({"event": "workflow_dispatch"}, False),
            ({"head_branch": "feature"}, False),
            ({"head_repository": {"full_name": "stranger/sens-platform"}}, False),
        ],
    )
    def test_takes_a_push_to_main_of_this_repository_that_passed(
        self, change: Mapping[str, object], expected: bool
    ) -> None:
        run = {
            "conclusion": "success",
            "event": "push",
            "head_branch": "main",
            "head_repository": {"full_name": "acme/sens-platform"},
        } | dict(change)
        github = {"event_name": "workflow_run", "repository": "acme/sens-platform", "event": {"workflow_run": run}}

        assert holds(str(jobs("publish-images")["plan"]["if"]), github) is expected

    @pytest.mark.parametrize(("ref", "expected"), [("refs/heads/main", True), ("refs/heads/feature", False)])
    def test_takes_a_person_s_word_with_the_scripts_of_main_alone(self, ref: str, expected: bool) -> None:
        github = {"event_name": "workflow_dispatch", "ref": ref, "repository": "acme/x", "event": {}}

        assert holds(str(jobs("publish-images")["plan"]["if"]), github) is expected

    def test_runs_scripts_of_main_whatever_is_published(self) -> None:
        for step in all_steps():
            assert "ref" not in step.content.get("with", {})

    def test_is_planned_before_anything_is_built_and_signed_before_it_has_a_tag(self) -> None:
        publishing = jobs("publish-images")
        steps = [words[1] for step, words in commands() if step.job == "publish"]

        assert list(publishing) == ["plan", "images", "publish", "update-test"]
        assert publishing["images"]["needs"] == "plan"
        assert publishing["publish"]["needs"] == ["plan", "images"]
        assert publishing["update-test"]["needs"] == ["plan", "publish"]
        assert steps == ["login", "sign", "tag", "record"]

    def test_has_the_identity_that_signs_where_nothing_is_built(self) -> None:
        signing = [name for name, job in jobs("publish-images").items() if "id-token" in job["permissions"]]

        assert signing == ["publish"]

    def test_updates_test_only_when_planned(self) -> None:
        assert jobs("publish-images")["update-test"]["if"] == "needs.plan.outputs.update-test == 'true'"


class TestSecrets:
    def test_are_in_the_environment_of_the_one_step_that_needs_them(self) -> None:
        text = "".join(file.read_text() for file in FILES)
        steps = [step for step in all_steps() if "secrets." in str(step.content)]

        assert set(re.findall(r"secrets\.(\w+)", text)) == {TOKEN, APP_KEY, *LOGIN}
        assert text.count(f"secrets.{TOKEN} ") == text.count(f"secrets.{APP_KEY} ") == 1
        apps = [step for step in steps if APP_KEY in str(step.content)]
        assert [step.job for step in apps] == ["update-test"]
        for app in apps:
            given = app.content["with"]
            assert given["private-key"] == f"${{{{ secrets.{APP_KEY} }}}}"
            assert {name: value for name, value in given.items() if name.startswith("permission-")} == {
                "permission-actions": "write"
            }
            assert given["repositories"] == "${{ steps.target.outputs.gitops-name }}"
        for step in steps:
            if step in apps:
                continue
            expected = {TOKEN: TOKEN} if step.job == "update-test" else dict(zip(REGISTRY, LOGIN, strict=True))
            found = re.findall(r"secrets\.(\w+) \}\}", str(step.environment))
            assert found == [*expected.values()], step.job
            assert all(step.environment[name].endswith(f"secrets.{secret} }}}}") for name, secret in expected.items())

    def test_of_the_run_are_where_the_registry_is_spoken_to(self) -> None:
        for step in all_steps():
            run = str(step.content.get("run", ""))
            registry = re.search(r"publish-images (?:check|login|build|tag|record) ", run)

            own = {name for name, value in step.environment.items() if "github.token" in value}
            assert own == ({"SENS_GHCR_TOKEN"} if registry else set()), run
            assert all((name in step.environment) == bool(registry) for name in REGISTRY), run

    def test_are_never_an_argument(self) -> None:
        for step in all_steps():
            secret = {name for name, value in step.environment.items() if "token" in value or "secrets." in value}
            arguments = str(step.content.get("run", "")).partition("<<<")[0]

            assert not [name for name in secret if f"${name}" in arguments]
