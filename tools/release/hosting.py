"""The few calls of the GitHub REST API (docs.github.com/rest) that a release needs, over the standard library.

The address is that of GITHUB_API_URL, which GitHub's runners set, and of github.com without it.
"""

import json
import os
import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from sens_cli.release.versions import ReleaseError
from tools.release.http import AGENT, MAXIMUM_BYTES, NO_ANSWER, TIMEOUT_SECONDS, is_local, is_safe, one_line, opener

API: Final = "https://api.github.com"
MAXIMUM_INPUTS: Final = 25
"""Inputs that a dispatch may carry (GitHub's limit of workflow_dispatch)."""

_REPOSITORY = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]*/(?!\.{1,2}$)[A-Za-z0-9._-]+")
_WORKFLOW = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*\.ya?ml")
_BRANCH = re.compile(r"(?![-/])(?!.*\.\.)[A-Za-z0-9._/-]{1,200}")
_TOKEN = re.compile(r"[!-~]+")
_REMEDIES: Final[Mapping[int, str]] = {
    HTTPStatus.UNAUTHORIZED: (
        "the token has expired or was revoked; make a new one and store it in the secret it came from"
    ),
    HTTPStatus.FORBIDDEN: (
        "the token may not do this; give it the permission (Actions: write to start workflows, Pull requests: write to open "
        "them, Administration: read to read a branch's protection), and allow Actions to open pull requests in the "
        "repository's settings when it is a run's own token"
    ),
    HTTPStatus.NOT_FOUND: (
        "there is no such repository, workflow or branch, or the token can't see it; check the names, and that the token was "
        "given this repository"
    ),
    HTTPStatus.UNPROCESSABLE_ENTITY: (
        "what was sent does not fit; check the branch, and that the workflow takes these inputs"
    ),
}


@dataclass(frozen=True, slots=True)
class Protection:
    """What a branch's rules enforce.

    Attributes:
        pull_request: Changes come by pull requests only.
        code_owners: The owners named in CODEOWNERS must approve them.
        administrators: Administrators are bound too; None when the rules are a ruleset's, whose exceptions can't be read.
        force_push: History can be overwritten.
    """

    pull_request: bool
    code_owners: bool
    administrators: bool | None
    force_push: bool


class HostingError(ReleaseError):
    """The API refused a call.

    Attributes:
        status: Its HTTP status.
    """

    def __init__(self, text: str, status: int) -> None:
        super().__init__(text)
        self.status = status


class Hosting:
    """A client of the API.

    Args:
        token: What the calls are made with; it is sent in one header, and in no text of an error.
        api: The API's address; GITHUB_API_URL or github.com's when None.
        timeout_seconds: How long an answer may take.

    Raises:
        ReleaseError: The token can't be one, or the address is not https.
    """

    def __init__(self, token: str, api: str | None = None, timeout_seconds: float = TIMEOUT_SECONDS) -> None:
        if not _TOKEN.fullmatch(token):
            raise ReleaseError(
                "The token is empty or has spaces or line breaks in it: store it again, without what surrounds it."
            )
        self._token = token
        self._api = (api or os.environ.get("GITHUB_API_URL") or API).rstrip("/")
        self._timeout_seconds = timeout_seconds
        if not is_safe(self._api):
            raise ReleaseError(f"GITHUB_API_URL is {self._api!r}: it must be an https address, such as {API}.")
        self._opener = opener(local=is_local(urllib.parse.urlsplit(self._api).hostname), redirects=False)

    def dispatch_workflow(self, repository: str, workflow: str, ref: str, inputs: Mapping[str, str]) -> None:
        """Start a workflow that has ``on: workflow_dispatch``.

        Args:
            repository: ``owner/name``.
            workflow: Its file's name, such as ``deploy-test-main.yml``.
            ref: The branch to run on.
            inputs: The workflow's inputs by name.

        Raises:
            ReleaseError: It was not started, or (the text says so) it can't be known.
        """
        if not _WORKFLOW.fullmatch(workflow):
            raise ReleaseError(f"{workflow!r} is not a name of a workflow's file, such as deploy-test-main.yml.")
        if len(inputs) > MAXIMUM_INPUTS:
            raise ReleaseError(f"{len(inputs)} inputs are too many for a workflow: {MAXIMUM_INPUTS} are allowed.")
        path = f"{_repository(repository)}/actions/workflows/{workflow}/dispatches"
        self._call("POST", path, {"ref": _branch(ref), "inputs": dict(inputs)})

    def open_pull_request(self, repository: str, head: str, base: str, title: str, body: str) -> str:
        """Return the address of the open pull request from one branch to another, made now where there is none.

        Args:
            repository: ``owner/name``.
            head: The branch with the changes, of the same repository.
            base: The branch they go to.
            title: One line.
            body: Markdown.

        Raises:
            ReleaseError: There is none, and it was not made.
        """
        if url := self._pull_request(repository, head, base):
            return url
        request = {"title": title, "head": _branch(head), "base": _branch(base), "body": body}
        try:
            made = self._call("POST", f"{_repository(repository)}/pulls", request)
        except HostingError as error:
            # Somebody else's run was faster, between the search and this call.
            if error.status == HTTPStatus.UNPROCESSABLE_ENTITY and (url := self._pull_request(repository, head, base)):
                return url
            raise
        return self._text(made, "html_url")

    def branch_protection(self, repository: str, branch: str) -> Protection:
        """Return what is enforced on a branch, by rulesets or by classic branch protection.

        Raises:
            ReleaseError: It can't be read; classic protection needs a token that may read the administration.
        """
        quoted = urllib.parse.quote(_branch(branch), safe="")
        rules = self._call("GET", f"{_repository(repository)}/rules/branches/{quoted}?per_page=100")
        by_type = {rule.get("type"): rule.get("parameters") for rule in _objects(rules)}
        parameters = by_type.get("pull_request")
        if isinstance(parameters, dict) and parameters.get("require_code_owner_review") is True:
            return Protection(True, True, None, "non_fast_forward" not in by_type)
        try:
            answer = self._call("GET", f"{_repository(repository)}/branches/{quoted}/protection")
        except HostingError as error:
            if error.status == HTTPStatus.NOT_FOUND and "not protected" in str(error).lower():
                return Protection("pull_request" in by_type, False, None, "non_fast_forward" not in by_type)
            raise
        classic = answer if isinstance(answer, dict) else {}
        reviews = classic.get("required_pull_request_reviews")
        return Protection(
            pull_request=isinstance(reviews, dict),
            code_owners=isinstance(reviews, dict) and reviews.get("require_code_owner_reviews") is True,
            administrators=_enabled(classic, "enforce_admins"),
            force_push=_enabled(classic, "allow_force_pushes"),
        )

    def _pull_request(self, repository: str, head: str, base: str) -> str | None:
        owner = _repository(repository).split("/")[2]
        query = {"state": "open", "head": f"{owner}:{_branch(head)}", "base": _branch(base)}
        found = self._call("GET", f"{_repository(repository)}/pulls?{urllib.parse.urlencode(query)}")
        # A server that does not know the filter would answer with all of them.
        mine = [pull for pull in _objects(found) if isinstance(of := pull.get("head"), dict) and of.get("ref") == head]
        return self._text(mine[0], "html_url") if mine else None

    def _text(self, document: object, key: str) -> str:
        value = document.get(key) if isinstance(document, dict) else None
        if not isinstance(value, str):
            raise ReleaseError(
                f"The answer of {self._api} has no {key}: is GITHUB_API_URL the address of GitHub's API?"
            )
        return value

    def _call(self, method: str, path: str, body: Mapping[str, object] | None = None) -> object:
        request = urllib.request.Request(  # noqa: S310 - the scheme was checked
            self._api + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={
                "Accept": "application/vnd.github+json",
                "Authorization": f"Bearer {self._token}",
                "Content-Type": "application/json",
                "User-Agent": AGENT,
                "X-GitHub-Api-Version": "2022-11-28",
            },
        )
        where = f"{method} {self._api}{path.partition('?')[0]}"
        try:
            with self._opener.open(request, timeout=self._timeout_seconds) as answer:
                content = answer.read(MAXIMUM_BYTES + 1)
        except urllib.error.HTTPError as error:
            with error:
                raise self._refusal(where, error) from None
        except NO_ANSWER as error:
            doubt = "" if method == "GET" else " It may have been done all the same: look before you run this again."
            raise ReleaseError(f"{where} got no answer ({one_line(error)}).{doubt or ' Run it again later.'}") from None
        if len(content) > MAXIMUM_BYTES:
            raise ReleaseError(f"{where} answered with more than {MAXIMUM_BYTES} bytes: is this GitHub's API?")
        try:
            return json.loads(content) if content else None
        except (ValueError, RecursionError):
            raise ReleaseError(f"{where} answered with something that is not JSON: is this GitHub's API?") from None

    def _refusal(self, where: str, error: urllib.error.HTTPError) -> HostingError:
        try:
            document = json.loads(error.read(MAXIMUM_BYTES))
        except (ValueError, RecursionError, *NO_ANSWER):
            document = None
        reason = one_line(" ".join(_reasons(document)).replace(self._token, "…")) or error.reason
        remaining = error.headers.get("X-RateLimit-Remaining")
        if error.code == HTTPStatus.TOO_MANY_REQUESTS or error.headers.get("Retry-After") or remaining == "0":
            remedy = "too many calls were made with this token: wait for an hour, then run it again"
        else:
            remedy = _remedy(error.code)
        return HostingError(f"{where} was refused with {error.code} ({reason}): {remedy}.", error.code)


def _remedy(status: int) -> str:
    if HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.BAD_REQUEST:
        return "the repository has moved; use its new name"
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return "GitHub has trouble (www.githubstatus.com); run it again later"
    return _REMEDIES.get(status, "check what was asked for")


def _repository(name: str) -> str:
    if not _REPOSITORY.fullmatch(name):
        raise ReleaseError(f"{name!r} is not a repository: write it as owner/name.")
    return f"/repos/{name}"


def _branch(name: str) -> str:
    if not _BRANCH.fullmatch(name):
        raise ReleaseError(f"{name!r} is not a branch's name that this takes: letters, digits and . _ - / are.")
    return name


def _objects(document: object) -> list[dict[str, object]]:
    if not isinstance(document, list):
        raise ReleaseError("GitHub's API answered with something that is not a list: is GITHUB_API_URL its address?")
    return [item for item in document if isinstance(item, dict)]


def _enabled(document: Mapping[str, object], key: str) -> bool:
    value = document.get(key)
    return isinstance(value, dict) and value.get("enabled") is True


def _reasons(document: object) -> list[str]:
    """Return the texts of an error's document: ``{"message": …, "errors": [{"message": …}, …]}``."""
    if not isinstance(document, dict):
        return []
    errors = document.get("errors")
    details = (
        [one.get("message") if isinstance(one, dict) else one for one in errors] if isinstance(errors, list) else []
    )
    return [text for text in [document.get("message"), *details] if isinstance(text, str)]
