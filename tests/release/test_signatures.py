"""Promotion and rollback see that images are signed by the workflow that publishes them, with a program in cosign's place."""

import base64
import re
from pathlib import Path

import pytest
import yaml

from sens_cli.release.record import IMAGES, PinnedImage
from sens_cli.release.versions import ReleaseError
from support.gitops import written
from support.release import PRODUCTION, ROOT, TEST, Cosign, Scene, refused
from tools.gitops.parameters import read_parameters
from tools.release.signatures import ISSUER, Signer

ALPHA, STABLE = "0.1.0-alpha.10.1", "0.1.0"
SIGNER = "https://github.com/acme/sens-platform/.github/workflows/publish-images.yml@refs/heads/main"
OPTIONS = (f"--signer={SIGNER}", "--repository=acme/infra")
DIGEST = f"sha256:{'a' * 64}"


@pytest.fixture
def ready(scene: Scene) -> Scene:
    """Test has a release whose stable images are published, and production has two earlier ones."""
    scene.release_directly(TEST, ALPHA, scene.product.head)
    scene.publish(STABLE, scene.product.head)
    for version in ("0.0.1", "0.0.2"):
        scene.release_directly(PRODUCTION, version, scene.product.head)
    return scene


class TestAPromotion:
    def test_asks_about_each_image_by_digest(self, ready: Scene, cosign: Cosign) -> None:
        said = ready.promote(*OPTIONS)

        assert said.code == 0
        assert f"The images are signed by {SIGNER}." in said
        images = ready.record(PRODUCTION, f"promote/{STABLE}").images
        assert set(images) == set(IMAGES)
        assert ready.registry.credentials is not None
        login = base64.b64encode(":".join(ready.registry.credentials).encode()).decode()
        asked = [f"--certificate-identity={SIGNER}", f"--certificate-oidc-issuer={ISSUER}", "--output=json"]
        assert cosign.calls == [
            (
                ["verify", *asked, f"{image.repository}@{image.digest}"],
                {"auths": {ready.registry.host: {"auth": login}}},
            )
            for image in images.values()
        ]

    def test_is_refused_when_an_image_is_not_signed(self, ready: Scene, cosign: Cosign) -> None:
        cosign.refuse("/telemetry-worker@")

        reason = f"is not known to be signed by {SIGNER}: Error: no signatures found main.go:69"
        said = refused(ready.promote(*OPTIONS), "telemetry-worker (", reason)

        assert ready.remote.git("for-each-ref", "refs/heads/promote") == ""
        assert said.removesuffix("\n").isprintable()

    def test_is_refused_without_cosign(self, ready: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "bin").mkdir()
        (tmp_path / "bin/git").symlink_to("/usr/bin/git")
        monkeypatch.setenv("PATH", str(tmp_path / "bin"))

        missing = "cosign can't be started (No such file or directory)"
        refused(ready.promote(*OPTIONS), missing, "--unsigned-because REASON")

    def test_may_go_without_for_a_reason_that_everybody_sees(self, ready: Scene, cosign: Cosign) -> None:
        cosign.refuse("@")

        assert "--unsigned-because needs a reason" in ready.promote(*OPTIONS, "--unsigned-because= ")
        said = ready.promote(*OPTIONS, "--unsigned-because=Rekor is away")

        assert said.code == 0
        assert "The images' signatures were not verified: Rekor is away." in said
        assert cosign.calls == []


class TestARollback:
    def test_of_production_asks_too(self, ready: Scene, cosign: Cosign) -> None:
        said = ready.roll_back("production", "0.0.1", *OPTIONS)

        assert said.code == 0
        assert f"The images are signed by {SIGNER}." in said
        assert len(cosign.calls) == len(IMAGES)

    def test_of_test_asks_too(self, ready: Scene, cosign: Cosign) -> None:
        ready.release_directly(TEST, "0.1.0-alpha.11.1", ready.commit_product())

        assert f"The images are signed by {SIGNER}." in ready.roll_back("test", ALPHA, "--push", *OPTIONS)
        assert len(cosign.calls) == len(IMAGES)

    @pytest.mark.parametrize("environment", ["test", "production"])
    def test_is_refused_when_an_image_is_not_signed(self, ready: Scene, cosign: Cosign, environment: str) -> None:
        ready.release_directly(TEST, "0.1.0-alpha.11.1", ready.commit_product())
        cosign.refuse("/docs@")
        before = ready.remote.git("for-each-ref")

        version = ALPHA if environment == "test" else "0.0.1"
        refused(ready.roll_back(environment, version, "--push", *OPTIONS), "docs (")
        assert ready.remote.git("for-each-ref") == before


class TestTheLogin:
    def test_is_in_a_file_that_is_gone_afterwards(self, cosign: Cosign, tmp_path: Path) -> None:
        image = {"docs": PinnedImage("registry.example/acme/docs", DIGEST)}
        login = {"SENS_REGISTRY_USER": "me", "SENS_REGISTRY_PASSWORD": "secret"}
        environment = {"PATH": str(cosign.folder), "TMPDIR": str(tmp_path)} | login

        Signer(SIGNER).verify(image, environment)

        [(arguments, handed)] = cosign.calls
        assert handed == {"auths": {"registry.example": {"auth": base64.b64encode(b"me:secret").decode()}}}
        assert not any("secret" in argument for argument in arguments)

    def test_is_docker_s_own_where_none_is_set(self, cosign: Cosign) -> None:
        Signer(SIGNER).verify({"docs": PinnedImage("registry.example/acme/docs", DIGEST)}, {"PATH": str(cosign.folder)})

        assert [login for _, login in cosign.calls] == [None]


class TestWhoSigns:
    @pytest.mark.parametrize("name", ["promote-production-from-test.sh", "rollback"])
    def test_is_named_by_the_scripts_themselves(self, tmp_path: Path, name: str) -> None:
        written(tmp_path / "new", "owner=acme")

        assert f'--signer "{SIGNER}" "$@"' in (tmp_path / f"new/scripts/{name}").read_text(encoding="utf-8")

    def test_is_the_workflow_that_publishes_on_main(self) -> None:
        workflow = yaml.safe_load((ROOT / ".github/workflows/publish-images.yml").read_text(encoding="utf-8"))

        assert SIGNER.endswith("/.github/workflows/publish-images.yml@refs/heads/main")
        assert "sign" in str(workflow["jobs"]["publish"])

    def test_is_the_same_in_the_documentation_s_policy_for_a_cluster(self) -> None:
        text = (ROOT / "docs/operations/releases.md").read_text(encoding="utf-8")
        (block,) = re.findall(r"```yaml\n(apiVersion: policy\.sigstore\.dev.*?)```", text, re.DOTALL)
        policy = yaml.safe_load(block)
        (authority,) = policy["spec"]["authorities"]

        assert policy["kind"] == "ClusterImagePolicy"
        assert authority["keyless"]["identities"] == [{"issuer": ISSUER, "subject": SIGNER.replace("acme", "OWNER")}]
        assert policy["spec"]["images"] == [{"glob": "ghcr.io/OWNER/sens-platform/*"}]
        parameters = read_parameters(ROOT / "infra/gitops/parameters.toml")
        assert parameters["registry"].follows == "ghcr.io/{product_repository}"

    def test_is_not_waived_without_a_reason(self) -> None:
        with pytest.raises(ReleaseError, match="needs a reason"):
            Signer.of(SIGNER, "")
