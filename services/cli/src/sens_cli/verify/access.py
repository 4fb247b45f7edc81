"""What the account that looks after test may do: what it needs in test, and nothing in production, by no way round.

The questions are SelfSubjectAccessReviews (Kubernetes' API ``authorization.k8s.io/v1``) that are asked as that account: what
``kubectl auth can-i VERB RESOURCE --as=ACCOUNT`` asks one by one. Who is that account asks for itself, and needs no right to impersonate.
"""

import asyncio
import itertools
import json
from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

from sens_cli.verify.environment import Environment
from sens_cli.verify.kubectl import Kubectl
from sens_cli.verify.outcome import CheckFailedError, NotRunError

ARGOCD_NAMESPACE: Final = "argocd"
_QUESTIONS_OF_A_RUN = 40
_SHOWN = 8


class Right(NamedTuple):
    """A verb on a resource (``deployments.apps``, ``pods/exec``); without a namespace in all of them, or in the cluster."""

    verb: str
    resource: str
    namespace: str | None

    def __str__(self) -> str:
        """Return it as the arguments of ``kubectl auth can-i``."""
        name, _, sub = self.resource.partition("/")
        where = "--all-namespaces" if self.namespace is None else f"--namespace={self.namespace}"
        return " ".join([self.verb, name, *([f"--subresource={sub}"] if sub else []), where])

    def attributes(self) -> dict[str, str]:
        """Return it as ``resourceAttributes`` of an access review."""
        name, _, sub = self.resource.partition("/")
        resource, _, group = name.partition(".")
        given = {
            "verb": self.verb,
            "resource": resource,
            "group": group,
            "subresource": sub,
            "namespace": self.namespace or "",
        }
        return {key: value for key, value in given.items() if value}


_CHANGE = ("create", "update", "patch", "delete")
_READ = ("get", "list", "watch")

_FOR_ITS_WORK = [
    *itertools.product(
        _READ, ("pods", "deployments.apps", "statefulsets.apps", "jobs.batch", "ingresses.networking.k8s.io")
    ),
    ("get", "pods/log"),
    ("delete", "pods"),
]
_TOO_MUCH_IN_TEST = [
    *itertools.product(("get", "list", "create", "patch"), ("secrets",)),
    *itertools.product(
        ("create", "patch"), ("pods", "deployments.apps", "statefulsets.apps", "jobs.batch", "cronjobs.batch")
    ),
    *itertools.product(_CHANGE, ("roles.rbac.authorization.k8s.io", "rolebindings.rbac.authorization.k8s.io")),
    *itertools.product(("create",), ("pods/exec", "pods/attach", "pods/portforward", "serviceaccounts/token")),
    ("patch", "pods/ephemeralcontainers"),
    ("impersonate", "serviceaccounts"),
]
_NEVER_IN_PRODUCTION = [
    *itertools.product(("get", "list", "watch", *_CHANGE), ("secrets",)),
    *itertools.product(
        _CHANGE,
        (
            "pods", "services", "configmaps", "serviceaccounts", "persistentvolumeclaims",
            "deployments.apps", "statefulsets.apps", "daemonsets.apps", "replicasets.apps", "jobs.batch", "cronjobs.batch",
            "ingresses.networking.k8s.io", "networkpolicies.networking.k8s.io",
            "roles.rbac.authorization.k8s.io", "rolebindings.rbac.authorization.k8s.io", "certificates.cert-manager.io",
        ),
    ),
    *itertools.product(("patch",), ("deployments.apps/scale", "statefulsets.apps/scale", "pods/ephemeralcontainers")),
    *itertools.product(
        ("create",), ("pods/exec", "pods/attach", "pods/portforward", "pods/eviction", "pods/proxy", "services/proxy", "serviceaccounts/token")
    ),
    *itertools.product(("escalate", "bind"), ("roles.rbac.authorization.k8s.io",)),
    ("impersonate", "serviceaccounts"),
]  # fmt: skip
_NEVER_IN_ARGO_CD = [
    *itertools.product(_CHANGE, ("applications.argoproj.io", "appprojects.argoproj.io", "secrets", "configmaps")),
    ("get", "secrets"),
    ("create", "pods/exec"),
]
_NEVER_IN_THE_CLUSTER = [
    *itertools.product(("get", "list"), ("secrets",)),
    *itertools.product(("create", "patch", "delete"), ("namespaces", "nodes", "persistentvolumes", "customresourcedefinitions.apiextensions.k8s.io")),
    *itertools.product(
        ("create", "patch", "delete"),
        (
            "clusterroles.rbac.authorization.k8s.io", "clusterrolebindings.rbac.authorization.k8s.io",
            "validatingadmissionpolicies.admissionregistration.k8s.io",
            "validatingadmissionpolicybindings.admissionregistration.k8s.io",
            "validatingwebhookconfigurations.admissionregistration.k8s.io",
            "mutatingwebhookconfigurations.admissionregistration.k8s.io",
        ),
    ),
    *itertools.product(("escalate", "bind"), ("clusterroles.rbac.authorization.k8s.io",)),
    *itertools.product(("impersonate",), ("users", "groups", "serviceaccounts")),
    *itertools.product(("get", "create"), ("nodes/proxy",)),
    ("update", "certificatesigningrequests.certificates.k8s.io/approval"),
    ("create", "*"),
    ("get", "*"),
]  # fmt: skip


async def check_production(environment: Environment, kubectl: Kubectl) -> str:
    """See that the account can't touch production, nor anything that production depends on."""
    if environment.production_namespace is None:
        raise NotRunError("production's namespace is not known (--production-namespace)")
    rights = [
        *_in(environment.production_namespace, _NEVER_IN_PRODUCTION),
        *_in(ARGOCD_NAMESPACE, _NEVER_IN_ARGO_CD),
        *_in(None, _NEVER_IN_THE_CLUSTER),
    ]
    return await _nothing_of(environment, kubectl, rights)


async def check_test(environment: Environment, kubectl: Kubectl) -> str:
    """See that the account can do its work in test, and has no way to more there."""
    if environment.test_namespace is None:
        raise NotRunError("test's namespace is not known (--test-namespace)")
    needed = _in(environment.test_namespace, _FOR_ITS_WORK)
    allowed = await _allowed(environment, kubectl, needed)
    if missing := [right for right in needed if right not in allowed]:
        raise CheckFailedError(
            f"{_account(environment)} can't {_shown(missing)}",
            "Apply bootstrap/rbac/deploy-test.yaml of the GitOps repository, and see that it names this account.",
        )
    nothing = await _nothing_of(environment, kubectl, _in(environment.test_namespace, _TOO_MUCH_IN_TEST))
    return f"it can do {len(needed)} of {len(needed)} things for its work; {nothing}"


async def _nothing_of(environment: Environment, kubectl: Kubectl, rights: Sequence[Right]) -> str:
    allowed = await _allowed(environment, kubectl, rights)
    if too_much := [right for right in rights if right in allowed]:
        user = _account(environment)
        raise CheckFailedError(
            f"{user} can {_shown(too_much)}",
            f"See what gives it this right, and take it away: kubectl get rolebindings,clusterrolebindings -A -o wide | grep "
            f"{user.rpartition(':')[2]}; then ask again: kubectl auth can-i {too_much[0]} --as={user}",
        )
    return f"{len(rights)} of {len(rights)} questions whether {_account(environment)} may do more: no"


async def _allowed(environment: Environment, kubectl: Kubectl, rights: Sequence[Right]) -> set[Right]:
    """Return those of the rights that the account has."""
    asked_as = await _asked_as(kubectl, _account(environment))
    answers = await asyncio.gather(
        *(_ask(kubectl, asked_as, part) for part in itertools.batched(rights, _QUESTIONS_OF_A_RUN))
    )
    return set().union(*answers)


async def _asked_as(kubectl: Kubectl, user: str) -> list[str]:
    """Return the options by which kubectl asks as a user: none when it is that user already (``kubectl auth whoami``)."""
    review = json.dumps({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}).encode()
    try:
        found = await kubectl.documents("create", "--filename=-", "--output=json", "--validate=false", given=review)
        is_user = found[0]["status"]["userInfo"]["username"] == user
    except (CheckFailedError, LookupError, TypeError):  # a cluster that can't tell is asked for the other user
        is_user = False
    return [] if is_user else [f"--as={user}"]


async def _ask(kubectl: Kubectl, asked_as: Sequence[str], rights: Sequence[Right]) -> set[Right]:
    reviews = [
        {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": right.attributes()},
        }
        for right in rights
    ]
    answers = await kubectl.documents(
        "create",
        "--filename=-",
        "--output=json",
        "--validate=false",  # it would ask for the API's schema as that account, which need not have it
        *asked_as,
        given=json.dumps({"apiVersion": "v1", "kind": "List", "items": reviews}).encode(),
    )
    told = {_key(attributes): allowed for attributes, allowed in map(_answer, answers)}
    keys = {right: _key(right.attributes()) for right in rights}
    if unanswered := [right for right, key in keys.items() if key not in told]:
        raise NotRunError(
            f"the cluster did not answer {len(unanswered)} of {len(rights)} questions, such as {unanswered[0]}"
        )
    return {right for right, key in keys.items() if told[key]}


def _answer(review: dict[str, Any]) -> tuple[dict[str, str], bool]:
    try:
        return review["spec"]["resourceAttributes"], review["status"]["allowed"] is True
    except (KeyError, TypeError):
        raise NotRunError("the cluster answered with something else than an access review") from None


def _key(attributes: dict[str, str]) -> frozenset[tuple[str, str]]:
    return frozenset((key, value) for key, value in attributes.items() if key != "version" and value)


def _in(namespace: str | None, pairs: Iterable[tuple[str, str]]) -> list[Right]:
    return [Right(verb, resource, namespace) for verb, resource in pairs]


def _account(environment: Environment) -> str:
    if environment.account is None:
        raise NotRunError("the account that looks after test is not known (--deploy-account or --test-namespace)")
    return environment.account


def _shown(rights: Sequence[Right]) -> str:
    more = f", and {len(rights) - _SHOWN} more" if len(rights) > _SHOWN else ""
    return ", ".join(str(right) for right in rights[:_SHOWN]) + more
