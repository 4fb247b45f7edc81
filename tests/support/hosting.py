"""A hosting service at the HTTP level: the calls of the GitHub REST API that a release makes, and no more."""

import json
import threading
import urllib.parse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple, override

import pytest

from support.servers import HOST

TOKEN = "token-of-a-test"
GITOPS_NAME = "acme/sens-platform-infra"

type Document = dict[str, object]


@dataclass
class HostedRepository:
    """A repository that the token can see."""

    workflows: set[str] = field(default_factory=set)
    branches: set[str] = field(default_factory=lambda: {"main"})
    pulls: list[Document] = field(default_factory=list)
    dispatches: list[Document] = field(default_factory=list)
    protection: Document | None = None
    rules: list[Document] = field(default_factory=list)


class Answer(NamedTuple):
    """What the service says to a call."""

    status: int
    document: object = None
    headers: tuple[tuple[str, str], ...] = ()


class HostingService:
    """The service's state.

    Attributes:
        url: Where it listens; what GITHUB_API_URL is set to.
        calls: Method and path of every call.
        intercept: Called before a call is answered; an answer of it replaces the real one.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.repositories: dict[str, HostedRepository] = {}
        self.calls: list[str] = []
        self.tokens: list[str | None] = []
        self.intercept: Callable[[str, str], Answer | None] = lambda _method, _path: None

    def answer(self, method: str, target: str, authorization: str | None, body: Document) -> Answer:
        """Return what the service says; the statuses are those of the API's documentation."""
        path, _, query = target.partition("?")
        self.calls.append(f"{method} {path}")
        self.tokens.append(authorization)
        if (replaced := self.intercept(method, path)) is not None:
            return replaced
        if authorization != f"Bearer {TOKEN}":
            return Answer(HTTPStatus.UNAUTHORIZED, {"message": "Bad credentials"})
        parts = [urllib.parse.unquote(part) for part in path.split("/")[1:]]
        repository = self.repositories.get("/".join(parts[1:3]))
        if repository is None or parts[0] != "repos":
            return Answer(HTTPStatus.NOT_FOUND, {"message": "Not Found"})
        found = Answer(HTTPStatus.NOT_FOUND, {"message": "Not Found"})
        match [method, *parts[3:]]:
            case ["POST", "actions", "workflows", workflow, "dispatches"]:
                found = self._dispatch(repository, workflow, body)
            case ["GET", "pulls"]:
                wanted = dict(urllib.parse.parse_qsl(query))
                found = Answer(HTTPStatus.OK, [pull for pull in repository.pulls if _matches(pull, parts[1], wanted)])
            case ["POST", "pulls"]:
                found = self._open(repository, "/".join(parts[1:3]), body)
            case ["GET", "rules", "branches", _]:
                found = Answer(HTTPStatus.OK, repository.rules)
            case ["GET", "branches", _, "protection"] if repository.protection is not None:
                found = Answer(HTTPStatus.OK, repository.protection)
            case ["GET", "branches", _, "protection"]:
                found = Answer(HTTPStatus.NOT_FOUND, {"message": "Branch not protected"})
        return found

    @staticmethod
    def _dispatch(repository: HostedRepository, workflow: str, body: Document) -> Answer:
        if workflow not in repository.workflows:
            return Answer(HTTPStatus.NOT_FOUND, {"message": "Not Found"})
        if body["ref"] not in repository.branches:
            return Answer(HTTPStatus.UNPROCESSABLE_ENTITY, {"message": f"No ref found for: {body['ref']}"})
        repository.dispatches.append({"workflow": workflow, **body})
        return Answer(HTTPStatus.NO_CONTENT)

    @staticmethod
    def _open(repository: HostedRepository, name: str, body: Document) -> Answer:
        if any(pull["state"] == "open" and pull["head"] == {"ref": body["head"]} for pull in repository.pulls):
            message = f"A pull request already exists for {name.split('/', maxsplit=1)[0]}:{body['head']}."
            return Answer(
                HTTPStatus.UNPROCESSABLE_ENTITY, {"message": "Validation Failed", "errors": [{"message": message}]}
            )
        number = len(repository.pulls) + 1
        pull: Document = {
            "number": number,
            "state": "open",
            "html_url": f"https://hosting.invalid/{name}/pull/{number}",
            "head": {"ref": body["head"]},
            "base": {"ref": body["base"]},
            "title": body["title"],
            "body": body["body"],
        }
        repository.pulls.append(pull)
        return Answer(HTTPStatus.CREATED, pull)


def _matches(pull: Document, owner: str, wanted: dict[str, str]) -> bool:
    head, base = pull["head"], pull["base"]
    assert isinstance(head, dict)
    assert isinstance(base, dict)
    return (
        wanted.get("state", "open") in (pull["state"], "all")
        and wanted.get("head", f"{owner}:{head['ref']}") == f"{owner}:{head['ref']}"
        and wanted.get("base", base["ref"]) == base["ref"]
    )


@pytest.fixture
def hosting(monkeypatch: pytest.MonkeyPatch) -> Iterator[HostingService]:
    """A service with the GitOps repository, whose address and token are in the environment."""
    with hosting_service(GITOPS_NAME) as service:
        service.repositories[GITOPS_NAME].workflows.add("deploy-test-main.yml")
        monkeypatch.setenv("GITHUB_API_URL", service.url)
        monkeypatch.setenv("GITHUB_TOKEN", TOKEN)
        yield service


@contextmanager
def hosting_service(*repositories: str) -> Iterator[HostingService]:
    """Run a service with these empty repositories on a free port."""
    holder: list[HostingService] = []

    class Handler(BaseHTTPRequestHandler):
        timeout = 10

        def _serve(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else {}
            said = holder[0].answer(self.command, self.path, self.headers.get("Authorization"), body)
            content = said.document if isinstance(said.document, bytes) else json.dumps(said.document).encode()
            content = b"" if said.document is None else content
            self.send_response(said.status)
            for name, value in said.headers:
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def do_GET(self) -> None:
            self._serve()

        def do_POST(self) -> None:
            self._serve()

        @override
        def log_message(self, format: str, *args: object) -> None:
            """Say nothing: the calls are in the service's state."""

    server = ThreadingHTTPServer((HOST, 0), Handler)
    service = HostingService(f"http://{HOST}:{server.server_address[1]}")
    service.repositories = {name: HostedRepository() for name in repositories}
    holder.append(service)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, name="hosting")
    thread.start()
    try:
        yield service
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
