"""Who may do what in Argo CD: every request that there is, by every user, against a table."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import pytest

from support.argocd_rbac import ACTIONS, OF_PROJECTS, Policy, Request
from support.gitops import find, written

TEST: Final = "sens-test/sens-platform-test"
STAGING: Final = "sens-staging/sens-platform-staging"
PRODUCTION: Final = "sens-production/sens-platform-production"
ROOTS: Final = ("sens-gitops/sens-applications-test", "sens-gitops/sens-applications-production")
OF_OTHERS: Final = (
    "default/guestbook",
    "sens-production-2/x",
    "other/sens-platform-production",
    "sens/sens-platform-test",
)
APPLICATIONS: Final = (TEST, STAGING, PRODUCTION, "sens-production/second", *ROOTS, *OF_OTHERS)
OBJECTS: Final[Mapping[str, tuple[str, ...]]] = {
    "projects": ("sens-test", "sens-staging", "sens-production", "sens-gitops", "default"),
    "clusters": ("https://kubernetes.default.svc", "sens-production/https://kubernetes.default.svc"),
    "accounts": ("deploy", "sebastian", "admin"),
}
USERS: Final = ("deploy", "sebastian", "admin", "somebody", "")
SEEN: Final = (TEST, STAGING, PRODUCTION, "sens-production/second", *ROOTS, "sens-production-2/x")
OWNED: Final = (PRODUCTION, "sens-production/second")
HANDLING: Final = (
    "sync", "rollback", "action/apps/Deployment/restart", "action/apps/StatefulSet/restart", "delete//Pod/sens-test/x",
)  # fmt: skip

Allowed = Mapping[tuple[str, str], tuple[str, ...]]
VIEWING: Final[dict[tuple[str, str], tuple[str, ...]]] = {
    ("applications", "get"): SEEN,
    ("projects", "get"): ("sens-test", "sens-staging", "sens-production", "sens-gitops"),
}
# What each user may do, and nothing else: (resource, action) and on what.
TABLE: Final[Mapping[str, Allowed]] = {
    "deploy": {
        **VIEWING,
        **{("applications", action): (TEST, STAGING) for action in HANDLING},
        ("logs", "get"): (TEST, STAGING),
    },
    "sebastian": {
        **VIEWING,
        **{("applications", action): (TEST, STAGING, *OWNED) for action in HANDLING},
        ("applications", "sync"): (TEST, STAGING, *OWNED, *ROOTS),
        ("logs", "get"): (TEST, STAGING, *OWNED),
    },
    "somebody": {},
    "": {},
}


def objects(resource: str) -> tuple[str, ...]:
    return APPLICATIONS if resource in OF_PROJECTS else OBJECTS.get(resource, ("x", "https://github.com/SENS-GmbH/x"))


def requests(user: str) -> Iterator[Request]:
    for resource, actions in ACTIONS.items():
        for action in actions:
            yield from (Request(user, resource, action, obj) for obj in objects(resource))


def expected(request: Request) -> bool:
    if request.subject == "admin":
        return request.resource != "extensions"
    return request.object in TABLE[request.subject].get((request.resource, request.action), ())


def data(folder: Path) -> dict[str, str]:
    found: dict[str, str] = find(folder, "ConfigMap", "argocd-rbac-cm")["data"]
    return found


@pytest.fixture(scope="session")
def policy(gitops: Path) -> Policy:
    return Policy(data(gitops))


class TestFullTable:
    @pytest.mark.parametrize("user", USERS)
    def test_a_user_may_do_what_the_table_says_and_nothing_else(self, policy: Policy, user: str) -> None:
        wrong = [request for request in requests(user) if policy.allows(request) != expected(request)]

        assert wrong == []

    def test_names_only_what_can_be_asked_for(self) -> None:
        asked = {request[1:] for request in requests("deploy")}
        pairs = [pair for allowed in TABLE.values() for pair in allowed.items()]
        named = {(*question, obj) for question, objects_of_it in pairs for obj in objects_of_it}

        assert named <= asked


class TestProduction:
    CHANGES: Final = [
        Request("deploy", resource, action, obj)
        for resource, actions in ACTIONS.items()
        if resource in OF_PROJECTS
        for action in actions
        for obj in OWNED
        if (resource, action) not in {("applications", "get"), ("applicationsets", "get")}
    ]

    @pytest.mark.parametrize(
        "mistake",
        [
            "p, deploy, *, *, *, allow",
            "p, role:deployer, applications, *, */*, allow",
            f"p, deploy, applications, sync, {PRODUCTION}, allow",
            "g, deploy, role:production-owner",
            "g, deploy, role:admin",
            "g, role:viewer, role:admin",
        ],
    )
    def test_stays_closed_to_deploy_whatever_else_is_allowed_by_mistake(self, gitops: Path, mistake: str) -> None:
        policy = Policy(data(gitops), mistake)

        assert [request for request in self.CHANGES if policy.allows(request)] == []

    def test_would_be_open_without_the_lines_that_deny(self, gitops: Path) -> None:
        lines = data(gitops)["policy.csv"].splitlines()
        without = "\n".join(line for line in lines if not line.endswith("deny"))
        policy = Policy({"policy.csv": without}, "p, deploy, *, *, *, allow")

        assert all(policy.allows(request) for request in self.CHANGES)

    def test_projects_can_not_be_changed_by_deploy_even_by_mistake(self, gitops: Path) -> None:
        policy = Policy(data(gitops), "p, deploy, *, *, *, allow")

        assert not any(
            policy.allows(Request("deploy", "projects", action, project))
            for action in ("create", "update", "delete")
            for project in OBJECTS["projects"]
        )


class TestUsers:
    def test_are_the_ones_with_lines(self, gitops: Path, policy: Policy) -> None:
        settings = find(gitops, "ConfigMap", "argocd-cm")["data"]
        accounts = {key.removeprefix("accounts.") for key in settings if key.startswith("accounts.")}

        assert accounts == {"deploy", "sebastian"}
        assert {user for user in policy.roles if not user.startswith("role:")} == accounts | {"admin"}

    def test_without_a_line_get_nothing_by_default(self, gitops: Path) -> None:
        assert data(gitops)["policy.default"] == ""
        assert find(gitops, "ConfigMap", "argocd-cm")["data"]["users.anonymous.enabled"] == "false"

    def test_can_not_sync_another_commit_than_the_one_in_git(self, gitops: Path) -> None:
        settings = find(gitops, "ConfigMap", "argocd-cm")["data"]

        assert settings["application.sync.requireOverridePrivilegeForRevisionSync"] == "true"

    def test_may_have_other_names(self, tmp_path: Path) -> None:
        written(tmp_path / "repository", "argo_deploy_user=robot", "argo_owner_user=alice")
        policy = Policy(data(tmp_path / "repository"))

        assert policy.allows(Request("robot", "applications", "sync", TEST))
        assert not policy.allows(Request("robot", "applications", "sync", PRODUCTION))
        assert policy.allows(Request("alice", "applications", "sync", PRODUCTION))
        assert not policy.allows(Request("deploy", "applications", "sync", TEST))


class TestEvaluator:
    """Rules of the manual, so that the table above means something."""

    @pytest.mark.parametrize(
        ("text", "request_", "allowed"),
        [
            # A deny wins over an allow that is more specific, and later.
            ("p, a, applications, *, x/*, deny\np, a, applications, get, x/y, allow", "applications get x/y", False),
            # An asterisk matches slashes.
            ("p, a, applications, delete/*, *, allow", "applications delete/apps/Deployment/n/x p/q", True),
            ("p, a, applications, delete/*, *, allow", "applications delete p/q", False),
            # Roles are inherited.
            ("g, a, role:b\ng, role:b, role:c\np, role:c, logs, get, x/y, allow", "logs get x/y", True),
        ],
    )
    def test_decides_as_the_manual_says(self, text: str, request_: str, allowed: bool) -> None:
        assert Policy({"policy.csv": text}).allows(Request("a", *request_.split())) is allowed

    def test_what_the_default_allows_can_not_be_denied(self) -> None:
        policy = Policy({"policy.default": "role:readonly", "policy.csv": "p, a, logs, get, */*, deny"})

        assert policy.allows(Request("a", "logs", "get", "x/y"))

    def test_an_overlay_counts_as_well(self) -> None:
        assert Policy({"policy.more.csv": "p, a, logs, get, x/y, allow"}).allows(Request("a", "logs", "get", "x/y"))

    @pytest.mark.parametrize("line", ["p, a, logs, get, x/y", "g, a", "x, a, b", "p, a, logs, get, x/y, maybe"])
    def test_a_line_that_argo_cd_would_not_load_is_refused(self, line: str) -> None:
        with pytest.raises(AssertionError, match="not a line"):
            Policy({"policy.csv": line})
