"""What the release path reads from registries of images, over the real protocol."""

import json
import os
import re
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from sens_cli.release.versions import ReleaseError
from support.http_server import Answer
from support.registry import (
    FOLDER,
    INDEX,
    MANIFEST,
    RunningRegistry,
    SmallRegistry,
    canonical,
    client,
    descriptor,
    digest_of,
    docker_registry,
    image,
    program,
    put_blob,
    put_manifest,
    registry_file,
    upload,
    upload_release,
)
from support.servers import HOST, free_port
from tools.release.http import MAXIMUM_BYTES
from tools.release.registry import REVISION, Registry
from tools.release.registry_http import Credentials

COMMIT = "0123456789abcdef0123456789abcdef01234567"
TAG = "0.1.0-alpha.7.1"
API = f"{FOLDER}/platform-api"
MANIFESTS = f"/v2/{API}/manifests/"


@pytest.fixture
def published(small_registry: SmallRegistry) -> Registry:
    """A client of the registry in this process, which holds one image for two platforms."""
    upload_release(small_registry, ["platform-api"], TAG, COMMIT)
    return client(small_registry)


class TestWhatIsPublished:
    def test_is_known_by_the_digest_that_was_pushed(self, image_registry: RunningRegistry) -> None:
        pushed = upload_release(image_registry, ["platform-api"], TAG, COMMIT)

        assert client(image_registry).digest("platform-api", TAG) == pushed["platform-api"]

    def test_has_the_labels_of_all_its_platforms(self, image_registry: RunningRegistry) -> None:
        upload_release(image_registry, ["platform-api"], TAG, COMMIT)

        found = client(image_registry).find("platform-api", TAG)

        assert found is not None
        assert found.labels[REVISION] == COMMIT
        assert found.platforms == ("linux/amd64", "linux/arm64")  # the attestation is not a platform

    @pytest.mark.parametrize("labels", [{REVISION: COMMIT}, {}])
    def test_can_be_for_one_platform_and_without_labels(
        self, image_registry: RunningRegistry, labels: dict[str, str]
    ) -> None:
        upload(image_registry, API, TAG, {"linux/amd64": labels})

        assert client(image_registry).labels("platform-api", TAG) == labels

    def test_is_found_by_digest_too(self, image_registry: RunningRegistry) -> None:
        digest = upload_release(image_registry, ["platform-api"], TAG, COMMIT)["platform-api"]

        assert client(image_registry).labels("platform-api", digest)[REVISION] == COMMIT

    def test_may_lie_in_a_folder_that_is_the_registry_itself(self, image_registry: RunningRegistry) -> None:
        digest = upload(image_registry, "platform-api", TAG, {"linux/amd64": {}})

        assert Registry(image_registry.host, image_registry.credentials).digest("platform-api", TAG) == digest


class TestWhatIsNotPublished:
    def test_has_no_digest(self, image_registry: RunningRegistry) -> None:
        assert client(image_registry).digest("platform-api", TAG) is None

    def test_has_none_beside_another_tag_either(self, image_registry: RunningRegistry) -> None:
        upload_release(image_registry, ["platform-api"], TAG, COMMIT)

        assert client(image_registry).digest("platform-api", "0.1.0") is None

    def test_has_no_labels_and_the_error_says_what_to_do(self, image_registry: RunningRegistry) -> None:
        with pytest.raises(ReleaseError, match=r"platform-api has no 0\.1\.0-alpha\.7\.1: publish it first"):
            client(image_registry).labels("platform-api", TAG)


class TestTags:
    def test_are_given_to_what_was_pushed_without_one(self, image_registry: RunningRegistry) -> None:
        digest = upload(image_registry, API, "pushed", {"linux/amd64": {}, "linux/arm64": {}})

        client(image_registry).tag("platform-api", digest, TAG)

        assert client(image_registry).digest("platform-api", TAG) == digest

    def test_that_stand_for_it_already_stay(self, image_registry: RunningRegistry) -> None:
        digest = upload_release(image_registry, ["platform-api"], TAG, COMMIT)["platform-api"]

        client(image_registry).tag("platform-api", digest, TAG)

        assert client(image_registry).digest("platform-api", TAG) == digest

    def test_are_never_moved(self, image_registry: RunningRegistry) -> None:
        standing = upload_release(image_registry, ["platform-api"], TAG, COMMIT)["platform-api"]
        other = upload(image_registry, API, "other", {"linux/amd64": {}})

        with pytest.raises(ReleaseError, match=f"{TAG} is published as {standing}, and a published tag is never moved"):
            client(image_registry).tag("platform-api", other, TAG)

        assert client(image_registry).digest("platform-api", TAG) == standing

    def test_need_an_image(self, image_registry: RunningRegistry) -> None:
        with pytest.raises(ReleaseError, match="is not in the registry: build and push it first"):
            client(image_registry).tag("platform-api", f"sha256:{'a' * 64}", TAG)

    def test_need_the_right_to_write(self, small_registry: SmallRegistry) -> None:
        digest = upload(small_registry, API, "pushed", {"linux/amd64": {}})
        small_registry.public = True

        with pytest.raises(ReleaseError, match=r"GET .*/token was refused with 403 .* may not do this"):
            Registry(f"{small_registry.host}/{FOLDER}").tag("platform-api", digest, TAG)

    def test_that_somebody_else_gives_at_the_same_moment_are_told(self, small_registry: SmallRegistry) -> None:
        mine = upload(small_registry, API, "mine", {"linux/amd64": {}})
        theirs = upload(small_registry, API, "theirs", {"linux/arm64": {}})
        manifests = small_registry.repositories[API].manifests
        asked = []

        def win_the_race(method: str, path: str) -> None:
            asked.append((method, path))
            # After it was written, and before it is looked at again.
            if (method, path) == ("GET", MANIFESTS + TAG) and ("PUT", MANIFESTS + TAG) in asked:
                manifests[TAG] = manifests[theirs]

        small_registry.before = win_the_race

        with pytest.raises(ReleaseError, match=f"to become {mine} and stands for {theirs}: somebody else published"):
            client(small_registry).tag("platform-api", mine, TAG)


class TestRealPrograms:
    """Images that skopeo and buildah have pushed."""

    @pytest.fixture
    def layout(self, tmp_path: Path) -> Path:
        """An image as a folder, in the layout of the OCI image specification."""
        parts = image({"os": "linux", "architecture": "amd64", "config": {"Labels": {REVISION: COMMIT}}})
        folder = tmp_path / "layout"
        (folder / "blobs/sha256").mkdir(parents=True)
        for content in parts:
            (folder / "blobs/sha256" / digest_of(content).removeprefix("sha256:")).write_bytes(content)
        (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
        index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [descriptor(MANIFEST, parts[-1])]}
        (folder / "index.json").write_bytes(canonical(index))
        return folder

    def test_skopeo(self, image_registry: RunningRegistry, layout: Path, tmp_path: Path) -> None:
        reference = f"docker://{image_registry.host}/{API}:{TAG}"
        login = registry_file(tmp_path, image_registry)
        options = ["--insecure-policy", "copy", "--preserve-digests", "--dest-tls-verify=false", f"--authfile={login}"]
        command = [program("skopeo"), *options, f"oci:{layout}", reference]

        subprocess.run(command, check=True, capture_output=True, timeout=60)

        entry = json.loads((layout / "index.json").read_bytes())["manifests"][0]
        assert client(image_registry).digest("platform-api", TAG) == entry["digest"]
        assert client(image_registry).labels("platform-api", TAG) == {REVISION: COMMIT}

    @pytest.mark.skipif(
        os.geteuid() != 0, reason="not run: buildah needs root's rights, or namespaces that others may not make"
    )
    def test_buildah_with_an_index_of_two_platforms(self, image_registry: RunningRegistry, tmp_path: Path) -> None:
        login = registry_file(tmp_path, image_registry)
        storage = ["--root", str(tmp_path / "images"), "--runroot", str(tmp_path / "run"), "--storage-driver", "vfs"]

        def buildah(*arguments: str) -> str:
            done = subprocess.run(
                [program("buildah"), *storage, *arguments], check=True, capture_output=True, text=True, timeout=60
            )
            return done.stdout.strip()

        buildah("manifest", "create", "both")
        for architecture in ("amd64", "arm64"):
            container = buildah("from", "--arch", architecture, "scratch")
            buildah("config", "--arch", architecture, "--label", f"{REVISION}={COMMIT}", container)
            image = buildah("commit", "--quiet", container)
            buildah("manifest", "add", "--arch", architecture, "both", image)
        reference = f"docker://{image_registry.host}/{API}:{TAG}"
        digest_file = tmp_path / "digest"
        options = ["--all", "--tls-verify=false", "--authfile", str(login), "--digestfile", str(digest_file)]
        buildah("manifest", "push", *options, "both", reference)

        found = client(image_registry).find("platform-api", TAG)

        assert found is not None
        assert found.digest == digest_file.read_text().strip()
        assert found.labels[REVISION] == COMMIT
        assert found.platforms == ("linux/amd64", "linux/arm64")


class TestLogin:
    def test_by_password_at_the_registry_itself(self) -> None:
        with docker_registry(login=True) as registry:
            upload_release(registry, ["platform-api"], TAG, COMMIT)

            assert client(registry).labels("platform-api", TAG)[REVISION] == COMMIT

    def test_that_is_missing_is_said(self) -> None:
        with (
            docker_registry(login=True) as registry,
            pytest.raises(ReleaseError, match="asks for a login: set SENS_REGISTRY_USER"),
        ):
            Registry(f"{registry.host}/{FOLDER}").digest("platform-api", TAG)

    def test_that_is_wrong_is_said_without_the_password(self) -> None:
        with docker_registry(login=True) as registry, pytest.raises(ReleaseError) as refused:
            Registry(f"{registry.host}/{FOLDER}", Credentials("tests", "guessed")).digest("platform-api", TAG)

        assert "refused with 401" in str(refused.value)
        assert "'tests' was not accepted" in str(refused.value)
        assert "guessed" not in str(refused.value)

    def test_by_token_asks_once_for_each_image(self, small_registry: SmallRegistry, published: Registry) -> None:
        small_registry.requests.clear()

        published.labels("platform-api", TAG)
        published.labels("platform-api", TAG)

        asked = [path for _, path, _ in small_registry.requests if path.startswith("/token")]
        assert len(asked) == 1
        assert "scope=repository%3Aacme%2Fsens-platform%2Fplatform-api%3Apull" in asked[0]
        assert "service=small" in asked[0]

    def test_asks_again_when_its_token_has_expired(self, small_registry: SmallRegistry, published: Registry) -> None:
        published.digest("platform-api", TAG)
        small_registry.tokens.clear()

        assert published.digest("platform-api", TAG)

    def test_is_not_needed_for_what_everybody_may_read(self, small_registry: SmallRegistry) -> None:
        upload_release(small_registry, ["platform-api"], TAG, COMMIT)
        small_registry.public = True

        assert Registry(f"{small_registry.host}/{FOLDER}").digest("platform-api", TAG)

    def test_that_the_token_service_refuses_is_no_missing_image(self, small_registry: SmallRegistry) -> None:
        with pytest.raises(ReleaseError, match=r"/token was refused with 403 \(DENIED denied\): everybody .* may not"):
            Registry(f"{small_registry.host}/{FOLDER}").digest("platform-api", TAG)

    def test_sends_the_password_to_the_token_service_alone(
        self, small_registry: SmallRegistry, published: Registry
    ) -> None:
        small_registry.requests.clear()

        published.labels("platform-api", TAG)

        assert small_registry.credentials is not None
        password = small_registry.credentials.header
        sent_to = {path.partition("?")[0] for _, path, header in small_registry.requests if header == password}
        assert sent_to == {"/token"}


class TestEnvironment:
    def test_gives_the_login(self) -> None:
        login = {"SENS_REGISTRY_USER": "me", "SENS_REGISTRY_PASSWORD": "secret"}

        assert Credentials.from_environment("ghcr.io", login) == ("me", "secret")

    def test_gives_a_run_s_own_login_to_github_s_registry_alone(self) -> None:
        none = {"SENS_REGISTRY_USER": "", "SENS_REGISTRY_PASSWORD": ""}
        own = none | {"SENS_GHCR_USER": "actor", "SENS_GHCR_TOKEN": "token"}
        set_too = own | {"SENS_REGISTRY_USER": "me", "SENS_REGISTRY_PASSWORD": "secret"}

        assert Credentials.from_environment("ghcr.io", own) == ("actor", "token")
        assert Credentials.from_environment("ghcr.io", set_too) == ("me", "secret")
        for host in ("registry.example", "ghcr.io:5000", "ghcr.io.example", "", "127.0.0.1"):
            assert Credentials.from_environment(host, own) is None

    @pytest.mark.parametrize("environment", [{}, {"SENS_REGISTRY_USER": "", "SENS_REGISTRY_PASSWORD": ""}])
    def test_may_give_none(self, environment: Mapping[str, str]) -> None:
        assert Credentials.from_environment("ghcr.io", environment) is None

    @pytest.mark.parametrize(
        ("user", "password"),
        [("me", ""), ("", "secret"), ("me", "two\nlines"), ("me:you", "secret"), ("me\r\nX: y", "s")],
    )
    def test_with_half_a_login_is_refused_without_telling_it(self, user: str, password: str) -> None:
        with pytest.raises(ReleaseError) as refused:
            Credentials.from_environment("ghcr.io", {"SENS_REGISTRY_USER": user, "SENS_REGISTRY_PASSWORD": password})

        assert "must both be set" in str(refused.value)
        assert "two" not in str(refused.value)


REASON = canonical({"errors": [{"code": "SOME_CODE", "message": "the\nreason"}]})
REFUSED = rf"manifests/{TAG} was refused with"
# What is answered below a path instead of the right thing, and what is said of it.
ANSWERS = [
    *((MANIFESTS, Answer(status, REASON), rf"{REFUSED} {status} \(SOME_CODE the reason\): .*{remedy}") for status, remedy in [
        (400, "is this a registry"), (403, "may not do this; give it the right"), (429, "wait for some minutes"),
        (500, "the registry has trouble; run this again later"), (503, "the registry has trouble; run this again later"),
    ]),
    *((MANIFESTS, Answer(500, body), f"{REFUSED} 500: the registry has trouble") for body in [
        b"", b"<html>", b"[]", b'{"errors": 1}', b'{"errors": [1]}', b"[" * 100_000,
    ]),
    *(("/v2/", Answer(401, headers={"WWW-Authenticate": f'Bearer realm="{realm}",service="small"'}), "not an https address") for realm in [
        "http://example.org/token", "file:///etc/passwd", "", "//example.org",
    ]),
    *(("/token", Answer(200, body), "/token answered without a token") for body in [
        b"", b"[]", b"null", b'{"token": 7}', b'{"token": "a\\nb"}', b"{}",
    ]),
    *((MANIFESTS, Answer(307, headers={"Location": location}), "which is not https|was refused with 307") for location in [
        "http://example.org/x", "file:///etc/passwd", "ftp://example.org/",
    ]),
    (MANIFESTS, Answer(200, b" " * (MAXIMUM_BYTES + 1)), f"more than {MAXIMUM_BYTES} bytes"),
    (MANIFESTS + "sha256:", Answer(200, b'{"config": {}}'), "it was changed on its way"),
    (MANIFESTS + "sha256:", Answer(404), "the registry has lost it"),
    (f"/v2/{API}/blobs/", Answer(404), "is not in the registry, or is damaged"),
    (f"/v2/{API}/blobs/", Answer(200, b"{}"), "is not in the registry, or is damaged"),
]  # fmt: skip


class TestAWrongAnswer:
    @pytest.mark.parametrize(("path", "answer", "said"), ANSWERS, ids=range(len(ANSWERS)))
    def test_is_never_taken_for_a_missing_tag(
        self, small_registry: SmallRegistry, published: Registry, path: str, answer: Answer, said: str
    ) -> None:
        small_registry.failures[path] = answer

        with pytest.raises(ReleaseError, match=said):
            published.labels("platform-api", TAG)


class TestTrouble:
    def test_with_the_connection_is_told(self) -> None:
        registry = Registry(f"{HOST}:{free_port()}/{FOLDER}")

        with pytest.raises(ReleaseError, match=r"got no answer \(.*refused.*\): check the registry's name"):
            registry.digest("platform-api", TAG)

    def test_by_silence_ends(self) -> None:
        # It listens, but nobody accepts: the connection is made by the system, and no answer comes.
        with socket.socket() as listener:
            listener.bind((HOST, 0))
            listener.listen()
            registry = Registry(f"{HOST}:{listener.getsockname()[1]}/{FOLDER}", timeout_seconds=0.2)
            with pytest.raises(ReleaseError, match=r"got no answer .*timed out"):
                registry.digest("platform-api", TAG)


class TestRedirections:
    def test_are_followed_without_the_token(self, small_registry: SmallRegistry, published: Registry) -> None:
        digest = published.digest("platform-api", TAG)
        media_type, body = small_registry.repositories[API].manifests[TAG]
        with SmallRegistry().running() as store:
            store.failures["/stored"] = Answer(200, body, {"Content-Type": media_type})
            elsewhere = {"Location": f"http://{store.host}/stored?signed=yes"}
            small_registry.failures[MANIFESTS + TAG] = Answer(307, headers=elsewhere)

            assert published.digest("platform-api", TAG) == digest
            assert [header for _, _, header in store.requests] == [None]


class TestDamage:
    def test_on_the_way_is_seen(self, small_registry: SmallRegistry, published: Registry) -> None:
        body = small_registry.repositories[API].manifests[TAG][1]
        header = {"Docker-Content-Digest": digest_of(body)}
        small_registry.failures[MANIFESTS + TAG] = Answer(200, body.replace(b"amd64", b"amd65"), header)

        with pytest.raises(ReleaseError, match=f"not {digest_of(body)}: it was changed on its way"):
            published.digest("platform-api", TAG)

    def test_between_platforms_is_seen(self, small_registry: SmallRegistry) -> None:
        upload(small_registry, API, TAG, {"linux/amd64": {REVISION: COMMIT}, "linux/arm64": {REVISION: "f" * 40}})

        with pytest.raises(ReleaseError, match="different labels, so they were not built from the same commit"):
            client(small_registry).labels("platform-api", TAG)

    @pytest.mark.parametrize(
        ("document", "complaint"),
        [
            ("text", "not a JSON object"),
            ({}, "neither a manifest nor an index"),
            ({"manifests": [], "config": {}}, "neither a manifest nor an index"),
            ({"fsLayers": [], "history": []}, "neither a manifest nor an index"),
            ({"manifests": 7}, "no list of at most 50"),
            ({"manifests": [{"digest": "sha256:" + "a" * 64}] * 51}, "no list of at most 50"),
            ({"manifests": []}, "no image in it"),
            ({"manifests": [7]}, "not a sha256 digest"),
            ({"manifests": [{"digest": "md5:1"}]}, "not a sha256 digest"),
            ({"config": None}, "not a sha256 digest"),
            ({"config": {"digest": "../../token"}}, "not a sha256 digest"),
        ],
    )
    def test_of_a_manifest_is_told(self, small_registry: SmallRegistry, document: object, complaint: str) -> None:
        put_manifest(small_registry, API, TAG, canonical(document), MANIFEST)

        with pytest.raises(ReleaseError, match=complaint):
            client(small_registry).labels("platform-api", TAG)

    def test_of_an_index_within_an_index_is_told(self, small_registry: SmallRegistry) -> None:
        inner = canonical({"manifests": []})
        digest = put_manifest(small_registry, API, digest_of(inner), inner, INDEX)
        put_manifest(small_registry, API, TAG, canonical({"manifests": [{"digest": digest}]}), INDEX)

        with pytest.raises(ReleaseError, match="not there or no manifest"):
            client(small_registry).labels("platform-api", TAG)

    @pytest.mark.parametrize("labels", [[], "text", {"a": 1}, {"a": None}])
    def test_of_labels_is_told(self, small_registry: SmallRegistry, labels: object) -> None:
        configuration = canonical({"config": {"Labels": labels}})
        put_blob(small_registry, API, configuration)
        manifest = canonical({"config": {"digest": digest_of(configuration)}})
        put_manifest(small_registry, API, TAG, manifest, MANIFEST)

        with pytest.raises(ReleaseError, match="not texts by name"):
            client(small_registry).labels("platform-api", TAG)


HOSTILE = [
    "", "a b", "a\nb", "a%2Fb", "../a", "a?b", "a#b", "$(touch x)", "`id`", "'\"", "::set-output name=a::b", "a" * 500 + "!", "ä",
]  # fmt: skip


class TestNames:
    @pytest.mark.parametrize("name", [*HOSTILE, "Upper", "a//b", "/a", "a/", "-a", "a.-b"])
    def test_of_images_that_can_not_be_are_refused(self, published: Registry, name: str) -> None:
        with pytest.raises(ReleaseError, match="not a name of an image"):
            published.digest(name, TAG)

    @pytest.mark.parametrize("tag", [*HOSTILE, "a/b", "-a", ".a", "a" * 129, "sha256:abc", "sha512:" + "a" * 128])
    def test_of_tags_that_can_not_be_are_refused(self, published: Registry, tag: str) -> None:
        with pytest.raises(ReleaseError, match="neither a tag nor a digest"):
            published.digest("platform-api", tag)

    @pytest.mark.parametrize(
        "address",
        [*HOSTILE, "https://ghcr.io/x", "ghcr.io/Upper", "user:password@ghcr.io/x", "ghcr.io//x", "/x", "ghcr.io:x/y"],
    )
    def test_of_addresses_that_can_not_be_are_refused(self, address: str) -> None:
        with pytest.raises(ReleaseError, match=re.escape("is not an address of images")):
            Registry(address)

    @pytest.mark.parametrize(
        ("address", "name"),
        [
            ("ghcr.io/acme/sens-platform", "ghcr.io/acme/sens-platform/docs"),
            ("ghcr.io/acme/", "ghcr.io/acme/docs"),
            ("registry.example:5000/x", "registry.example:5000/x/docs"),
            ("[::1]:5000/x", "[::1]:5000/x/docs"),
            ("localhost:5000", "localhost:5000/docs"),
        ],
    )
    def test_are_put_together(self, address: str, name: str) -> None:
        assert Registry(address).repository("docs") == name
