"""The way back to an earlier release of test and of production."""

import json
from pathlib import Path

import pytest

from sens_cli.release.record import Record
from support.hosting import GITOPS_NAME, HostingService
from support.registry import FOLDER
from support.release import CHART, PRODUCTION, TEST, Scene, refused
from tools.release.environment import EnvironmentFiles

ALPHAS = [f"0.1.0-alpha.{number}.1" for number in (1, 2, 3)]
BRANCH = "rollback/production/0.2.0-to-0.1.0"


@pytest.fixture(scope="module")
def releases(first_scene: Scene, tmp_path_factory: pytest.TempPathFactory) -> Scene:
    """Three releases of test and two of production."""
    made = first_scene.copy(tmp_path_factory.mktemp("rollback"))
    for version in ALPHAS:
        made.release_directly(TEST, version, made.commit_product(version))
    for version in ("0.1.0", "0.2.0"):
        made.release_directly(PRODUCTION, version, made.commit_product(version, {f"{CHART}/values.yaml": version}))
    return made


@pytest.fixture
def scene(releases: Scene, tmp_path: Path, release_environment: None) -> Scene:
    """A copy of them."""
    return releases.copy(tmp_path)


def record_of(scene: Scene, environment: EnvironmentFiles, version: str) -> Record:
    """Return what was recorded when a version was released."""
    commit = scene.remote.git("log", "--format=%H", f"--grep=^Release {version}$", "main")
    return scene.record(environment, commit)


class TestTest:
    def test_goes_back_to_a_record_of_its_history(self, scene: Scene) -> None:
        before = scene.main
        assert scene.roll_back("test", ALPHAS[0], "--push") == f"Pushed: test goes back to {ALPHAS[0]}.\n"
        record = scene.record(TEST)
        assert record.same_release(record_of(scene, TEST, ALPHAS[0]))
        assert record.previous == record_of(scene, TEST, ALPHAS[2]).release
        assert scene.remote.changed(before, "main") == TEST.paths

    def test_without_push_stays_in_the_clone(self, scene: Scene) -> None:
        before = scene.main
        assert scene.roll_back("test", ALPHAS[1]) == f"Committed, not pushed: test goes back to {ALPHAS[1]}.\n"
        assert scene.main == before
        assert scene.gitops.git("log", "-1", "--format=%s") == f"Roll back to {ALPHAS[1]} in test"

    def test_again_is_nothing_to_do(self, scene: Scene) -> None:
        scene.roll_back("test", ALPHAS[0], "--push")
        assert scene.roll_back("test", ALPHAS[0], "--push") == f"Nothing to do: test has {ALPHAS[0]}.\n"

    def test_takes_a_later_release_afterwards(self, scene: Scene) -> None:
        scene.roll_back("test", ALPHAS[0], "--push")
        scene.release_directly(TEST, "0.1.0-alpha.4.1", scene.commit_product())
        assert "Pushed" in scene.roll_back("test", ALPHAS[2], "--push")

    def test_is_taken_back_by_another_one(self, scene: Scene) -> None:
        scene.roll_back("test", ALPHAS[0], "--push")
        assert scene.roll_back("test", ALPHAS[2], "--push") == f"Pushed: test goes back to {ALPHAS[2]}.\n"

    def test_works_from_a_shallow_clone(self, scene: Scene) -> None:
        shallow = scene.remote.clone(scene.folder / "shallow", depth=1)
        assert scene.roll_back("test", ALPHAS[0], "--push", folder=shallow.folder).code == 0

    def test_passes_over_records_that_were_broken(self, scene: Scene) -> None:
        good = {path: scene.gitops.read(path) + "\n" for path in TEST.paths}
        scene.gitops.commit("Break it", {TEST.record: "{"})
        scene.gitops.commit("Repair it", good)
        scene.gitops.push("main")
        assert scene.roll_back("test", ALPHAS[0], "--push").code == 0

    def test_sees_that_the_registry_has_the_images(self, scene: Scene) -> None:
        first, second = "0.1.0-alpha.4.1", "0.1.0-alpha.5.1"
        for version in (first, second, "0.1.0-alpha.6.1"):
            digests = json.dumps(scene.publish(version, commit := scene.commit_product(version)))
            scene.deploy(f"--image-tag={version}", f"--product-commit={commit}", f"--digests={digests}", "--push")
        assert scene.roll_back("test", first, "--check-registry").code == 0
        del scene.registry.repositories[f"{FOLDER}/docs"].manifests[second]
        said = scene.roll_back("test", second, "--check-registry")
        refused(said, f"not published with the tag {second}: docs")


class TestProduction:
    def test_goes_back_by_a_pull_request(self, scene: Scene, hosting: HostingService) -> None:
        before = scene.main
        arguments = ("production", "0.1.0", f"--repository={GITOPS_NAME}", f"--product={scene.product.folder}")
        url = f"https://hosting.invalid/{GITOPS_NAME}/pull/1"
        assert scene.roll_back(*arguments) == f"The branch {BRANCH} was pushed.\nThe pull request: {url}\n"
        assert scene.main == before
        assert scene.remote.changed("main", BRANCH) == PRODUCTION.paths
        assert scene.record(PRODUCTION, BRANCH).same_release(record_of(scene, PRODUCTION, "0.1.0"))
        (pull,) = hosting.repositories[GITOPS_NAME].pulls
        assert pull["title"] == "Roll production back to 0.1.0"
        assert all(text in str(pull["body"]) for text in ("Commits that are taken back", "-0.2.0", "+0.1.0"))
        assert "is on the remote already" in scene.roll_back(*arguments)
        assert len(hosting.repositories[GITOPS_NAME].pulls) == 1

    def test_names_a_way_back_that_works(self, scene: Scene, hosting: HostingService) -> None:
        scene.roll_back("production", "0.1.0", f"--repository={GITOPS_NAME}")
        (pull,) = hosting.repositories[GITOPS_NAME].pulls
        told = str(pull["body"]).partition("### The way back")[2]
        way = told.partition("scripts/rollback ")[2].splitlines()[0].split()
        scene.gitops.git("fetch", "--quiet", "origin", BRANCH)
        scene.gitops.merge("FETCH_HEAD")
        scene.gitops.push("main")
        assert scene.roll_back(*way, f"--repository={GITOPS_NAME}").code == 0
        record = scene.record(PRODUCTION, "rollback/production/0.1.0-to-0.2.0")
        assert record.same_release(record_of(scene, PRODUCTION, "0.2.0"))

    def test_without_a_token_tells_how(self, scene: Scene) -> None:
        said = scene.roll_back("production", "0.1.0", "--repository=acme/infra")
        assert f"https://github.com/acme/infra/compare/main...{BRANCH}?expand=1" in said


class TestARefusal:
    @pytest.mark.parametrize(
        ("environment", "version", "text"),
        [
            ("test", "0.1.0", "test takes alpha versions"),
            ("test", "0.1.0-alpha.9.1", f"test never had 0.1.0-alpha.9.1. It had {', '.join(reversed(ALPHAS))}."),
            ("test", "latest", "is a name that can move"),
            ("test", "$(id)", "is not SemVer"),
            ("test", "main~1", "is not SemVer"),
            ("production", ALPHAS[0], "production takes stable versions"),
            ("production", "0.3.0", "production never had 0.3.0. It had 0.2.0, 0.1.0."),
            ("staging", "0.1.0-rc.1", "staging never had 0.1.0-rc.1. It had none."),
        ],
    )
    def test_says_what_would_be_allowed(self, scene: Scene, environment: str, version: str, text: str) -> None:
        branches = scene.remote.git("for-each-ref")
        assert refused(scene.roll_back(environment, version, "--push"), text).startswith("scripts/rollback: ")
        assert scene.remote.git("for-each-ref") == branches

    def test_of_a_dirty_tree(self, scene: Scene) -> None:
        scene.gitops.write({"NOTES.md": "x"})
        assert "that are in no commit: 'NOTES.md'" in scene.roll_back("test", ALPHAS[0])

    def test_of_a_version_that_had_two_meanings(self, scene: Scene) -> None:
        scene.release_directly(TEST, ALPHAS[0], scene.commit_product())
        scene.release_directly(TEST, "0.1.0-alpha.4.1", scene.commit_product())
        refused(scene.roll_back("test", ALPHAS[0]), "A published version never changes")
