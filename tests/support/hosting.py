"""A hosting service at the HTTP level: the calls of the GitHub REST API that a release makes, and no more."""

import json
import urllib.parse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus

import pytest

from support.http_server import Answer, Asked, serving

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


class HostingService:
    """The service's state.

    Attributes:
        url: Where it listens; what GITHUB_API_URL is set to.
        calls: Method and path of every call.
        intercept: Called before a call is answered; an answer of it replaces the real one.
    """

    def __init__(self, *repositories: str) -> None:
        self.url = ""
        self.repositories = {name: HostedRepository() for name in repositories}
        self.calls: list[str] = []
        self.tokens: list[str | None] = []
        self.intercept: Callable[[str, str], Answer | None] = lambda _method, _path: None

    def answer(self, asked: Asked) -> Answer:
        """Return what the service says; the statuses are those of the API's documentation."""
        path, _, query = asked.target.partition("?")
        method, authorization = asked.method, asked.headers["Authorization"]
        body: Document = json.loads(asked.body or b"{}")
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
    service = HostingService(*repositories)
    with serving(service.answer) as host:
        service.url = f"http://{host}"
        yield service
