"""Promotions from test to production: the branch, the pull request and its text, and what is refused."""

import re
from subprocess import CalledProcessError

import pytest

from sens_cli.release.record import IMAGES, Record
from support.git import Repository
from support.hosting import GITOPS_NAME, TOKEN, HostingService
from support.http_server import Answer
from support.registry import FOLDER, upload
from support.release import CHART, MIGRATIONS, PRODUCTION, TEST, Said, Scene, refused, start
from tools.release.clone import Clone
from tools.release.description import fenced
from tools.release.registry import REVISION

ALPHA, STABLE, BRANCH = "0.1.0-alpha.10.1", "0.1.0", "promote/0.1.0"


@pytest.fixture
def ready(scene: Scene) -> Scene:
    """Test has an alpha version, and the stable images of the same commit are published."""
    scene.release_directly(TEST, ALPHA, scene.product.head)
    scene.publish(STABLE, scene.product.head)
    return scene


@pytest.fixture
def hosting(hosting: HostingService, monkeypatch: pytest.MonkeyPatch) -> HostingService:
    monkeypatch.setenv("GITHUB_REPOSITORY", GITOPS_NAME)
    return hosting


def proposed(scene: Scene, branch: str = BRANCH) -> Record:
    return scene.record(PRODUCTION, branch)


def merge(scene: Scene, branch: str = BRANCH) -> None:
    """Merge a branch on the remote, as the hosting service does."""
    merging = scene.remote.clone(scene.folder / f"merge-{branch.replace('/', '-')}")
    merging.git("fetch", "--quiet", "origin", branch)
    merging.merge("FETCH_HEAD")
    merging.push("main")


def texts(hosting: HostingService) -> list[str]:
    return [str(pull["body"]) for pull in hosting.repositories[GITOPS_NAME].pulls]


class TestAPromotion:
    def test_is_a_branch_that_changes_productions_files_and_nothing_else(self, ready: Scene) -> None:
        before = ready.main
        said = ready.promote()
        assert said.startswith(f"The branch {BRANCH} was pushed.\n")
        assert ready.remote.changed("main", BRANCH) == PRODUCTION.paths
        assert ready.main == ready.remote.revision(f"{BRANCH}~1") == before

    def test_gives_production_the_stable_version_of_tests_commit(self, ready: Scene) -> None:
        ready.promote("--run-url=https://ci.example/runs/7")
        record = proposed(ready)
        assert str(record.release.version) == STABLE
        assert record.release.product_commit == ready.product.head
        assert record.run == "https://ci.example/runs/7"
        assert record.previous is None
        assert set(record.images) == set(IMAGES)

    def test_leaves_the_clone_as_it_was(self, ready: Scene) -> None:
        before = ready.gitops.head
        ready.promote()
        assert ready.gitops.head == before
        assert ready.gitops.git("status", "--porcelain") == ""
        assert ready.gitops.git("branch", "--format=%(refname:short)") == "main"

    def test_records_what_production_had(self, ready: Scene) -> None:
        ready.promote()
        merge(ready)
        ready.release_directly(TEST, "0.2.0-alpha.11.1", ready.commit_product())
        ready.publish("0.2.0", ready.product.head)
        ready.promote()
        merge(ready, "promote/0.2.0")
        record = ready.record(PRODUCTION)
        assert record.previous is not None
        assert (str(record.previous.version), str(record.release.version)) == (STABLE, "0.2.0")

    def test_without_a_token_tells_how_to_open_the_pull_request(self, ready: Scene) -> None:
        said = ready.promote("--repository=acme/infra")
        assert f"https://github.com/acme/infra/compare/main...{BRANCH}?expand=1" in said
        assert "Promote 0.1.0 to production\n" in said
        assert "### Images" in said

    def test_opens_a_pull_request(self, ready: Scene, hosting: HostingService) -> None:
        said = ready.promote()
        assert said.endswith(f"The pull request: https://hosting.invalid/{GITOPS_NAME}/pull/1\n")
        (pull,) = hosting.repositories[GITOPS_NAME].pulls
        assert pull["title"] == "Promote 0.1.0 to production"
        assert (pull["head"], pull["base"]) == ({"ref": BRANCH}, {"ref": "main"})
        assert TOKEN not in said

    def test_may_push_its_branch_before_the_pull_request(
        self, ready: Scene, hosting: HostingService, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        output = ready.folder / "output"
        monkeypatch.setenv("GITHUB_OUTPUT", str(output))
        assert ready.promote("--branch-only") == f"The branch {BRANCH} was pushed.\n"
        assert output.read_text() == f"branch={BRANCH}\n"
        assert texts(hosting) == []
        assert "is on the remote already, with this release." in ready.promote()
        assert len(texts(hosting)) == 1

    def test_that_was_pushed_but_not_opened_is_opened_the_next_time(
        self, ready: Scene, hosting: HostingService
    ) -> None:
        hosting.intercept = lambda _method, _path: Answer(503)
        refused(ready.promote(), "run it again later")
        hosting.intercept = lambda _method, _path: None
        assert ready.promote().code == 0
        assert len(texts(hosting)) == 1


class TestASecondRun:
    def test_finds_the_branch_and_the_pull_request(self, ready: Scene, hosting: HostingService) -> None:
        first = ready.promote()
        commit = ready.remote.revision(BRANCH)
        second = ready.promote()
        assert second == first.replace("was pushed", "is on the remote already, with this release")
        assert ready.remote.revision(BRANCH) == commit
        assert len(texts(hosting)) == 1

    def test_after_the_merge_has_nothing_to_do(self, ready: Scene, hosting: HostingService) -> None:
        ready.promote()
        merge(ready)
        ready.gitops.git("pull", "--quiet", "--ff-only")
        assert ready.promote() == "Nothing to do: production has what test runs.\n"
        assert len(texts(hosting)) == 1

    def test_uses_the_branch_again_after_a_merge_and_a_rollback(self, ready: Scene) -> None:
        ready.promote()
        merge(ready)
        ready.gitops.git("pull", "--quiet", "--ff-only")
        ready.release_directly(PRODUCTION, "0.0.9", ready.product.head)
        assert "was pushed" in ready.promote()
        assert str(proposed(ready).previous) != "None"

    def test_does_not_take_a_branch_from_before_another_release(self, ready: Scene) -> None:
        ready.promote()
        ready.release_directly(PRODUCTION, "0.0.9", ready.product.head)
        refused(ready.promote(), "production has had another release since it was made")

    def test_never_overwrites_somebodys_commits(self, ready: Scene) -> None:
        ready.promote()
        colleague = ready.another_clone()
        colleague.git("switch", "--quiet", BRANCH)
        commit = colleague.commit("Scale up", {"environments/production/values.yaml": "replicas: 3\n"})
        colleague.push(BRANCH)
        refused(
            ready.promote(),
            f"The branch {BRANCH} is on the remote already (at {commit[:12]}), with something else in it",
            "environments/production/values.yaml is changed",
            f"git push origin --delete {BRANCH}",
        )
        assert ready.remote.revision(BRANCH) == commit

    def test_does_not_take_a_branch_with_another_release(self, ready: Scene) -> None:
        ready.promote()
        other = ready.commit_product()
        for image in IMAGES:
            upload(ready.registry, f"{FOLDER}/{image}", STABLE, {"linux/amd64": {REVISION: other}})
        ready.release_directly(TEST, "0.1.0-alpha.11.1", other)
        refused(ready.promote(), "with another release in it: 0.1.0 of the commit ")


class TestARefusedPromotion:
    def refused(self, scene: Scene, *texts: str) -> Said:
        branches = scene.remote.git("for-each-ref")
        said = refused(scene.promote(), *texts)
        assert said.startswith("scripts/promote-production-from-test.sh: ")
        assert scene.remote.git("for-each-ref") == branches
        return said

    def test_finds_no_release_in_test(self, scene: Scene) -> None:
        self.refused(scene, "test has no release yet")

    def test_finds_no_alpha_in_test(self, scene: Scene) -> None:
        scene.release_directly(TEST, STABLE, scene.product.head)
        self.refused(scene, "test takes alpha versions, and 0.1.0 is of the channel stable")

    def test_names_each_stable_image_that_is_missing(self, scene: Scene) -> None:
        scene.release_directly(TEST, ALPHA, scene.product.head)
        scene.publish(STABLE, scene.product.head, ["docs", "telemetry-worker"])
        missing = "not published with the tag 0.1.0: http-ingestion-worker, mock-mqtt-broker, mqtt-ingestion-worker, platform-api."
        self.refused(scene, missing, scene.product.head)

    def test_names_both_commits_when_stable_is_of_another_one(self, scene: Scene) -> None:
        scene.release_directly(TEST, ALPHA, test := scene.product.head)
        scene.publish(STABLE, other := scene.commit_product())
        self.refused(scene, f"was not built from the commit {test}", f"docs from '{other}'")

    def test_finds_images_that_do_not_tell_their_commit(self, ready: Scene) -> None:
        upload(ready.registry, f"{FOLDER}/docs", STABLE, {"linux/amd64": {}})
        self.refused(ready, "docs from 'a commit that it does not name'")

    def test_finds_a_later_version_in_production(self, ready: Scene) -> None:
        ready.release_directly(PRODUCTION, "0.2.0", ready.product.head)
        said = self.refused(
            ready,
            "production has 0.2.0, which is later than 0.1.0 of test: a promotion does not go back",
            "It never had 0.1.0. Raise the root version of the product above 0.2.0 (scripts/set-version)",
        )
        assert "rollback" not in said

    def test_advises_a_rollback_where_that_works(self, ready: Scene) -> None:
        ready.release_directly(PRODUCTION, STABLE, ready.product.head)
        ready.release_directly(PRODUCTION, "0.2.0", ready.commit_product())
        said = self.refused(ready, "a promotion does not go back. If that is meant: scripts/rollback production 0.1.0.")
        command = said.partition("scripts/rollback ")[2].removesuffix(".\n").split()
        assert ready.roll_back(*command, "--repository=acme/infra").code == 0

    def test_finds_the_same_version_of_another_commit_in_production(self, ready: Scene) -> None:
        ready.release_directly(PRODUCTION, STABLE, had := ready.product.head)
        ready.release_directly(TEST, "0.1.0-alpha.11.1", commit := ready.commit_product())
        self.refused(ready, f"production has {STABLE} already, of the commit {had}", commit, "Raise the root version")

    def test_starts_from_a_dirty_tree(self, ready: Scene) -> None:
        ready.gitops.write({"NOTES.md": "x\n"})
        self.refused(ready, "changes in")

    @pytest.mark.parametrize("path", sorted(TEST.paths))
    def test_starts_from_files_of_test_that_are_not_those_of_main(self, ready: Scene, path: str) -> None:
        ready.gitops.branch("work")
        ready.gitops.commit("Change it", {path: "x\n"})
        self.refused(ready, f"{path} is not what main has")

    def test_starts_from_a_clone_that_is_behind(self, ready: Scene) -> None:
        colleague = ready.another_clone()
        ready.release_directly(TEST, "0.1.0-alpha.11.1", ready.product.head)
        assert "is not what main has" in ready.promote(folder=colleague.folder)

    def test_finds_productions_files_broken(self, ready: Scene) -> None:
        ready.release_directly(PRODUCTION, "0.0.9", ready.product.head)
        ready.gitops.commit("Break it", {PRODUCTION.record: "[]\n"})
        ready.gitops.push("main")
        self.refused(ready, "release.json: it must be an object")

    def test_loses_a_tag_between_two_questions(self, ready: Scene) -> None:
        ready.forget_after_one_question("platform-api")
        self.refused(ready, "platform-api has no sha256:")

    @pytest.mark.parametrize(
        "product", ["absent", "--upload-pack=touch pwned", "ext::sh -c touch% pwned", "https://\n", ""]
    )
    def test_gets_no_product_repository(self, ready: Scene, product: str) -> None:
        said = ready.promote(f"--product={product}")
        assert said.code == (1 if product else 0)
        assert not list(ready.folder.rglob("pwned"))

    @pytest.mark.parametrize("name", ["acme", "a/b/c", "$(id)", "../..", "a b/c"])
    def test_gets_no_repository_on_the_hosting_service(self, ready: Scene, hosting: HostingService, name: str) -> None:
        refused(ready.promote(f"--repository={name}"), "write it as owner/name")
        assert hosting.calls == []


@pytest.mark.usefixtures("cosign")
class TestConcurrentPromotions:
    def test_of_the_same_version_make_one_branch_and_one_pull_request(
        self, ready: Scene, hosting: HostingService
    ) -> None:
        clones = [ready.gitops, ready.another_clone()]
        programs = [start(clone, "promote-production-from-test.sh") for clone in clones]
        outputs = [running.communicate(timeout=60)[0] for running in programs]
        assert [running.returncode for running in programs] == [0, 0], outputs
        assert len(texts(hosting)) == 1
        assert proposed(ready).release.product_commit == ready.product.head

    def test_that_were_faster_are_taken(self, ready: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
        colleague = ready.another_clone()
        original = Clone.push

        def push(clone: Clone, commit: str, branch: str) -> bool:
            monkeypatch.setattr(Clone, "push", original)
            assert ready.promote("--run-url=https://ci.example/runs/1", folder=colleague.folder).code == 0
            return clone.push(commit, branch)

        monkeypatch.setattr(Clone, "push", push)
        assert "is on the remote already, with this release" in ready.promote()

    def test_of_two_versions_can_not_both_be_merged(self, ready: Scene) -> None:
        ready.promote()
        ready.release_directly(TEST, "0.2.0-alpha.11.1", ready.commit_product())
        ready.publish("0.2.0", ready.product.head)
        ready.promote()
        merge(ready)
        with pytest.raises(CalledProcessError, match="CONFLICT"):
            merge(ready, "promote/0.2.0")


class TestTheText:
    @pytest.fixture
    def body(self, scene: Scene, hosting: HostingService) -> str:
        """The text of a promotion that changes commits, the chart, its values and migrations."""
        first = scene.commit_product(
            "Start",
            {f"{CHART}/values.yaml": "replicas: 1\n", f"{CHART}/templates/api.yaml": "kind: Old\n"},
        )
        scene.release_directly(PRODUCTION, "0.0.9", first)
        scene.commit_product("Break out ``` ````\x1b[31m <!-- @everyone #1", {f"{CHART}/values.yaml": "replicas: 2\n"})
        second = scene.commit_product(
            "Migrate",
            {
                f"{CHART}/templates/api.yaml": "# ~~~ ```\nkind: New\n",
                f"{MIGRATIONS}/0002_more.sql": "select 1;\n",
                f"{MIGRATIONS}/0001_tenants.sql": "select 2;\n",
            },
        )
        scene.release_directly(TEST, ALPHA, second)
        scene.publish(STABLE, second)
        assert scene.promote(f"--product={scene.product.folder}").code == 0
        return texts(hosting)[0]

    def test_tells_versions_and_commits(self, scene: Scene, body: str) -> None:
        assert "| version | 0.0.9 | 0.1.0 |" in body
        assert f"| `{scene.product.revision('HEAD~2')}` | `{scene.product.head}` |" in body
        assert re.search(r"^[0-9a-f]{7,} Migrate$", body, re.MULTILINE)

    def test_shows_what_changes_in_the_chart_and_its_values(self, body: str) -> None:
        values = body.partition("### The chart's default values")[2].partition("###")[0]
        assert "-replicas: 1\n+replicas: 2" in values
        chart = body.partition("### The rest of the chart")[2].partition("###")[0]
        assert "+kind: New" in chart
        assert "replicas" not in chart

    def test_names_new_migrations_and_warns_of_changed_ones(self, body: str) -> None:
        migrations = body.partition("### New migrations of the database")[2].partition("### ")[0]
        assert "```text\n0002_more.sql\n```" in migrations
        assert "may have run already are changed or missing" in migrations
        assert "```text\n0001_tenants.sql\n```" in migrations

    def test_tells_the_way_back(self, body: str) -> None:
        assert "```bash\nscripts/rollback production 0.0.9\n```" in body

    def test_names_each_image_by_digest(self, scene: Scene, body: str) -> None:
        for image in proposed(scene).images.values():
            assert f"{image.repository}@{image.digest}" in body

    def test_lets_nothing_break_out_of_its_block(self, body: str) -> None:
        outside = outside_of_blocks(body)
        assert "@everyone" in body
        for foreign in ("@everyone", "<!--", "#1", "kind:", "\x1b"):
            assert foreign not in outside

    def test_of_a_first_release_names_all_migrations(self, ready: Scene, hosting: HostingService) -> None:
        ready.promote(f"--product={ready.product.url}")
        (body,) = texts(hosting)
        assert "This is the first release here" in body
        assert "```text\n0001_tenants.sql\n```" in body
        assert "There is no earlier release" in body

    def test_is_refused_when_the_product_lacks_a_commit(self, ready: Scene) -> None:
        other = Repository.create(ready.folder / "other")
        other.commit()
        refused(ready.promote(f"--product={other.folder}"), f"lacks the product commit {ready.product.head} of 0.1.0")

    def test_fits_into_a_pull_request_however_much_changes(self, scene: Scene, hosting: HostingService) -> None:
        scene.release_directly(PRODUCTION, "0.0.9", scene.product.head)
        line = "x" * 100 + "\n"
        long = {f"{CHART}/values.yaml": line * 2000, f"{CHART}/y.yaml": line * 2000}
        long |= {f"{MIGRATIONS}/{number:04}_{'x' * 150}.sql": "" for number in range(2, 300)}
        long |= {f"{CHART}/z.yaml": "z" * 100_000}
        scene.commit_product("w" * 5000, long)
        scene.release_directly(TEST, ALPHA, scene.product.head)
        scene.publish(STABLE, scene.product.head)
        assert scene.promote(f"--product={scene.product.folder}").code == 0
        (body,) = texts(hosting)
        assert len(body) < 60_000
        assert "cut here" in body
        assert outside_of_blocks(body).count("###") == 6

    @pytest.mark.parametrize("text", ["", "```", "a\n`````\n```` b", "\u202e\x00\u2028\r", "~~~", "\t`"])
    def test_of_a_block_stays_in_it(self, text: str) -> None:
        block = fenced(text)
        assert outside_of_blocks(block + "\nafter") == "after"
        assert all(character.isprintable() or character in "\n\t" for character in block)


def outside_of_blocks(markdown: str) -> str:
    """Return the lines that are in no fenced block (CommonMark 0.31, section 4.5)."""
    lines: list[str] = []
    fence = ""
    for line in markdown.split("\n"):
        if fence:
            closing = re.fullmatch(r" {0,3}(`{3,})[ \t]*", line)
            if closing and len(closing[1]) >= len(fence):
                fence = ""
        elif opening := re.match(r" {0,3}(`{3,})[^`]*$", line):
            fence = opening[1]
        else:
            lines.append(line)
    assert not fence
    return "\n".join(lines)
