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
import threading
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple, Protocol, override

import pytest

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


def upload(
    registry: RunningRegistry,
    repository: str,
    tag: str,
    labels: Mapping[str, Mapping[str, str]],
    *,
    attested: bool = True,
) -> str:
    """Publish an image over the protocol, an index of the platforms where there are several; return its digest.

    Args:
        registry: Where.
        repository: Its name with the folder.
        tag: Its tag.
        labels: Of each platform, by ``os/architecture``.
        attested: Whether an index also holds an attestation, as BuildKit stores them.
    """
    manifests = []
    for platform, own in labels.items():
        system, architecture = platform.split("/")
        manifest = _manifest(
            registry, repository, {"os": system, "architecture": architecture, "config": {"Labels": own}}
        )
        if len(labels) == 1:
            return put_manifest(registry, repository, tag, manifest, MANIFEST)
        digest = put_manifest(registry, repository, digest_of(manifest), manifest, MANIFEST)
        manifests.append(
            _descriptor(MANIFEST, digest, manifest) | {"platform": {"os": system, "architecture": architecture}}
        )
    if attested:
        about = _manifest(registry, repository, {"os": "unknown", "architecture": "unknown", "config": {}})
        digest = put_manifest(registry, repository, digest_of(about), about, MANIFEST)
        manifests.append(
            _descriptor(MANIFEST, digest, about)
            | {
                "annotations": {"vnd.docker.reference.type": "attestation-manifest"},
                "platform": {"os": "unknown", "architecture": "unknown"},
            }
        )
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


def _manifest(registry: RunningRegistry, repository: str, configuration: Mapping[str, object]) -> bytes:
    layer = b"\0" * 1024  # an empty tar archive
    content = canonical(dict(configuration) | {"rootfs": {"type": "layers", "diff_ids": [digest_of(layer)]}})
    for blob in (layer, content):
        put_blob(registry, repository, blob)
    return canonical(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": _descriptor(CONFIGURATION, digest_of(content), content),
            "layers": [_descriptor(LAYER, digest_of(layer), layer)],
        }
    )


def _descriptor(media_type: str, digest: str, content: bytes) -> dict[str, object]:
    return {"mediaType": media_type, "digest": digest, "size": len(content)}


def put_blob(registry: RunningRegistry, repository: str, content: bytes) -> None:
    """Upload a blob: POST, then PUT."""
    location = _send(registry, "POST", repository, "blobs/uploads/", b"", "application/octet-stream")
    separator = "&" if "?" in location else "?"
    _send(
        registry,
        "PUT",
        repository,
        f"{location}{separator}digest={digest_of(content)}",
        content,
        "application/octet-stream",
    )


def put_manifest(registry: RunningRegistry, repository: str, reference: str, content: bytes, media_type: str) -> str:
    """Upload a manifest or an index; return its digest."""
    _send(registry, "PUT", repository, f"manifests/{reference}", content, media_type)
    return digest_of(content)


def _send(  # noqa: PLR0917 - the parts of a request
    registry: RunningRegistry, method: str, repository: str, path: str, content: bytes, media_type: str
) -> str:
    url = urllib.parse.urljoin(f"http://{registry.host}/v2/{repository}/", path)
    request = urllib.request.Request(  # noqa: S310 - of this machine
        url, method=method, data=content, headers={"Content-Type": media_type}
    )
    if authorization := registry.authorization(repository):
        request.add_header("Authorization", authorization)
    with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 - of this machine
        return str(answer.headers.get("Location") or "")


# The registry in this process.


class Failure(NamedTuple):
    """What the registry in this process answers instead.

    Attributes:
        status: HTTP status.
        body: What follows.
        headers: Further headers.
    """

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = {}


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
        self.credentials: Credentials | None = Credentials("somebody", secrets.token_urlsafe(12))
        self.failures: dict[str, Failure] = {}
        self.requests: list[tuple[str, str, str | None]] = []
        self.public = False
        self.before: Callable[[str, str], None] = lambda _method, _path: None
        self.repositories: dict[str, StoredRepository] = {}
        self.uploads: dict[str, bytes] = {}
        self.tokens: dict[str, set[str]] = {}
        self._server = ThreadingHTTPServer((HOST, 0), _handler(self))
        self.host = f"{HOST}:{self._server.server_address[1]}"

    def authorization(self, repository: str) -> str:
        """A token for uploads."""
        return f"Bearer {self.token([f'repository:{repository}:pull,push'])}"

    def token(self, scopes: Sequence[str]) -> str:
        """A token that is valid for these scopes."""
        token = secrets.token_urlsafe(16)
        self.tokens[token] = {
            f"{name}:{action}"
            for scope in scopes
            for _, name, actions in [scope.split(":")]
            for action in actions.split(",")
        }
        return token

    @contextlib.contextmanager
    def running(self) -> Iterator["SmallRegistry"]:
        """Answer while the context is open."""
        thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, name="registry")
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            thread.join()
            self._server.server_close()


def _handler(registry: SmallRegistry) -> type[BaseHTTPRequestHandler]:
    return type("Handler", (_Handler,), {"registry": registry})


class _Handler(BaseHTTPRequestHandler):
    registry: SmallRegistry
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # an answer is one packet: the header alone would wait for its acknowledgement
    disable_nagle_algorithm = True

    @override
    def log_message(self, format: str, *args: object) -> None:
        pass

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def refuse(self, status: int, code: str, **headers: str) -> None:
        self.answer(status, canonical({"errors": [{"code": code, "message": code.lower()}]}), **headers)

    def handle_request(self) -> None:
        self.content = self._body()
        path = urllib.parse.urlsplit(self.path)
        authorization = self.headers.get("Authorization")
        self.registry.requests.append((self.command, self.path, authorization))
        self.registry.before(self.command, path.path)
        for beginning, failure in self.registry.failures.items():
            if path.path.startswith(beginning):
                headers = {name.replace("-", "_"): value for name, value in failure.headers.items()}
                self.answer(failure.status, failure.body, **headers)
                return
        query = urllib.parse.parse_qs(path.query)
        if path.path == "/token":
            self._token(query, authorization)
        elif path.path in {"/v2", "/v2/"}:
            self._within("", "pull", lambda: self.answer(200, b"{}"))
        elif match := re.fullmatch(
            r"/v2/(.+)/(manifests|blobs)/(.+)", path.path.replace("/blobs/uploads/", "/blobs/uploads:")
        ):
            name, kind, reference = match.groups()
            action = "pull" if self.command in {"GET", "HEAD"} else "push"
            repository = self.registry.repositories.setdefault(name, StoredRepository())
            work = self._manifest if kind == "manifests" else self._blob
            self._within(name, action, lambda: work(name, repository, reference, query))
        else:
            self.refuse(404, "UNSUPPORTED")

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = handle_request  # noqa: N815 - of the standard library

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _within(self, name: str, action: str, work: Callable[[], None]) -> None:
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        granted = self.registry.tokens.get(token)
        if granted is not None and (not name or f"{name}:{action}" in granted):
            work()
            return
        scope = f',scope="repository:{name}:{"pull" if action == "pull" else "pull,push"}"' if name else ""
        realm = f"http://{self.registry.host}/token"
        self.refuse(401, "UNAUTHORIZED", WWW_Authenticate=f'Bearer realm="{realm}",service="small"{scope}')

    def _token(self, query: Mapping[str, Sequence[str]], authorization: str | None) -> None:
        expected = self.registry.credentials
        assert expected is not None
        scopes = list(query.get("scope", ()))
        known = authorization == "Basic " + base64.b64encode(":".join(expected).encode()).decode()
        if authorization is not None and not known:
            self.refuse(401, "UNAUTHORIZED")
        elif not known and not (self.registry.public and all(scope.endswith(":pull") for scope in scopes)):
            self.refuse(403, "DENIED")
        else:
            self.answer(200, canonical({"token": self.registry.token(scopes), "expires_in": 300}))

    def _manifest(self, name: str, repository: StoredRepository, reference: str, _: object) -> None:
        if self.command == "PUT":
            digest = digest_of(self.content)
            for key in {reference, digest}:
                repository.manifests[key] = (self.headers["Content-Type"], self.content)
            self.answer(201, Location=f"/v2/{name}/manifests/{digest}", Docker_Content_Digest=digest)
        elif found := repository.manifests.get(reference):
            self.answer(200, found[1], Content_Type=found[0], Docker_Content_Digest=digest_of(found[1]))
        else:
            self.refuse(404, "MANIFEST_UNKNOWN")

    def _blob(
        self, name: str, repository: StoredRepository, reference: str, query: Mapping[str, Sequence[str]]
    ) -> None:
        uploads = self.registry.uploads
        if self.command == "POST":
            upload_id = secrets.token_hex(8)
            uploads[upload_id] = b""
            self.answer(202, Location=f"/v2/{name}/blobs/uploads/{upload_id}", Range="0-0")
        elif self.command == "PATCH":
            upload_id = reference.removeprefix("uploads:")
            uploads[upload_id] += self.content
            end = len(uploads[upload_id]) - 1
            self.answer(202, Location=f"/v2/{name}/blobs/uploads/{upload_id}", Range=f"0-{end}")
        elif self.command == "PUT":
            content = uploads.pop(reference.removeprefix("uploads:")) + self.content
            if digest_of(content) != query["digest"][0]:
                self.refuse(400, "DIGEST_INVALID")
                return
            repository.blobs[digest_of(content)] = content
            self.answer(201, Location=f"/v2/{name}/blobs/{digest_of(content)}")
        elif (blob := repository.blobs.get(reference)) is not None:
            self.answer(200, blob, Content_Type="application/octet-stream", Docker_Content_Digest=reference)
        else:
            self.refuse(404, "BLOB_UNKNOWN")


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
