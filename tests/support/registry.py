"""Registries of images for tests: Debian's docker-registry where it is installed, and a small one in this process.

Both take uploads as the OCI distribution specification 1.1 tells (section "Push"). The small one gives tokens as GitHub's registry
does, and can be told to fail.
"""

import base64
import contextlib
import hashlib
import json
import os
import re
import secrets
import shutil
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import pytest

from support.http_server import Answer, Asked, serving
from support.servers import HOST, accepts_connections, free_port, process, scratch_folder
from tools.release.registry import REVISION, Registry
from tools.release.registry_http import Credentials

FOLDER = "acme/sens-platform"
PLATFORMS = ("linux/amd64", "linux/arm64")
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIGURATION = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"


class RunningRegistry(Protocol):
    """A registry that runs."""

    @property
    def host(self) -> str:
        """Address and port."""

    @property
    def credentials(self) -> Credentials | None:
        """What may push and read; None where everybody may."""

    def authorization(self, repository: str, /) -> str | None:
        """The header with which the uploads below are made."""


def client(registry: RunningRegistry, folder: str = FOLDER) -> Registry:
    """Return the release's own client of a folder of a registry."""
    return Registry(f"{registry.host}/{folder}", registry.credentials, timeout_seconds=10)


def program(name: str) -> str:
    """Return a program's path; skip the test where it is not installed."""
    found = shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")
    if found is None:
        pytest.skip(f"not run: {name} is not installed")
    return found


# Uploads.


def digest_of(content: bytes) -> str:
    """Return the digest of a blob or manifest."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def canonical(document: object) -> bytes:
    """Return JSON that is the same each time."""
    return json.dumps(document, sort_keys=True).encode()


def upload(registry: RunningRegistry, repository: str, tag: str, labels: Mapping[str, Mapping[str, str]]) -> str:
    """Publish an image over the protocol, an index of the platforms where there are several; return its digest.

    Args:
        registry: Where.
        repository: Its name with the folder.
        tag: Its tag.
        labels: Of each platform, by ``os/architecture``. An index also holds an attestation, as BuildKit stores them.
    """

    def part(platform: str, own: Mapping[str, object], **more: object) -> tuple[bytes, dict[str, object]]:
        system, architecture = platform.split("/")
        *blobs, manifest = image({"os": system, "architecture": architecture, "config": own})
        for blob in blobs:
            put_blob(registry, repository, blob)
        about = {"platform": {"os": system, "architecture": architecture}} | more
        return manifest, descriptor(MANIFEST, manifest) | about

    parts = [part(platform, {"Labels": own}) for platform, own in labels.items()]
    if len(parts) == 1:
        return put_manifest(registry, repository, tag, parts[0][0], MANIFEST)
    parts.append(part("unknown/unknown", {}, annotations={"vnd.docker.reference.type": "attestation-manifest"}))
    for manifest, _ in parts:
        put_manifest(registry, repository, digest_of(manifest), manifest, MANIFEST)
    manifests = [described for _, described in parts]
    index = canonical({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests})
    return put_manifest(registry, repository, tag, index, INDEX)


def upload_release(
    registry: RunningRegistry,
    images: Sequence[str],
    version: str,
    commit: str,
    *,
    platforms: Sequence[str] = PLATFORMS,
    folder: str = FOLDER,
) -> dict[str, str]:
    """Publish images as the platform's own builds do; return their digests by name."""
    digests = {}
    for image in images:
        title, of = "org.opencontainers.image.title", "org.opencontainers.image.version"
        labels = {title: image, of: version, REVISION: commit}
        digests[image] = upload(registry, f"{folder}/{image}", version, dict.fromkeys(platforms, labels))
    return digests


def image(configuration: Mapping[str, object]) -> tuple[bytes, bytes, bytes]:
    """Return layer, configuration and manifest of an image."""
    layer = b"\0" * 1024  # an empty tar archive
    content = canonical(dict(configuration) | {"rootfs": {"type": "layers", "diff_ids": [digest_of(layer)]}})
    described = {"config": descriptor(CONFIGURATION, content), "layers": [descriptor(LAYER, layer)]}
    return layer, content, canonical({"schemaVersion": 2, "mediaType": MANIFEST, **described})


def descriptor(media_type: str, content: bytes) -> dict[str, object]:
    """Return what names a blob or manifest in another one."""
    return {"mediaType": media_type, "digest": digest_of(content), "size": len(content)}


def put_blob(registry: RunningRegistry, repository: str, content: bytes) -> None:
    """Upload a blob: POST, then PUT."""
    location = _send(registry, "POST", repository, "blobs/uploads/", b"")
    separator = "&" if "?" in location else "?"
    _send(registry, "PUT", repository, f"{location}{separator}digest={digest_of(content)}", content)


def put_manifest(registry: RunningRegistry, repository: str, reference: str, content: bytes, media_type: str) -> str:
    """Upload a manifest or an index; return its digest."""
    _send(registry, "PUT", repository, f"manifests/{reference}", content, media_type)
    return digest_of(content)


def _send(  # noqa: PLR0917 - the parts of a request
    registry: RunningRegistry,
    method: str,
    repository: str,
    path: str,
    content: bytes,
    media_type: str = "application/octet-stream",
) -> str:
    url = urllib.parse.urljoin(f"http://{registry.host}/v2/{repository}/", path)
    request = urllib.request.Request(url, content, {"Content-Type": media_type}, method=method)  # noqa: S310 - of this machine
    if authorization := registry.authorization(repository):
        request.add_header("Authorization", authorization)
    with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 - of this machine
        return str(answer.headers.get("Location") or "")


# The registry in this process.


@dataclass
class StoredRepository:
    """What one repository holds."""

    blobs: dict[str, bytes] = field(default_factory=dict)
    manifests: dict[str, tuple[str, bytes]] = field(default_factory=dict)


class SmallRegistry:
    """A registry in this process that asks for tokens; reads need one for ``pull``, uploads one for ``push``.

    Attributes:
        failures: Answers instead of the right ones, by the path's beginning.
        requests: Method, path and Authorization of each request.
        public: Whether everybody gets a token for ``pull``.
        before: Called with the method and path of each request, before it is answered.
    """

    def __init__(self) -> None:
        self.host = ""
        self.credentials: Credentials | None = Credentials("somebody", secrets.token_urlsafe(12))
        self.failures: dict[str, Answer] = {}
        self.requests: list[tuple[str, str, str | None]] = []
        self.public = False
        self.before: Callable[[str, str], None] = lambda _method, _path: None
        self.repositories: dict[str, StoredRepository] = {}
        self.uploads: dict[str, bytes] = {}
        self.tokens: dict[str, set[str]] = {}

    def authorization(self, repository: str) -> str:
        """A token for uploads."""
        return f"Bearer {self.token([f'repository:{repository}:pull,push'])}"

    def token(self, scopes: Sequence[str]) -> str:
        """A token that is valid for these scopes."""
        token = secrets.token_urlsafe(16)
        split = [scope.split(":") for scope in scopes]
        self.tokens[token] = {f"{name}:{action}" for _, name, actions in split for action in actions.split(",")}
        return token

    @contextlib.contextmanager
    def running(self) -> Iterator["SmallRegistry"]:
        """Answer while the context is open."""
        with serving(self._answer) as self.host:
            yield self

    def _answer(self, asked: Asked) -> Answer:
        path, _, rest = asked.target.partition("?")
        query = urllib.parse.parse_qs(rest)
        self.requests.append((asked.method, asked.target, asked.headers["Authorization"]))
        self.before(asked.method, path)
        for beginning, failure in self.failures.items():
            if path.startswith(beginning):
                return failure
        if path == "/token":
            return self._token(query, asked.headers["Authorization"])
        target = path.replace("/blobs/uploads/", "/blobs/uploads:")
        match = re.fullmatch(r"/v2/?|/v2/(.+)/(manifests|blobs)/(.+)", target)
        if match is None:
            return _refusal(404, "UNSUPPORTED")
        name, kind, reference = match.groups("")
        if refused := self._refused(name, "pull" if asked.method in {"GET", "HEAD"} else "push", asked):
            return refused
        repository = self.repositories.setdefault(name, StoredRepository())
        if kind == "manifests":
            return _manifest_answer(asked, name, repository, reference)
        return self._blob(asked, name, repository, reference, query) if kind else Answer(200, b"{}")

    def _refused(self, name: str, action: str, asked: Asked) -> Answer | None:
        granted = self.tokens.get((asked.headers["Authorization"] or "").removeprefix("Bearer "))
        if granted is not None and (not name or f"{name}:{action}" in granted):
            return None
        scope = f',scope="repository:{name}:{"pull" if action == "pull" else "pull,push"}"' if name else ""
        challenge = f'Bearer realm="http://{self.host}/token",service="small"{scope}'
        return _refusal(401, "UNAUTHORIZED", **{"WWW-Authenticate": challenge})

    def _token(self, query: Mapping[str, Sequence[str]], authorization: str | None) -> Answer:
        assert self.credentials is not None
        scopes = list(query.get("scope", ()))
        known = authorization == self.credentials.header
        if authorization is not None and not known:
            return _refusal(401, "UNAUTHORIZED")
        if not known and not (self.public and all(scope.endswith(":pull") for scope in scopes)):
            return _refusal(403, "DENIED")
        return Answer(200, {"token": self.token(scopes), "expires_in": 300})

    def _blob(
        self, asked: Asked, name: str, repository: StoredRepository, reference: str, query: Mapping[str, Sequence[str]]
    ) -> Answer:
        upload_id = reference.removeprefix("uploads:")
        match asked.method:
            case "POST":
                upload_id = secrets.token_hex(8)
                self.uploads[upload_id] = b""
                return Answer(202, b"", {"Location": f"/v2/{name}/blobs/uploads/{upload_id}", "Range": "0-0"})
            case "PATCH":
                self.uploads[upload_id] += asked.body
                end = len(self.uploads[upload_id]) - 1
                return Answer(202, b"", {"Location": f"/v2/{name}/blobs/uploads/{upload_id}", "Range": f"0-{end}"})
            case "PUT":
                content = self.uploads.pop(upload_id) + asked.body
                if digest_of(content) != query["digest"][0]:
                    return _refusal(400, "DIGEST_INVALID")
                repository.blobs[digest_of(content)] = content
                return Answer(201, b"", {"Location": f"/v2/{name}/blobs/{digest_of(content)}"})
        if (blob := repository.blobs.get(reference)) is None:
            return _refusal(404, "BLOB_UNKNOWN")
        return Answer(200, blob, {"Content-Type": "application/octet-stream", "Docker-Content-Digest": reference})


def _manifest_answer(asked: Asked, name: str, repository: StoredRepository, reference: str) -> Answer:
    if asked.method == "PUT":
        digest = digest_of(asked.body)
        for key in {reference, digest}:
            repository.manifests[key] = (asked.headers["Content-Type"], asked.body)
        return Answer(201, b"", {"Location": f"/v2/{name}/manifests/{digest}", "Docker-Content-Digest": digest})
    if (found := repository.manifests.get(reference)) is None:
        return _refusal(404, "MANIFEST_UNKNOWN")
    return Answer(200, found[1], {"Content-Type": found[0], "Docker-Content-Digest": digest_of(found[1])})


def _refusal(status: int, code: str, **headers: str) -> Answer:
    return Answer(status, {"errors": [{"code": code, "message": code.lower()}]}, headers)


# Debian's.

# The password is "secret"; docker-registry takes bcrypt only.
_HTPASSWD = "tests:$2b$05$OrwKuNaztiw4nAi3OTY9MOlawM4PrkzOIY8mbG4SRz2K/ACMcEmpe"


@dataclass(frozen=True)
class DebianRegistry:
    """docker-registry on a free port."""

    host: str
    credentials: Credentials | None
    storage: Path

    def authorization(self, _: str) -> str | None:
        """The login, where there is one."""
        return self.credentials.header if self.credentials else None


@contextlib.contextmanager
def docker_registry(*, login: bool = False) -> Iterator[DebianRegistry]:
    """Run Debian's docker-registry; skip the test where it is not installed."""
    path = program("docker-registry")
    port = free_port()
    with scratch_folder("sens-registry-") as folder:
        configuration: dict[str, object] = {
            "version": 0.1,
            "log": {"level": "warn"},
            "storage": {"filesystem": {"rootdirectory": str(folder / "images")}},
            "http": {"addr": f"{HOST}:{port}", "secret": secrets.token_hex(8)},
        }
        if login:
            (folder / "users").write_text(_HTPASSWD)
            configuration["auth"] = {"htpasswd": {"realm": "tests", "path": str(folder / "users")}}
        file = folder / "config.yml"
        file.write_text(json.dumps(configuration))  # which is YAML
        environment = {"PATH": os.defpath, "OTEL_TRACES_EXPORTER": "none"}
        command = [path, "serve", str(file)]
        with process(command, folder / "log", ready=lambda: accepts_connections(port), env=environment):
            yield DebianRegistry(f"{HOST}:{port}", Credentials("tests", "secret") if login else None, folder / "images")


@pytest.fixture
def small_registry() -> Iterator[SmallRegistry]:
    """A registry in this process, empty."""
    with SmallRegistry().running() as registry:
        yield registry


@pytest.fixture(scope="session")
def debian_registry() -> Iterator[DebianRegistry]:
    """Debian's registry, for all tests: it keeps nothing in its memory."""
    with docker_registry() as registry:
        yield registry


@pytest.fixture(params=["small", "docker-registry"])
def image_registry(request: pytest.FixtureRequest) -> Iterator[RunningRegistry]:
    """An empty registry: the one in this process, and Debian's where it is installed."""
    if request.param == "small":
        with SmallRegistry().running() as registry:
            yield registry
    else:
        debian: DebianRegistry = request.getfixturevalue("debian_registry")
        shutil.rmtree(debian.storage, ignore_errors=True)
        yield debian


def registry_file(folder: Path, registry: RunningRegistry) -> Path:
    """Write a file that logs skopeo and buildah in to a registry; return its path."""
    file = folder / "auth.json"
    login = base64.b64encode(":".join(registry.credentials or ("", "")).encode()).decode()
    file.write_text(json.dumps({"auths": {registry.host: {"auth": login}} if registry.credentials else {}}))
    return file
