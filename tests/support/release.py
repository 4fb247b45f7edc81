"""A product repository, a GitOps repository with its remote, and a registry, for tests of releases."""

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Protocol, Self

import pytest

from sens_cli.release.record import IMAGES, PinnedImage, Record, Release, now
from sens_cli.release.versions import Version
from support.git import Repository
from support.hosting import GITOPS_NAME
from support.programs import Programs
from support.registry import FOLDER, SmallRegistry, upload_release
from tools.gitops.parameters import read_parameters, resolve
from tools.gitops.template import files, write
from tools.release import deploy_test, promote, rollback
from tools.release.clone import Clone
from tools.release.environment import EnvironmentFiles

ROOT = Path(__file__).parents[2]
TEST, PRODUCTION = EnvironmentFiles("test"), EnvironmentFiles("production")
CHART = "infra/helm/sens-platform"
MIGRATIONS = "services/common/src/sens_common/schema"


class Command(Protocol):
    """The main function of a program."""

    def __call__(self, arguments: Sequence[str]) -> int: ...


class Said(str):
    """What a program printed, with its exit code.

    Attributes:
        code: The exit code.
    """

    __slots__ = ("code",)
    code: int


def call(command: Command, *arguments: str) -> Said:
    """Call a program in this process; return what it printed, errors included."""
    output = io.StringIO()
    with redirect_stdout(output), redirect_stderr(output):
        code = command(arguments)
    said = Said(output.getvalue())
    said.code = code
    return said


def refused(said: Said, *texts: str) -> Said:
    """See that a program has refused, and has said these texts; return all that it said."""
    assert said.code == 1, said
    for text in texts:
        assert text in said
    return said


def start(repository: Repository, script: str, *arguments: str) -> subprocess.Popen[str]:
    """Start a script of a GitOps repository itself."""
    return subprocess.Popen(
        [str(repository.folder / "scripts" / script), *arguments],
        cwd=repository.folder,
        env={**os.environ, "SENS_PYTHON": sys.executable},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def digests_of(version: str, commit: str) -> dict[str, str]:
    """Return digests for images that no test asks a registry for."""
    digest = f"sha256:{hashlib.sha256(f'{version} {commit}'.encode()).hexdigest()}"
    return dict.fromkeys(IMAGES, digest)


class Scene:
    """The repositories and the registry of a release.

    Attributes:
        remote: The GitOps repository as it is hosted; bare.
        gitops: A clone of it.
        product: The product repository.
        registry: Where images are.
    """

    def __init__(self, folder: Path, registry: SmallRegistry) -> None:
        self.folder = folder
        self.registry = registry
        self.remote = Repository(folder / "remote.git")
        self.gitops = Repository(folder / "gitops")
        self.product = Repository(folder / "product")

    @classmethod
    def create(cls, folder: Path, registry: SmallRegistry) -> Self:
        """Make the repositories, without a release."""
        scene = cls(folder, registry)
        Repository.create(scene.remote.folder, bare=True)
        Repository.create(scene.product.folder)
        scene.commit_product("First commit", {f"{MIGRATIONS}/0001_tenants.sql": "create table tenants ();\n"})
        settings = [
            ("owner", "acme"),
            ("product_repository", "acme/sens-platform"),
            ("gitops_repository", GITOPS_NAME),
            ("registry", f"{registry.host}/{FOLDER}"),
        ]
        values = resolve(read_parameters(ROOT / "infra/gitops/parameters.toml"), settings).values
        write(scene.gitops.folder, list(files(ROOT, values)))
        Repository.create(scene.gitops.folder)
        scene.gitops.commit("Begin")
        # Relative, so that all of it can be copied.
        scene.gitops.git("remote", "add", "origin", "../remote.git")
        scene.gitops.push("main")
        scene.gitops.git("branch", "--quiet", "--set-upstream-to=origin/main", "main")
        for repository in (scene.remote, scene.gitops, scene.product):
            # Few files are copied fast.
            repository.git("repack", "--quiet", "-a", "-d")
            shutil.rmtree(repository.folder / repository.git("rev-parse", "--git-path", "hooks"))
        return scene

    def copy(self, folder: Path) -> "Scene":
        """Copy the repositories as they are."""
        for repository in (self.remote, self.gitops, self.product):
            shutil.copytree(repository.folder, folder / repository.folder.name, symlinks=True)
        return Scene(folder, self.registry)

    @property
    def clone(self) -> Clone:
        """Return the clone, as releases see it."""
        return Clone(self.gitops.folder)

    @property
    def main(self) -> str:
        """Return the commit of the remote's main branch."""
        return self.remote.revision("main")

    def another_clone(self, name: str = "colleague") -> Repository:
        """Clone the GitOps repository again, as a colleague or another run has it."""
        return self.remote.clone(self.folder / name)

    def commit_product(self, message: str = "Change the product", texts: Mapping[str, str | None] | None = None) -> str:
        """Commit something in the product, and return the commit."""
        return self.product.commit(message, texts)

    def publish(self, version: str, commit: str, images: Sequence[str] = IMAGES) -> dict[str, str]:
        """Publish images, and return their digests."""
        return upload_release(self.registry, images, version, commit, platforms=("linux/amd64",))

    def forget_after_one_question(self, image: str) -> None:
        """Let the registry lose an image when it has been asked for it once."""

        class Vanishing(dict[str, tuple[str, bytes]]):
            def get(self, *key: str) -> object:  # type: ignore[override]
                found = super().get(*key)
                self.clear()
                return found

        repository = self.registry.repositories[f"{FOLDER}/{image}"]
        repository.manifests = Vanishing(repository.manifests)

    def released(self, environment: EnvironmentFiles, commit: str = "main") -> Record | None:
        """Return what an environment has at a commit of the remote."""
        return environment.read(Clone(self.remote.folder), commit)

    def record(self, environment: EnvironmentFiles, commit: str = "main") -> Record:
        """Return what an environment has, where it has something."""
        record = self.released(environment, commit)
        assert record is not None
        return record

    def release_directly(self, environment: EnvironmentFiles, version: str, commit: str) -> Record:
        """Put a release on main without what is under test; images are named, but published only where a test does so."""
        self.gitops.git("pull", "--quiet", "--ff-only", "origin", "main")
        current = environment.read(self.clone, "HEAD")
        address = f"{self.registry.host}/{FOLDER}"
        record = Record(
            Release(Version.parse(version), commit),
            {name: PinnedImage(f"{address}/{name}", digest) for name, digest in digests_of(version, commit).items()},
            now(),
            previous=current.release if current else None,
        )
        self.gitops.commit(f"Release {version}", environment.write(self.clone, "HEAD", record))
        self.gitops.push("main")
        return record

    def deploy(self, *arguments: str, folder: Path | None = None) -> Said:
        """Call deploy-test-main."""
        return call(deploy_test.main, f"--folder={folder or self.gitops.folder}", *arguments)

    def promote(self, *arguments: str, folder: Path | None = None) -> Said:
        """Call promote-production-from-test.sh."""
        return call(promote.main, f"--gitops={folder or self.gitops.folder}", *arguments)

    def roll_back(self, *arguments: str, folder: Path | None = None) -> Said:
        """Call rollback."""
        return call(rollback.main, f"--folder={folder or self.gitops.folder}", *arguments)


_COSIGN = """
folder = os.environ.get("DOCKER_CONFIG")
login = json.loads(Path(folder, "config.json").read_text()) if folder else None
with (here / "logins").open("a") as logins:
    print(json.dumps(login), file=logins)
unsigned = here / "unsigned"
if unsigned.exists() and unsigned.read_text() in arguments[-1]:
    sys.exit("Error: no signatures found\\nmain.go:69: error during command execution")
"""


class Cosign:
    """A program in cosign's place, which refuses what it is told to.

    Args:
        programs: Where it is.
    """

    def __init__(self, programs: Programs) -> None:
        self._programs = programs
        self.folder = programs.folder
        programs.put("cosign", _COSIGN)

    @property
    def calls(self) -> list[tuple[list[str], dict[str, dict[str, dict[str, str]]] | None]]:
        """Return the arguments of each call, and the logins that it was handed."""
        calls = self._programs.calls("cosign")
        logins = (self.folder / "logins").read_text().splitlines() if calls else []
        return [(call.arguments, json.loads(login)) for call, login in zip(calls, logins, strict=True)]

    def refuse(self, part: str) -> None:
        """Find no signature of images whose name has this in it."""
        (self.folder / "unsigned").write_text(part)


@pytest.fixture
def cosign(programs: Programs) -> Cosign:
    """Put a program in cosign's place."""
    return Cosign(programs)


@pytest.fixture(scope="session")
def first_scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """What each test gets a copy of."""
    with SmallRegistry().running() as registry:
        yield Scene.create(tmp_path_factory.mktemp("scene"), registry)


@pytest.fixture
def release_environment(first_scene: Scene, isolated_git: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty registry that programs log in to, and nothing that the machine says about GitHub."""
    for name in ("GITHUB_TOKEN", "GITHUB_REPOSITORY", "GITHUB_OUTPUT", "GITHUB_API_URL", "GITHUB_SERVER_URL"):
        monkeypatch.delenv(name, raising=False)
    registry = first_scene.registry
    registry.repositories.clear()
    registry.failures.clear()
    assert registry.credentials is not None
    monkeypatch.setenv("SENS_REGISTRY_USER", registry.credentials.user)
    monkeypatch.setenv("SENS_REGISTRY_PASSWORD", registry.credentials.password)


@pytest.fixture
def scene(first_scene: Scene, tmp_path: Path, release_environment: None) -> Scene:
    """Repositories without a release, and an empty registry."""
    return first_scene.copy(tmp_path)
