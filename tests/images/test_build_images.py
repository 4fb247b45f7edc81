"""What scripts/build-images accepts, what it tells a builder, and how it hands over the package index."""

import subprocess
import sys
from pathlib import Path

import pytest

from tools.images.__main__ import build_of, parse
from tools.images.builders import build_options, numeric_user, run_program
from tools.images.catalogue import IMAGES
from tools.images.package_index import secrets
from tools.images.source import Commit, ImageError, checked_version, public_address

COMMIT = Commit("a" * 40, 1_700_000_000, "1.2.3", "https://example.org/x", modified=False)


class TestVersion:
    @pytest.mark.parametrize("version", ["0.1.0", "1.4.0-rc.1", "2.0.0-alpha.10"])
    def test_accepts_semver(self, version: str) -> None:
        assert checked_version(version) == version

    @pytest.mark.parametrize(
        "version", ["latest", "main", "git-abc", "1.2", "1.02.3", "1.2.3+build", "v1.2.3", "1.2.3-", ""]
    )
    def test_refuses_what_is_no_immutable_tag(self, version: str) -> None:
        with pytest.raises(ImageError, match="Give a version"):
            checked_version(version)


class TestArguments:
    def test_need_no_option(self) -> None:
        options = parse([])

        assert (options.version, options.image, options.prefix, options.trial) == (None, None, "localhost", True)

    @pytest.mark.parametrize(
        ("arguments", "complaint"),
        [
            (["--version", "latest"], "Give a version"),
            (["--image", "nginx"], "invalid choice"),
            (["--base", "x", "--debian-base"], "not allowed with"),
            (["--builder", "kaniko"], "invalid choice"),
            (["--platform", "linux/arm64"], "--platform is for --push-digests"),
            (["--check-reproducible", "--push-digests", "x"], "can't be used with"),
            (["everything"], "unrecognized arguments"),
        ],
    )
    def test_that_are_wrong_end_with_2(
        self, arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with pytest.raises(SystemExit) as ended:
            parse(arguments)

        assert ended.value.code == 2
        assert complaint in capsys.readouterr().err


class TestBuild:
    def test_tells_the_builder_commit_version_and_time(self) -> None:
        build = build_of(IMAGES[0], COMMIT, version="1.2.3-rc.1", prefix="ghcr.io/acme", base="own@sha256:1")

        options = " ".join(build_options(build._replace(context=Path("/context"))))

        assert "--target platform-api --tag ghcr.io/acme/platform-api:1.2.3-rc.1" in options
        assert f"--build-arg REVISION={'a' * 40}" in options
        assert "--build-arg CREATED=2023-11-14T22:13:20Z" in options
        assert "--build-arg SOURCE_DATE_EPOCH=1700000000" in options
        assert "--build-arg BASE=own@sha256:1" in options
        assert options.endswith(" /context")

    def test_leaves_the_base_to_the_dockerfile_by_default(self) -> None:
        assert "BASE" not in build_of(IMAGES[0], COMMIT, version="1.2.3", prefix="localhost", base=None).arguments


class TestUser:
    @pytest.mark.parametrize("user", ["", "root", "0", "0:0", "65532", "nobody:nogroup"])
    def test_that_a_cluster_could_not_check_is_refused(self, user: str) -> None:
        with pytest.raises(ImageError, match="two numbers other than 0"):
            numeric_user(user)

    def test_is_two_numbers(self) -> None:
        assert numeric_user("65532:1") == (65532, 1)


class TestSource:
    def test_is_an_address_without_credentials(self) -> None:
        assert public_address("https://me:secret@example.org/a/b.git\n") == "https://example.org/a/b"

    @pytest.mark.parametrize("remote", ["", "/somewhere", "git@example.org:a/b.git"])
    def test_is_unknown_otherwise(self, remote: str) -> None:
        assert public_address(remote) == "unknown"


class TestPackageIndex:
    def test_is_handed_over_with_its_authorities(self, tmp_path: Path) -> None:
        authorities = tmp_path / "own.pem"
        authorities.write_text("an authority")
        folder = tmp_path / "secrets"
        folder.mkdir()

        files = secrets(folder, {"PIP_INDEX_URL": "https://index.example/x", "PIP_CERT": str(authorities)})

        assert "index.example/x\n" in files["pip.conf"].read_text()
        assert "cert = /run/secrets/certificates\n" in files["pip.conf"].read_text()
        assert files["certificates"].read_text() == "an authority"


class TestPrograms:
    def test_that_fail_say_what_they_wrote(self) -> None:
        with pytest.raises(ImageError, match=r"failed with exit code 3:\nthe reason"):
            run_program([sys.executable, "-c", "print('the reason'); raise SystemExit(3)"])


class TestScript:
    def test_tells_its_options(self) -> None:
        result = subprocess.run(["scripts/build-images", "--help"], capture_output=True, text=True, check=False)

        assert result.returncode == 0
        assert "--debian-base" in result.stdout
