"""Argo CD's RBAC, evaluated as its server does (operator manual, "RBAC Configuration"; casbin's model in assets/model.conf):

A request (subject, resource, action, object) is allowed when some line that matches allows and none that matches denies. A line
matches when its subject is the request's or a role that it has, directly or by other roles, and the rest match as globs without
separators. Whoever has no line gets what policy.default's role has, which no line can deny.
"""

import csv
import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Final, NamedTuple

APPLICATION_ACTIONS: Final = (
    "get", "create", "update", "update/apps/Deployment/sens-test/x", "delete", "delete//Pod/sens-test/x",
    "delete/apps/Deployment/sens-test/x", "delete//PersistentVolumeClaim/sens-test/x", "sync", "rollback", "override",
    "action/apps/Deployment/restart", "action/apps/StatefulSet/restart", "action/apps/Deployment/scale",
    "action/batch/CronJob/create-job", "action//Pod/anything",
)  # fmt: skip
# What can be asked for, by resource (the table in the manual).
ACTIONS: Final[Mapping[str, tuple[str, ...]]] = {
    "applications": APPLICATION_ACTIONS,
    "applicationsets": ("get", "create", "update", "delete"),
    "logs": ("get",),
    "exec": ("create",),
    "clusters": ("get", "create", "update", "delete"),
    "projects": ("get", "create", "update", "delete"),
    "repositories": ("get", "create", "update", "delete"),
    "write-repositories": ("get", "create", "update", "delete"),
    "accounts": ("get", "update"),
    "certificates": ("get", "create", "delete"),
    "gpgkeys": ("get", "create", "delete"),
    "extensions": ("invoke",),
}
OF_PROJECTS: Final = frozenset({"applications", "applicationsets", "logs", "exec"})


def _built_in() -> Iterator[str]:
    """Yield the lines that Argo CD brings: role:admin may do everything but extensions, and the user admin has it."""
    for resource, actions in ACTIONS.items():
        every = "*/*" if resource in OF_PROJECTS else "*"
        for action in {re.sub("/.*", "/*", action) for action in actions} - {"invoke"}:
            yield f"p, role:admin, {resource}, {action}, {every}, allow"
            if action == "get":
                yield f"p, role:readonly, {resource}, get, {every}, allow"
    yield "g, role:admin, role:readonly"
    yield "g, admin, role:admin"


class Request(NamedTuple):
    """What somebody wants to do."""

    subject: str
    resource: str
    action: str
    object: str


class Line(NamedTuple):
    """A line ``p`` of a policy."""

    subject: str
    resource: str
    action: str
    object: str
    effect: str

    def matches(self, request: Request) -> bool:
        """Tell whether it speaks of the request's resource, action and object."""
        pairs = zip(self[1:4], request[1:], strict=True)
        return all(_glob(pattern).fullmatch(text) for pattern, text in pairs)


class Policy:
    """The policies of a ConfigMap argocd-rbac-cm, with those that Argo CD brings.

    Args:
        data: The ConfigMap's data.
        more: Further lines, as a project's own roles would add them.
    """

    def __init__(self, data: Mapping[str, str], more: str = "") -> None:
        assert data.get("policy.matchMode", "glob") == "glob"
        self._default = data.get("policy.default", "")
        overlays = (data[key] for key in sorted(data) if re.fullmatch(r"policy\..+\.csv", key))
        text = "\n".join([*_built_in(), data.get("policy.csv", ""), *overlays, more])
        self.lines: list[Line] = []
        self.roles: dict[str, set[str]] = {}
        for line in (line.strip() for line in text.splitlines()):
            if line and not line.startswith("#"):
                self._add(next(csv.reader([line], skipinitialspace=True)))

    def allows(self, request: Request) -> bool:
        """Tell whether a request is allowed."""
        if self._default and self._decide(request._replace(subject=self._default)):
            return True
        return self._decide(request)

    def _add(self, tokens: list[str]) -> None:
        match tokens:
            case ["p", subject, resource, action, obj, ("allow" | "deny") as effect]:
                self.lines.append(Line(subject, resource, action, obj, effect))
            case ["g", subject, role]:
                self.roles.setdefault(subject, set()).add(role)
            case _:
                raise AssertionError(f"not a line of a policy: {tokens}")

    def _decide(self, request: Request) -> bool:
        subjects = self._subjects(request.subject)
        effects = {line.effect for line in self.lines if line.subject in subjects and line.matches(request)}
        return effects == {"allow"}

    def _subjects(self, subject: str) -> set[str]:
        found, waiting = {subject}, [subject]
        while waiting:
            new = self.roles.get(waiting.pop(), set()) - found
            found |= new
            waiting += new
        return found


@cache
def _glob(pattern: str) -> re.Pattern[str]:
    """Translate a glob of the kind that these policies use: the asterisk alone, which matches slashes too."""
    assert not set(pattern) & set("?[]{}\\!"), f"{pattern}: more than this evaluator knows"
    return re.compile(".*".join(re.escape(part) for part in pattern.split("*")), re.DOTALL)
