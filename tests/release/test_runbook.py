"""Every command of the operations' pages names what is there: objects, options, files, hosts, routes, workflows and versions."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from typer.testing import CliRunner

from sens_cli.__main__ import app
from sens_common.errors import UnavailableError
from support.chart import CHART, KUBERNETES, helm, needs_helm
from support.documented_commands import PAGES, Command, commands
from support.gitops import values_of, written
from support.services import ROOT
from support.yaml_documents import documents_of
from tools.gitops.parameters import read_parameters, resolve

RUNBOOK: Final = "operations/runbook.md"
# The installation that the runbook takes for its example, as it says itself.
EXAMPLE: Final = {"owner": "example-org", "production_owner": "@alice", "domain": "example.org", "address": "192.0.2.1"}
ALL: Final = [
    command
    for page in ("runbook", "kubernetes", "promotion", "releases", "versions", "verify", "images")
    if (PAGES / f"operations/{page}.md").is_file()
    for command in commands(f"operations/{page}.md")
]
TAGS: Final = {"test": "0.1.0-alpha.1.1", "production": "0.1.0"}
CHANNELS: Final = {"test": "alpha", "production": "stable"}
CLUSTER_WIDE: Final = {"clusterissuer", "nodes", "namespace"}
# Wide, so that no option is cut off; this Python first, for the scripts that look for one.
ENVIRONMENT: Final = os.environ | {
    "COLUMNS": "200",
    "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
}
# What others' charts and manifests bring into the cluster; k3s, cert-manager and Argo CD document these names.
OTHERS: Final = {
    "argocd": {"deployment/argocd-server", "secret/argocd-secret", "secret/argocd-initial-admin-secret"},
    "cert-manager": {"deployment/cert-manager"},
    "kube-system": {"deployment/coredns"},
}
KINDS: Final = {
    "certificate", "certificaterequest", "challenge", "clusterissuer", "deployment", "events", "ingress", "job", "namespace", "nodes",
    "order", "pod", "pods", "pvc", "secret", "service", "statefulset",
}  # fmt: skip
# Argo CD's command line, as its reference documents it: subcommand, then the options that are used here.
ARGOCD: Final = {
    ("login",): {"--grpc-web", "--username"},
    ("account", "update-password"): {"--account"},
    ("admin", "initial-password"): {"--namespace"},
    ("app", "diff"): set[str](),
    ("app", "get"): {"--refresh"},
    ("app", "history"): set[str](),
    ("app", "rollback"): set[str](),
    ("app", "sync"): set[str](),
    ("app", "wait"): {"--sync", "--health", "--timeout"},
    ("repo", "list"): set[str](),
}
# Of scripts/publish-images and scripts/release-version.
SUBCOMMANDS: Final = {
    "allow", "alpha", "build", "channel", "check", "dispatch", "plan", "record", "sign", "stable", "tag",
}  # fmt: skip
# Programs whose commands touch nothing that this repository names.
ELSEWHERE: Final = {
    "apt-get", "cat", "chmod", "cosign", "docker", "export", "install", "jq", "k3s", "openssl", "rm", "scp", "sh", "ssh-keygen",
    "useradd",
}  # fmt: skip


def of(*programs: str) -> list[Command]:
    return [command for command in ALL if command.program in programs]


def ids(command: Command) -> str:
    return str(command)


@pytest.fixture(scope="module")
def gitops(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The GitOps repository as it begins."""
    folder = tmp_path_factory.mktemp("gitops") / "repository"
    written(folder, *(f"{name}={value}" for name, value in EXAMPLE.items()))
    return folder


@pytest.fixture(scope="module")
def parameters() -> Mapping[str, str]:
    return resolve(read_parameters(ROOT / "infra/gitops/parameters.toml"), EXAMPLE.items()).values


@pytest.fixture(scope="module")
def objects(gitops: Path) -> Mapping[str, set[str]]:
    """Every ``kind/name`` of a namespace, from the chart with its environment's values, and from the GitOps repository."""
    found: dict[str, set[str]] = {namespace: set(names) for namespace, names in OTHERS.items()}
    for environment in ("test", "production"):
        namespace = f"sens-{environment}"
        found[namespace] = set()
        for document in rendered(f"sens-platform-{environment}", namespace, gitops / f"environments/{environment}"):
            found[namespace] |= set(names(document))
    found["sens-platform"] = {
        name for document in rendered("sens-platform", "sens-platform", None) for name in names(document)
    } | {"secret/sens-platform"}
    return found


def rendered(release: str, namespace: str, environment: Path | None) -> Iterator[dict[str, Any]]:
    values: tuple[str | Path, ...] = ("--values", ROOT / "infra/helm/values/production.yaml")
    if environment:
        images = f"images.tag={TAGS[environment.name]},images.channel={CHANNELS[environment.name]}"
        values = ("--values", environment / "values.yaml", "--set", images)
    command = (str(helm()), "template", release, CHART, "--namespace", namespace, "--kube-version", KUBERNETES)
    output = subprocess.run([*command, *values], check=True, capture_output=True, text=True, timeout=60).stdout
    yield from documents_of(output)


def names(document: Mapping[str, Any]) -> Iterator[str]:
    kind, name = str(document["kind"]).lower(), document["metadata"]["name"]
    yield f"{kind}/{name}"
    if kind == "statefulset":
        for claim in document["spec"].get("volumeClaimTemplates", []):
            yield f"pvc/{claim['metadata']['name']}-{name}-0"


@cache
def options_of(*program: str) -> set[str]:
    """Return the options that a program's help lists."""
    arguments = [] if program == ("kubectl", "options") else ["--help"]
    command = [*program, *arguments]
    output = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60, env=ENVIRONMENT).stdout
    return set(re.findall(r"(?<![\w-])(--?[a-zA-Z][\w-]*)", output))


def used_options(words: tuple[str, ...]) -> list[str]:
    before = words[: words.index("--")] if "--" in words else words
    names = [word.partition("=")[0] for word in before if re.match(r"--?[a-zA-Z]", word)]
    # Short options without values may stand together: -it.
    return [option for name in names for option in (("-i", "-t") if name == "-it" else (name,))]


class TestPrograms:
    def test_are_all_looked_at(self) -> None:
        known = {"argocd", "curl", "dig", "gh", "git", "helm", "kubectl", "sens", *ELSEWHERE}
        programs = {command.program for command in ALL if not command.program.startswith("scripts/")}

        assert programs - known == set()

    def test_are_there_for_every_step(self) -> None:
        programs = {command.program for command in ALL if command.page == RUNBOOK}
        assert programs >= {"kubectl", "argocd", "git", "gh", "sens"}


@needs_helm
class TestKubectl:
    @pytest.mark.parametrize("command", of("kubectl"), ids=ids)
    def test_names_objects_that_are_there(self, command: Command, objects: Mapping[str, set[str]]) -> None:
        verb, arguments = verb_and_arguments(command)
        if verb in {"apply", "auth", "create"} or command.option("-f", "--filename"):
            return
        namespace = command.option("-n", "--namespace") or ""
        kinds, wanted = named(verb, arguments)

        assert kinds <= KINDS, kinds
        if not kinds <= CLUSTER_WIDE and "--all-namespaces" not in command.words:
            assert namespace in {*objects}, f"in no namespace that there is: {command}"
        assert wanted <= objects.get(namespace, set()) | OTHERS.get(namespace, set())

    @pytest.mark.parametrize("command", of("kubectl"), ids=ids)
    def test_takes_these_options(self, command: Command) -> None:
        if shutil.which("kubectl") is None:
            pytest.skip("not run: no kubectl")
        verb, arguments = verb_and_arguments(command)
        words: tuple[str, ...] = ("kubectl", verb)
        if verb in {"rollout", "auth", "create"}:
            words = (*words, *(arguments[:2] if arguments[0] == "secret" else arguments[:1]))
        known = options_of(*words) | options_of("kubectl", "options")

        assert set(used_options(command.words)) <= known

    @pytest.mark.parametrize("command", of("kubectl"), ids=ids)
    def test_applies_files_that_are_there(self, command: Command, gitops: Path) -> None:
        file = command.option("-f", "--filename")
        if file and "://" not in file:
            assert (gitops / file).exists()

    @pytest.mark.parametrize("command", of("kubectl"), ids=ids)
    def test_selects_by_labels_that_pods_have(self, command: Command, objects: Mapping[str, set[str]]) -> None:
        selector = command.option("-l", "--selector")
        if selector and selector.startswith("app.kubernetes.io/instance="):
            release = selector.partition("=")[2].partition(",")[0]
            namespace = command.option("-n", "--namespace") or ""
            assert f"deployment/{release}-platform-api" in objects[namespace]

    @pytest.mark.parametrize("command", [command for command in of("kubectl") if "sens" in command.words], ids=ids)
    def test_runs_administration_that_exists(self, command: Command) -> None:
        arguments = command.words[command.words.index("sens") + 1 :]

        # Without a database and an instance, a command that exists ends where it looks for them; a wrong one is refused before.
        result = CliRunner().invoke(app, arguments, env={"SENS_DATA_DIR": "/nonexistent"})
        assert isinstance(result.exception, UnavailableError)


def verb_and_arguments(command: Command) -> tuple[str, list[str]]:
    """Return a kubectl command's verb and the arguments after it, without options."""
    with_value = {"-n", "--namespace", "-l", "--selector", "-f", "--filename", "-p", "--type", "--kubeconfig"}
    bare: list[str] = []
    skip = False
    for word in command.words[1:]:
        if word == "--":
            break
        if skip:
            skip = False
        elif word.startswith("-"):
            skip = word in with_value
        else:
            bare.append(word)
    return bare[0], bare[1:]


def named(verb: str, arguments: list[str]) -> tuple[set[str], set[str]]:
    """Return the kinds that a command is about, and the objects, as ``kind/name``."""
    if verb == "rollout":
        arguments = arguments[1:]
    kinds: set[str] = set()
    wanted: set[str] = set()
    if verb in {"exec", "logs", "port-forward"}:
        arguments = arguments[:1]
    if arguments and "/" not in arguments[0]:
        kinds = set(arguments[0].split(","))
        wanted = {f"{kind}/{name}" for kind in kinds for name in arguments[1:]}
    for argument in arguments:
        if "/" in argument:
            kinds.add(argument.partition("/")[0])
            wanted.add(argument)
    return kinds, wanted


class TestScripts:
    @pytest.mark.parametrize("command", [command for command in ALL if command.program.startswith("scripts/")], ids=ids)
    def test_exist_and_take_these_options(self, command: Command, gitops: Path) -> None:
        folder = next((folder for folder in (ROOT, gitops) if (folder / command.program).is_file()), None)
        assert folder is not None, f"{command.program} is in neither repository"
        assert os.access(folder / command.program, os.X_OK)

        known = options_of(str(folder / command.program))
        if len(command.words) > 1 and command.words[1] in SUBCOMMANDS:
            known |= options_of(str(folder / command.program), command.words[1])
        assert set(used_options(command.words)) <= known


class TestSens:
    @pytest.mark.parametrize("command", of("sens"), ids=ids)
    def test_takes_these_options(self, command: Command) -> None:
        length = 3 if command.words[1] in {"dead-letters", "keys", "tenants"} else 2
        known = options_of(sys.executable, "-m", "sens_cli", *command.words[1:length])

        assert set(used_options(command.words)) <= known


class TestHosts:
    @pytest.mark.parametrize("command", of("curl", "dig"), ids=ids)
    def test_are_the_operating_model_s(self, command: Command, parameters: Mapping[str, str]) -> None:
        known = set(re.findall(r"[\w-]+(?:\.[\w-]+)+", json.dumps(parameters)))
        hosts = [
            match[1]
            for word in command.words[1:]
            if (match := re.fullmatch(r"(?:https?://)?((?:[\w-]+\.)+[a-z]{2,}|127\.0\.0\.1)(?::\d+)?(?:/.*)?", word))
        ]

        assert hosts
        assert set(hosts) <= known | {"127.0.0.1", "get.k3s.io"}

    def test_are_those_of_the_example_that_the_page_names(self) -> None:
        page = (PAGES / RUNBOOK).read_text(encoding="utf-8")

        assert all(f"`{name}={value}`" in page for name, value in EXAMPLE.items())

    def test_are_named_with_their_address(self, parameters: Mapping[str, str]) -> None:
        page = (PAGES / RUNBOOK).read_text(encoding="utf-8")
        for value in re.findall(r"[\w-]+(?:\.[\w-]+)*\.example\.org|\d+\.\d+\.\d+\.\d+", json.dumps(parameters)):
            assert value in page


class TestArgoCd:
    @pytest.mark.parametrize("command", of("argocd"), ids=ids)
    def test_is_called_as_its_reference_says(self, command: Command, gitops: Path) -> None:
        words = command.words[1:]
        subcommand = next(words[:length] for length in (1, 2) if words[:length] in ARGOCD)
        rest = words[len(subcommand) :]

        assert set(used_options(rest)) <= ARGOCD[subcommand]
        if subcommand[0] == "app":
            files = [*(gitops / "applications").glob("*.yaml"), gitops / "bootstrap/argocd/applications.yaml"]
            documents = [one for file in files for one in documents_of(file.read_text(encoding="utf-8"))]
            assert rest[0] in {one["metadata"]["name"] for one in documents if one["kind"] == "Application"}
        if account := command.option("--account"):
            assert f"accounts.{account}" in "".join(
                path.read_text(encoding="utf-8") for path in (gitops / "bootstrap/argocd").glob("*.yaml")
            )

    def test_takes_one_sync_for_production(self) -> None:
        called = [tuple(command.words[1:4]) for command in commands(RUNBOOK) if command.program == "argocd"]
        syncs = [words[2] for words in called if words[:2] == ("app", "sync")]

        assert syncs == ["sens-platform-production"] * 2


class TestHelm:
    @needs_helm
    @pytest.mark.parametrize("command", of("helm"), ids=ids)
    def test_takes_these_options(self, command: Command) -> None:
        bare = [word for word in command.words[1:] if not word.startswith("-")]
        if command.words[1] in {"-n", "--namespace"}:
            bare = bare[1:]
        subcommand = bare[:2] if bare[0] == "repo" else bare[:1]

        assert set(used_options(command.words)) <= options_of(str(helm()), *subcommand)

    @pytest.mark.parametrize("command", of("helm"), ids=ids)
    def test_installs_a_chart_that_is_there(self, command: Command) -> None:
        for word in command.words:
            if word.startswith("infra/"):
                assert (ROOT / word / "Chart.yaml").is_file()


class TestWorkflows:
    @pytest.mark.parametrize("command", of("gh"), ids=ids)
    def test_exist_and_take_these_inputs(self, command: Command, gitops: Path) -> None:
        assert command.words[1:3] == ("workflow", "run")
        file = command.words[3]
        path = next(path for folder in (ROOT, gitops) if (path := folder / ".github/workflows" / file).is_file())
        # YAML 1.1 reads the key `on` as true.
        triggers = yaml.safe_load(path.read_text(encoding="utf-8"))[True]
        given = {command.words[i + 1].partition("=")[0] for i, word in enumerate(command.words) if word == "-f"}

        assert given <= set(triggers["workflow_dispatch"]["inputs"])


class TestSecrets:
    def test_are_those_that_the_values_name(self, gitops: Path) -> None:
        page = (PAGES / RUNBOOK).read_text(encoding="utf-8")
        for environment in ("test", "production"):
            values = values_of(gitops, environment)
            assert f"`{values['existingSecret']}`" in page
            assert {f"`{name}`" for name in values["images"]["pullSecrets"] if f"`{name}`" not in page} == set()
