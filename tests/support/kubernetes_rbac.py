"""Kubernetes' RBAC, evaluated as its authorizer does (kubernetes.io/docs/reference/access-authn-authz/rbac).

Rules only add up: a request is allowed when one rule of a role that is bound to the user, or to one of the user's groups, matches it. A
RoleBinding gives its role in its own namespace, be it a Role or a ClusterRole; a ClusterRoleBinding gives it everywhere.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

Document = Mapping[str, Any]
Rule = Mapping[str, list[str]]


class Request(NamedTuple):
    """What somebody wants to do.

    Attributes:
        verb: Such as get.
        group: API group; empty for the core.
        resource: Its plural name, with its subresource behind a slash.
        namespace: Empty for what has none, and for all namespaces at once.
        name: Of one object; empty for none in particular.
    """

    verb: str
    group: str
    resource: str
    namespace: str
    name: str = ""


class Subject(NamedTuple):
    """Who asks."""

    user: str
    groups: frozenset[str]


# What every cluster gives to everybody who has logged in: questions about oneself ("Default roles and role bindings").
BUILT_IN: Final[tuple[Document, ...]] = (
    {
        "kind": "ClusterRole",
        "metadata": {"name": "system:basic-user"},
        "rules": [
            {
                "apiGroups": ["authorization.k8s.io"],
                "resources": ["selfsubjectaccessreviews", "selfsubjectrulesreviews"],
                "verbs": ["create"],
            },
            {"apiGroups": ["authentication.k8s.io"], "resources": ["selfsubjectreviews"], "verbs": ["create"]},
        ],
    },
    {
        "kind": "ClusterRoleBinding",
        "metadata": {"name": "system:basic-user"},
        "roleRef": {"kind": "ClusterRole", "name": "system:basic-user"},
        "subjects": [{"kind": "Group", "name": "system:authenticated"}],
    },
)


def service_account(namespace: str, name: str) -> Subject:
    """Return the user and the groups of a ServiceAccount."""
    groups = {"system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated"}
    return Subject(f"system:serviceaccount:{namespace}:{name}", frozenset(groups))


class Authorizer:
    """Decides by roles and bindings.

    Args:
        documents: Objects of Kubernetes; the four kinds of RBAC count.
    """

    def __init__(self, documents: Iterable[Document]) -> None:
        self._documents = [*BUILT_IN, *documents]

    def allows(self, subject: Subject, request: Request) -> bool:
        """Tell whether a request is allowed."""
        return any(_matches(rule, request) for rule in self._rules(subject, request.namespace))

    def _rules(self, subject: Subject, namespace: str) -> Iterator[Rule]:
        for binding in self._documents:
            kind, of = binding["kind"], binding["metadata"].get("namespace", "")
            if kind not in {"RoleBinding", "ClusterRoleBinding"} or (kind == "RoleBinding" and of != namespace):
                continue
            if any(_is(one, subject, of) for one in binding.get("subjects", [])):
                yield from self._of_role(binding["roleRef"]["kind"], binding["roleRef"]["name"], of)

    def _of_role(self, kind: str, name: str, namespace: str) -> Iterator[Rule]:
        for role in self._documents:
            metadata = role["metadata"]
            if (role["kind"], metadata["name"]) != (kind, name):
                continue
            if kind == "Role" and metadata["namespace"] != namespace:
                continue
            yield from role.get("rules") or []
            for selector in role.get("aggregationRule", {}).get("clusterRoleSelectors", []):
                yield from self._aggregated(selector["matchLabels"])

    def _aggregated(self, labels: Mapping[str, str]) -> Iterator[Rule]:
        for role in self._documents:
            if role["kind"] == "ClusterRole" and labels.items() <= role["metadata"].get("labels", {}).items():
                yield from role.get("rules") or []


def _is(one: Mapping[str, str], subject: Subject, namespace: str) -> bool:
    match one["kind"]:
        case "ServiceAccount":
            return service_account(one.get("namespace", namespace), one["name"]).user == subject.user
        case "User":
            return one["name"] == subject.user
        case "Group":
            return one["name"] in subject.groups
        case _:
            raise AssertionError(one)


def _matches(rule: Rule, request: Request) -> bool:
    resource, _, subresource = request.resource.partition("/")
    resources = {"*", request.resource} | ({f"*/{subresource}"} if subresource else set())
    names = rule.get("resourceNames", [])
    return (
        not {"*", request.verb}.isdisjoint(rule["verbs"])
        and not {"*", request.group}.isdisjoint(rule.get("apiGroups", []))
        and not resources.isdisjoint(rule.get("resources", []))
        and (not names or request.name in names)
        and resource != ""
    )
