"""scripts/gitops-init: what it writes, what it refuses, and that what it wrote fits the chart and itself."""

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from sens_cli.release.record import IMAGES, PinnedImage, Record, Release, now
from sens_cli.release.versions import ENVIRONMENTS, ReleaseError, Version
from support.chart import CHART, KUBERNETES, go_environment, helm, needs_helm
from support.gitops import ENVIRONMENT, TEMPLATE, documents, find, gitops_init, run_script, text_of, values_of, written
from support.release import call, refused
from support.services import ROOT
from support.yaml_documents import documents_of
from tools.gitops.init import main
from tools.gitops.parameters import KINDS, read_parameters, resolve
from tools.gitops.template import MODULES, fill
from tools.release.environment import EnvironmentFiles
from tools.release.released import WorkTree

PARAMETERS: Final = read_parameters(ROOT / "infra" / "gitops" / "parameters.toml")
OTHER: Final = {
    "owner": "example-org",
    "product_repository": "example-org/product",
    "gitops_repository": "example-org/infra",
    "registry": "registry.example:5000/a/b-c",
    "production_owner": "@example-org/owners",
    "address": "192.0.2.17",
    "argo_host": "argo.example.org",
    "test_api_host": "api.test.example.org",
    "test_docs_host": "docs.test.example.org",
    "production_api_host": "api.example.org",
    "production_docs_host": "docs.example.org",
    "http_ingestion": "on",
    "test_http_ingestion_host": "in.test.example.org",
    "production_http_ingestion_host": "in.example.org",
    "acme_mail": "operations@example.org",
    "domain": "example.org",
    "ingress_class": "other-class",
    "ingress_namespace": "entrance",
    "ingress_controller": "porter",
    "storage_class": "other-storage",
    "argo_deploy_user": "robot",
    "argo_owner_user": "alice",
    "argocd_version": "v9.8.7",
    "cert_manager_version": "v6.5.4",
    "nats_digest": f"sha256:{'0a' * 32}",
    "timescaledb_digest": f"sha256:{'0b' * 32}",
}
HOSTILE: Final = (
    "", " ", "a b", "x\ny: z", "x\r", "x\x00", "x\x85", "x\u2028y", '"', "'", "\\", "`id`", "$(id)", "${{ secrets.X }}", "{{ x }}",
    "@@owner@@", "a: b", "a #b", "- a", "*", "&a", "!a", "|", ">", "%", "<script>", "../..", "/etc/passwd", "-rf", "x;id", "x|id",
    "x&&id", "null", "true", "x" * 5000, "ä.example.org", "\u202ex", "a,b", "a'+'b", "]", "x'||true||'",
)  # fmt: skip
NAMES_OF_THEIR_KIND: Final = {
    ("account", "null"),
    ("account", "true"),
    ("digest", ""),
    ("name", "null"),
    ("name", "true"),
    ("user", "null"),
    ("user", "true"),
}


def files(folder: Path) -> Iterator[Path]:
    yield from (path for path in sorted(folder.rglob("*")) if path.is_file())


class TestWriting:
    def test_says_the_next_three_steps(self, tmp_path: Path) -> None:
        assert re.findall(r"^(\d)\. ", written(tmp_path / "new"), re.MULTILINE) == ["1", "2", "3"]

    def test_leaves_nothing_to_be_filled(self, gitops: Path) -> None:
        assert [path for path in files(gitops) if re.search("@@[a-z_]*@@", path.read_text(encoding="utf-8"))] == []

    def test_writes_every_file_of_the_template_and_keeps_programs_programs(self, gitops: Path) -> None:
        for source in files(TEMPLATE):
            for environment in TAGS:
                made = gitops / source.relative_to(TEMPLATE).as_posix().replace("@environment@", environment)

                assert os.access(made, os.X_OK) == os.access(source, os.X_OK), made

    def test_puts_every_parameter_somewhere(self, tmp_path: Path) -> None:
        assert set(OTHER) == set(PARAMETERS)
        written(tmp_path / "new", *(f"{name}={value}" for name, value in OTHER.items()))
        text = text_of(tmp_path / "new")

        assert [value for value in OTHER.values() if value not in text] == []
        left = [one.value for one in PARAMETERS.values() if one.kind in {"host", "address", "mail"}]
        assert [value for value in left if value in text] == []
        assert list(documents(tmp_path / "new"))

    def test_takes_values_from_a_file_and_the_command_line_over_it(self, tmp_path: Path) -> None:
        (tmp_path / "values.toml").write_text('address = "192.0.2.1"\nacme_mail = "a@example.org"\n', encoding="utf-8")
        arguments = ("--parameters", "values.toml", "--set", "address=192.0.2.2")
        done = gitops_init("new", *arguments, cwd=tmp_path)

        assert done.returncode == 0, done.stderr
        environment = tomllib.loads((tmp_path / "new/environments/test/environment.toml").read_text(encoding="utf-8"))
        assert environment["address"] == "192.0.2.2"
        assert "a@example.org" in (tmp_path / "new/bootstrap/cluster-issuer.yaml").read_text(encoding="utf-8")

    def test_takes_a_clone_without_a_commit_for_empty(self, tmp_path: Path) -> None:
        subprocess.run(["git", "init", "--quiet", tmp_path / "new"], check=True)

        written(tmp_path / "new")


class TestRefusals:
    @pytest.mark.parametrize(
        ("folder", "options", "content", "texts"),
        [
            (".", (), "", ("is not empty, it holds values.toml",)),
            ("values.toml", (), "", ("can't be written",)),
            ("new", ("--set=adress=192.0.2.1",), "", ("There is no parameter 'adress'", "address")),
            ("new", ("--set=address",), "", ("'address' is not name=value",)),
            *(
                ("new", ("--parameters=values.toml",), content, ())
                for content in ("address = 5", "address = {a = 1}", "address", "\0", 'x = "y"')
            ),
            ("new", ("--parameters=none.toml",), "", ("can't be read",)),
        ],
    )
    def test_say_what_is_wrong_and_write_nothing(  # noqa: PLR0917 - fixtures and a table
        self,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        folder: str,
        options: tuple[str, ...],
        content: str,
        texts: tuple[str, ...],
    ) -> None:
        (tmp_path / "values.toml").write_text(content, encoding="utf-8")
        monkeypatch.chdir(tmp_path)

        said = refused(call(main, folder, *options), "scripts/gitops-init: ", *texts)

        assert len(said.splitlines()) == 1
        assert [path.name for path in tmp_path.iterdir()] == ["values.toml"]


class TestValues:
    @pytest.mark.parametrize("name", sorted(PARAMETERS))
    def test_that_would_break_a_file_are_refused(self, name: str) -> None:
        for value in HOSTILE:
            if (PARAMETERS[name].kind, value) not in NAMES_OF_THEIR_KIND:
                with pytest.raises(ReleaseError, match=f"^{name}: "):
                    resolve(PARAMETERS, [(name, value)])

    @pytest.mark.parametrize("name", sorted(PARAMETERS))
    def test_with_a_line_break_at_the_end_are_refused(self, name: str) -> None:
        with pytest.raises(ReleaseError, match=f"^{name}: "):
            resolve(PARAMETERS, [(name, PARAMETERS[name].value + "\n")])

    @pytest.mark.parametrize(
        ("kind", "value"),
        [
            ("address", "1.2.3"), ("address", "1.2.3.256"), ("address", "01.2.3.4"), ("address", "::1"),
            ("host", "localhost"), ("host", "-a.example"), ("host", "a-.example"), ("host", "A.example"), ("host", "a..example"),
            ("host", "a.example."), ("host", "https://a.example"), ("host", "a.example:443"), ("host", "a" * 64 + ".example"),
            ("mail", "a"), ("mail", "a@b"), ("mail", "@example.org"), ("mail", '"a b"@example.org'),
            ("code_owner", "alice"), ("code_owner", "@a/b/c"), ("code_owner", "@alice @bob"), ("code_owner", "@-a"),
            ("repository", "name"), ("repository", "a/b/c"), ("repository", "a/b.git"), ("repository", "a/..x/"), ("account", "a--b"),
            ("registry", "ghcr.io"), ("registry", "ghcr.io/Upper"), ("registry", "ghcr.io/a/"), ("registry", "https://ghcr.io/a"),
            ("registry", "ghcr.io/a:tag"), ("registry", "ghcr.io/a@sha256:b"), ("version", "1.2.3"), ("version", "v1.2"),
            ("user", "Admin"), ("user", "a" * 33), ("user", "role:admin"),
        ],
    )  # fmt: skip
    def test_that_are_nearly_right_are_refused(self, kind: str, value: str) -> None:
        assert KINDS[kind].shape.fullmatch(value) is None

    @pytest.mark.parametrize(
        ("settings", "text"),
        [
            ({"test_api_host": PARAMETERS["production_api_host"].value}, "each needs a host of its own"),
            ({"product_repository": "example-org/x"}, "set owner, product_repository and gitops_repository together"),
            ({"gitops_repository": PARAMETERS["product_repository"].value}, "are the same"),
            ({"argo_deploy_user": "sebastian"}, "must differ"),
            ({"argo_owner_user": "admin"}, "must differ"),
        ],
    )
    def test_that_contradict_each_other_are_refused(self, settings: dict[str, str], text: str) -> None:
        with pytest.raises(ReleaseError, match=text):
            resolve(PARAMETERS, settings.items())

    def test_of_the_template_itself_are_known(self) -> None:
        with pytest.raises(ReleaseError, match="x: @@nobody@@ is not a parameter"):
            fill("a @@nobody@@", {}, Path("x"))

    def test_leave_the_marks_of_workflows_charts_and_shells_alone(self) -> None:
        text = '${{ github.ref }} {{ .Values.x }} $values "$@" git@github.com @user'

        assert fill(text, {}, Path("x")) == text


def chosen(**settings: str) -> dict[str, str]:
    return resolve(PARAMETERS, settings.items()).values


class TestDefaults:
    def test_of_the_template_hold_while_nothing_is_set(self) -> None:
        resolved = resolve(PARAMETERS, [])

        assert resolved.values == {name: parameter.value for name, parameter in PARAMETERS.items()}
        assert not resolved.given | resolved.followed
        assert resolved.left(PARAMETERS, example=True) == [name for name in PARAMETERS if PARAMETERS[name].example]

    def test_follow_the_owner(self) -> None:
        values = chosen(owner="Acme")

        assert values["product_repository"] == "Acme/sens-platform"
        assert values["gitops_repository"] == "Acme/sens-platform-infra"
        assert values["registry"] == "ghcr.io/acme/sens-platform"
        assert values["production_owner"] == "@Acme"
        assert values["argo_owner_user"] == "acme"

    def test_follow_the_repositories(self) -> None:
        values = chosen(owner="acme", product_repository="acme/Meters", gitops_repository="acme/cluster")

        assert values["registry"] == "ghcr.io/acme/meters"
        assert chosen(owner="acme", product_repository="acme/Meters")["gitops_repository"] == "acme/Meters-infra"

    def test_follow_the_domain(self) -> None:
        values = chosen(domain="meters.example")

        assert values["argo_host"] == "argo.meters.example"
        assert values["test_docs_host"] == "docs.dev.meters.example"
        assert values["production_api_host"] == "api.meters.example"
        assert values["acme_mail"] == "operations@meters.example"
        assert chosen(domain="meters.example", argo_host="a.example")["argo_host"] == "a.example"

    @pytest.mark.parametrize(
        ("owner", "user"),
        [
            ("@Alice", "alice"),
            ("@acme/Platform_Owners", "platform-owners"),
            ("@1984", "owner"),
            ("@admin", "owner"),
            ("@deploy", "owner"),
        ],
    )
    def test_make_a_user_of_the_reviewer(self, owner: str, user: str) -> None:
        assert chosen(production_owner=owner)["argo_owner_user"] == user

    def test_follow_the_ingress_class(self) -> None:
        assert {chosen(ingress_class="nginx")[name] for name in ("ingress_namespace", "ingress_controller")} == {
            "ingress-nginx"
        }
        assert chosen(ingress_class="traefik")["ingress_namespace"] == "kube-system"
        assert chosen(ingress_class="nginx", ingress_namespace="edge")["ingress_namespace"] == "edge"

    def test_of_an_ingress_class_that_nobody_knows_are_asked_for(self) -> None:
        unknown = "nothing is known about the ingress_class 'other': set ingress_namespace too"
        with pytest.raises(ReleaseError, match=unknown):
            chosen(ingress_class="other")
        with pytest.raises(ReleaseError, match="set ingress_controller too"):
            chosen(ingress_class="other", ingress_namespace="edge")

        values = chosen(ingress_class="other", ingress_namespace="edge", ingress_controller="x")
        assert values["ingress_class"] == "other"

    def test_follow_only_what_is_named_before(self) -> None:
        names = list(PARAMETERS)
        for name, parameter in PARAMETERS.items():
            assert all(names.index(source) < names.index(name) for source in parameter.sources), name

    @pytest.mark.parametrize(
        "settings",
        [
            (),
            ("owner=acme",),
            ("owner=acme", "product_repository=acme/product", "gitops_repository=acme/infra"),
            ("domain=meters.example", "address=192.0.2.1"),
            ("owner=acme", "domain=meters.example"),
            ("ingress_class=nginx",),
        ],
        ids=" ".join,
    )
    def test_that_name_the_template_s_own_installation_are_all_told(
        self, tmp_path: Path, settings: tuple[str, ...]
    ) -> None:
        _, _, said = written(tmp_path / "new", *settings).partition(
            "These name the installation that the template was written for."
        )
        text, told = text_of(tmp_path / "new").lower(), said.partition("\n\n")[0]

        for name, parameter in PARAMETERS.items():
            if parameter.example and name != "domain":
                assert (parameter.value.lower() in text) == (f"  {name} = {parameter.value} " in told), name
        for word in ("sens-gmbh", "sebastian", "schlossers", "91.99.127.138", "sens.at"):
            assert word not in text or word in told.lower()

    def test_that_are_all_one_s_own_leave_nothing_of_the_template_s_installation(self, tmp_path: Path) -> None:
        said = written(tmp_path / "new", "owner=acme", "domain=meters.example", "address=192.0.2.1")
        text = text_of(tmp_path / "new").lower()

        assert "These name the installation" not in said
        assert [word for word in ("sens-gmbh", "sebastian", "schlossers", "91.99.", "sens.at") if word in text] == []
        for name, value in (
            ("registry", "ghcr.io/acme/sens-platform"),
            ("storage_class", "local-path"),
            ("nats_digest", "(nothing)"),
        ):
            assert f"  {name} = {value} " in said

    def test_that_publishing_does_not_take_by_itself_are_told_as_commands(self, tmp_path: Path) -> None:
        settings = ("owner=acme", "gitops_repository=acme/cluster", "registry=registry.example:5000/acme")
        said = written(tmp_path / "new", *settings)

        variables = re.findall(r"gh variable set (\S+) --repo acme/sens-platform --body (\S+)", said)
        assert variables == [
            ("SENS_PLATFORM_REGISTRY", "registry.example:5000/acme"),
            ("SENS_PLATFORM_INFRA_REPOSITORY", "acme/cluster"),
        ]
        secrets = re.findall(r"gh secret set (\S+) --repo (\S+)", said)
        names = ("SENS_PLATFORM_REGISTRY_USER", "SENS_PLATFORM_REGISTRY_PASSWORD")
        assert secrets == [(name, where) for where in ("acme/sens-platform", "acme/cluster") for name in names]
        # The workflows read them by these names.
        product = (ROOT / ".github/workflows/publish-images.yml").read_text(encoding="utf-8")
        assert all(f"vars.{name}" in product for name, _ in variables)
        for workflow in ("deploy-test-main.yml", "promote-production-from-test.yml"):
            text = (tmp_path / "new/.github/workflows" / workflow).read_text(encoding="utf-8")
            assert all(f"secrets.{name}" in text for name in names)
        assert all(f"secrets.{name}" in product for name in names)
        assert "gh " not in written(tmp_path / "other", "owner=acme")

    def test_of_another_ingress_controller_name_nothing_of_traefik(self, tmp_path: Path) -> None:
        folder = tmp_path / "new"
        written(folder, "ingress_class=nginx")
        assert not (folder / "bootstrap/plain-http.yaml").exists()
        assert "traefik" not in text_of(folder).lower()
        for environment in TAGS:
            policy = values_of(folder, environment)
            assert policy["networkPolicy"]["publicFrom"] == [
                {
                    "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "ingress-nginx"}},
                    "podSelector": {"matchLabels": {"app.kubernetes.io/name": "ingress-nginx"}},
                }
            ]

    @needs_helm
    def test_of_another_ingress_controller_render(self, tmp_path: Path) -> None:
        written(tmp_path / "new", "ingress_class=nginx")
        for environment, tag in TAGS.items():
            done = render(tmp_path / "new", tmp_path, environment, tag)
            assert done.returncode == 0, done.stderr
            found = [one for one in documents_of(done.stdout) if one["kind"] == "NetworkPolicy"]
            incoming = yaml.safe_dump([one["spec"].get("ingress", []) for one in found])
            assert "kubernetes.io/metadata.name: ingress-nginx" in incoming
            assert "kube-system" not in incoming


def shell(file: Path, script: str) -> None:
    """Write a program of the shell."""
    file.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    file.chmod(0o755)


class TestModules:
    def test_import_nothing_but_each_other_and_python(self, gitops: Path) -> None:
        library = gitops / "scripts/lib"
        copied = sorted(library.rglob("*.py"))
        modules = {name for names in MODULES.values() for name in names}
        assert {path.relative_to(library).with_suffix("").as_posix() for path in copied} == modules
        wanted = set()
        for path in copied:
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Import):
                    wanted |= {name.name for name in node.names}
                elif isinstance(node, ast.ImportFrom):
                    assert (node.level, node.module) != (0, None)
                    module = str(node.module)
                    in_package = module in {"tools.release", "sens_cli.release"}
                    wanted |= {f"{module}.{name.name}" for name in node.names} if in_package else {module}
        foreign = {name for name in wanted if name.split(".")[0] not in sys.stdlib_module_names}

        assert foreign == {name.replace("/", ".") for name in modules if name.replace("/", ".") in foreign} | {"yaml"}
        assert re.findall("^[a-z]+", (library / "requirements.txt").read_text(encoding="utf-8"), re.MULTILINE) == [
            "pyyaml"
        ]

    def test_work_from_another_folder(self, gitops: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        programs = [path for path in files(gitops / "scripts") if "sens_python" in path.read_text(encoding="utf-8")]
        for program in programs:
            if program.parent.name != "lib":
                monkeypatch.chdir(tmp_path)
                done = run_script(gitops, program.name, "--help")

                assert (done.returncode, done.stderr) == (0, ""), program
                assert f"usage: scripts/{program.name}" in done.stdout

    def test_are_run_by_any_python_that_is_new_enough(self, gitops: Path, tmp_path: Path) -> None:
        """All scripts look for it in the same way: SENS_PYTHON, then the names that systems give it."""
        for name in ("bash", "dirname", "basename", "sed"):
            (tmp_path / name).symlink_to(str(shutil.which(name)))
        shell(tmp_path / "python3", "exit 1")
        shell(tmp_path / "python3.13", f'exec {sys.executable} "$@"')

        def run(*command: str | Path, **variables: str) -> tuple[int, str]:
            """Run a program with nothing else on the PATH."""
            environment = {"PATH": str(tmp_path), **variables}
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
            return done.returncode, done.stderr

        programs = [path for path in files(gitops / "scripts") if path.parent.name == "scripts"]
        ours = [path for path in programs if path.name != "product-commit"]
        assert len(ours) >= 10
        for program in ours:
            assert "python3" not in program.read_text(encoding="utf-8"), program
            assert run(program, "--help") == (0, ""), program
            assert run(program, "--help", SENS_PYTHON="/nowhere/python") == (0, ""), program
        (tmp_path / "python3.13").unlink()
        for program in ours:
            arguments = {"render": ["test", "product"], "rewrite-application": ["test"]}.get(program.name, [])
            said = f"{program.name}: Python 3.12 or newer is missing: install it, or name one in SENS_PYTHON.\n"
            assert run(program, *arguments) == (1, said)

    @pytest.mark.parametrize("code", [0, 1])
    def test_that_read_values_get_the_library_where_python_lacks_it(self, tmp_path: Path, code: int) -> None:
        folder, log = tmp_path / "new", tmp_path / "log"
        written(folder)
        own = f'*) exec {sys.executable} "$@" ;; esac'
        shell(tmp_path / "made", f'echo "$*" >>{log}\ncase "$*" in *pip*) exit {code} ;; {own}')
        venv = f'*venv*) mkdir -p "$4/bin" && cp {tmp_path}/made "$4/bin/python" ;;'
        shell(tmp_path / "python", f'case "$*" in\n*"import yaml"*) exit 1 ;;\n{venv}\n{own}')
        done = run_script(folder, "store-digests", "--host=127.0.0.1:1", SENS_PYTHON=str(tmp_path / "python"))

        assert done.returncode == 1
        missing = "store-digests: PyYAML is missing, and could not be installed: install it, or name"
        assert ("got no answer" if code == 0 else missing) in done.stderr
        locked = folder / "scripts/lib/requirements.txt"
        assert f"--require-hashes --no-deps -r {locked}\n" in log.read_text(encoding="utf-8")


def release_values(tag: str) -> dict[str, Any]:
    channel = "alpha" if "alpha" in tag else "stable"
    return {"images": {"tag": tag, "channel": channel, "digests": dict.fromkeys(IMAGES, "sha256:" + "a" * 64)}}


def render(gitops: Path, folder: Path, environment: str, tag: str) -> "subprocess.CompletedProcess[str]":
    """Run helm as Argo CD does: the Application's files of values, then its own values over them."""
    application = find(gitops, "Application", f"sens-platform-{environment}")
    source = application["spec"]["sources"][0]["helm"]
    assert source["valuesObject"] == {}
    paths = [gitops / name.removeprefix("$values/") for name in source["valueFiles"]]
    options = (source["releaseName"], "--namespace", application["spec"]["destination"]["namespace"])
    return helm_template(folder, paths, release_values(tag), *options)


def helm_template(
    folder: Path, paths: list[Path], own: dict[str, Any], *options: str
) -> "subprocess.CompletedProcess[str]":
    """Run helm with files of values, and these over them."""
    (folder / "own.yaml").write_text(yaml.safe_dump(own), encoding="utf-8")
    values = [argument for path in (*paths, folder / "own.yaml") for argument in ("--values", str(path))]
    name, *more = options
    command = [str(helm()), "template", name, str(CHART), "--kube-version", KUBERNETES, *more, *values]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=go_environment())


TAGS: Final = {"test": "0.5.0-alpha.12.1", "production": "0.5.0"}
every_environment = pytest.mark.parametrize("environment", sorted(TAGS))


@needs_helm
class TestChart:
    @pytest.fixture(params=sorted(TAGS))
    def objects(self, request: pytest.FixtureRequest, gitops: Path, tmp_path: Path) -> tuple[str, list[dict[str, Any]]]:
        done = render(gitops, tmp_path, request.param, TAGS[request.param])
        assert done.returncode == 0, done.stderr
        return request.param, documents_of(done.stdout)

    def test_makes_exactly_the_kinds_that_the_project_lets_through(
        self, gitops: Path, objects: tuple[str, list[dict[str, Any]]]
    ) -> None:
        environment, found = objects
        # Argo CD leaves out what is for "helm test" alone.
        deployed = [one for one in found if one["metadata"].get("annotations", {}).get("helm.sh/hook") != "test"]
        kinds = {(one["apiVersion"].rpartition("/")[0].replace("v1", ""), one["kind"]) for one in deployed}
        allowed = find(gitops, "AppProject", f"sens-{environment}")["spec"]["namespaceResourceWhitelist"]

        assert {(one["group"], one["kind"]) for one in allowed} == kinds

    def test_deploys_into_its_own_namespace_alone(self, objects: tuple[str, list[dict[str, Any]]]) -> None:
        environment, found = objects

        assert {one["metadata"]["namespace"] for one in found} == {f"sens-{environment}"}

    def test_has_the_mock_broker_in_test_only(self, objects: tuple[str, list[dict[str, Any]]]) -> None:
        environment, found = objects

        assert any("mock-mqtt-broker" in one["metadata"]["name"] for one in found) is (environment == "test")

    def test_reads_the_secrets_that_create_secrets_makes(self, objects: tuple[str, list[dict[str, Any]]]) -> None:
        environment, found = objects
        text = yaml.safe_dump_all(found)

        assert set(re.findall(r"secretKeyRef:\n.*\n? *name: (\S+)", text)) == {f"sens-{environment}-timescaledb-auth"}
        assert set(re.findall(r"imagePullSecrets:\n *- name: (\S+)", text)) == {"ghcr-pull"}

    def test_uses_the_clusters_ingress_storage_and_issuer(
        self, gitops: Path, objects: tuple[str, list[dict[str, Any]]]
    ) -> None:
        environment, found = objects
        ingresses = [one for one in found if one["kind"] == "Ingress"]
        volumes = [
            claim["spec"]["storageClassName"]
            for one in found
            if one["kind"] == "StatefulSet"
            for claim in one["spec"].get("volumeClaimTemplates", [])
        ]
        issuer = find(gitops, "ClusterIssuer", "letsencrypt")["metadata"]["name"]

        assert {one["spec"]["ingressClassName"] for one in ingresses} == {"traefik"}
        assert {one["metadata"]["annotations"]["cert-manager.io/cluster-issuer"] for one in ingresses} == {issuer}
        assert {one["spec"]["rules"][0]["host"] for one in ingresses} == {
            PARAMETERS[f"{environment}_api_host"].value,
            PARAMETERS[f"{environment}_docs_host"].value,
        }
        assert volumes == ["local-path", "local-path"]

    @every_environment
    def test_refuses_the_other_environments_version(self, gitops: Path, tmp_path: Path, environment: str) -> None:
        values = release_values(next(tag for name, tag in TAGS.items() if name != environment))
        values["images"]["channel"] = ENVIRONMENTS[environment].value
        done = helm_template(tmp_path, [gitops / "environments" / environment / "values.yaml"], values, "x")

        assert "is not a version of the channel" in done.stderr


class TestConsistency:
    @every_environment
    def test_application_project_and_environment_say_the_same(self, gitops: Path, environment: str) -> None:
        text = (gitops / "environments" / environment / "environment.toml").read_text(encoding="utf-8")
        known = tomllib.loads(text)
        application = find(gitops, "Application", known["application"])["spec"]
        project = find(gitops, "AppProject", known["project"])["spec"]

        assert known["channel"] == ENVIRONMENTS[environment]
        assert application["project"] == known["project"]
        assert application["destination"] in project["destinations"]
        assert len(project["destinations"]) == 1
        assert application["destination"]["namespace"] == known["namespace"]
        assert application["sources"][0]["helm"]["releaseName"] == known["release"]
        assert {source["repoURL"] for source in application["sources"]} == set(project["sourceRepos"])
        assert project["clusterResourceWhitelist"] == []

    def test_test_follows_by_itself_and_production_waits(self, gitops: Path) -> None:
        test, production = (
            find(gitops, "Application", f"sens-platform-{name}")["spec"] for name in ("test", "production")
        )

        assert test["syncPolicy"]["automated"] == {"selfHeal": True, "prune": True}
        assert "automated" not in production["syncPolicy"]

    @every_environment
    def test_nothing_can_be_deployed_before_the_first_release(self, gitops: Path, environment: str) -> None:
        source = find(gitops, "Application", f"sens-platform-{environment}")["spec"]["sources"][0]

        assert source["targetRevision"] == "0" * 40
        assert source["helm"]["valuesObject"] == {}
        assert not (gitops / "environments" / environment / "release.json").exists()

    @every_environment
    def test_the_commit_is_in_one_line_that_scripts_find(self, gitops: Path, environment: str) -> None:
        text = (gitops / f"applications/sens-platform-{environment}.yaml").read_text(encoding="utf-8")

        assert (
            len(re.findall(r"targetRevision: .*# product commit: written with each release$", text, re.MULTILINE)) == 1
        )
        done = run_script(gitops, "product-commit", environment)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")

    def test_the_platforms_namespaces_are_restricted(self, gitops: Path) -> None:
        namespaces = {
            one["metadata"]["name"]: one["metadata"]["labels"]
            for one in documents(gitops)
            if one["kind"] == "Namespace"
        }
        enforced = {name: labels["pod-security.kubernetes.io/enforce"] for name, labels in namespaces.items()}

        assert enforced == {
            "argocd": "baseline", "cert-manager": "baseline", "sens-test": "restricted", "sens-production": "restricted",
        }  # fmt: skip

    def test_argo_cds_own_project_is_closed(self, gitops: Path) -> None:
        spec = find(gitops, "AppProject", "default")["spec"]

        keys = ("sourceRepos", "destinations", "clusterResourceWhitelist", "namespaceResourceWhitelist")
        assert not any(spec[key] for key in keys)

    def test_no_secret_is_in_it(self, gitops: Path) -> None:
        assert [one for one in documents(gitops) if one["kind"] == "Secret"] == []


class TestScripts:
    COMMIT: Final = "0123456789abcdef0123456789abcdef01234567"

    @pytest.fixture
    def repository(self, tmp_path: Path) -> Path:
        """Return a GitOps repository of its own, with a release of test."""
        folder = tmp_path / "new"
        written(folder)
        images = {name: PinnedImage(f"ghcr.io/acme/{name}", f"sha256:{'a' * 64}") for name in IMAGES}
        record = Record(Release(Version.parse(TAGS["test"]), self.COMMIT), images, now())
        for path, text in EnvironmentFiles("test").write(WorkTree(folder), "", record).items():
            (folder / path).write_text(text, encoding="utf-8")
        return folder

    def test_product_commit_prints_the_commit_of_a_release(self, repository: Path) -> None:
        done = run_script(repository, "product-commit", "test")

        assert (done.returncode, done.stdout) == (0, f"{self.COMMIT}\n")

    @pytest.mark.parametrize(
        "commit", ["main", "0123abc", "$(id)", "0123456789ABCDEF0123456789abcdef01234567", "twice"]
    )
    def test_product_commit_refuses_what_is_no_commit_or_two(self, repository: Path, commit: str) -> None:
        application = repository / "applications/sens-platform-test.yaml"
        text = application.read_text(encoding="utf-8")
        [line] = [line for line in text.splitlines() if "# product commit" in line]
        changed = f"{line}\n{line}" if commit == "twice" else line.replace(self.COMMIT, commit)
        application.write_text(text.replace(line, changed), encoding="utf-8")
        done = run_script(repository, "product-commit", "test")

        assert (done.returncode, done.stdout) == (1, "")
        assert "exactly one line" in done.stderr

    def test_rewrite_application_repairs_what_was_changed_by_hand(self, repository: Path) -> None:
        application = repository / "applications/sens-platform-test.yaml"
        right = application.read_text(encoding="utf-8")
        application.write_text(right.replace(self.COMMIT, "0" * 40).replace(TAGS["test"], "latest"), encoding="utf-8")
        assert "names the product commit" in run_script(repository, "render", "test", str(ROOT)).stderr

        done = run_script(repository, "rewrite-application", "test")

        assert (done.returncode, application.read_text(encoding="utf-8")) == (0, right)
        assert f"has {TAGS['test']} now." in done.stdout
        assert f"has {TAGS['test']} already." in run_script(repository, "rewrite-application", "test").stdout
        assert "release.json is missing" in run_script(repository, "rewrite-application", "production").stderr

    @pytest.mark.parametrize("name", ["product-commit", "render", "rewrite-application"])
    @pytest.mark.parametrize("arguments", [[], ["staging"], ["../test", "x"], ["test", "a", "b"]])
    def test_say_how_they_are_used(self, gitops: Path, name: str, arguments: list[str]) -> None:
        done = run_script(gitops, name, *arguments)

        assert done.returncode == 2
        assert f"usage: scripts/{name} test|production" in done.stderr

    def test_render_says_when_there_is_no_release(self, gitops: Path) -> None:
        assert "production has no release yet" in run_script(gitops, "render", "production", str(ROOT)).stderr

    @needs_helm
    def test_render_prints_what_is_deployed(self, repository: Path, tmp_path: Path) -> None:
        (tmp_path / "helm").symlink_to(str(helm()))
        done = run_script(repository, "render", "test", str(ROOT), PATH=f"{tmp_path}:{ENVIRONMENT['PATH']}")

        assert done.returncode == 0, done.stderr
        assert f"platform-api:{TAGS['test']}@sha256:" in done.stdout
