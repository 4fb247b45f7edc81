"""What the ServiceAccount deploy-test may do in the cluster: every verb on every kind, everywhere, against a table."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from support.cluster import Cluster
from support.gitops import documents
from support.kubernetes_rbac import Authorizer, Request, service_account

DEPLOY_TEST: Final = service_account("sens-test", "deploy-test")
VERBS: Final = (
    "get", "list", "watch", "create", "update", "patch", "delete", "deletecollection", "escalate", "bind", "impersonate", "approve",
    "use",
)  # fmt: skip
NAMESPACES: Final = ("sens-test", "sens-production", "argocd", "cert-manager", "kube-system", "default")
RBAC: Final = "rbac.authorization.k8s.io"
KINDS: Final = (
    *(("", resource) for resource in (
        "pods", "pods/log", "pods/exec", "pods/attach", "pods/portforward", "pods/proxy", "pods/ephemeralcontainers",
        "pods/eviction", "pods/status", "pods/binding", "pods/resize", "services", "services/proxy", "endpoints", "configmaps",
        "secrets", "serviceaccounts", "serviceaccounts/token", "persistentvolumeclaims", "events", "replicationcontrollers",
        "podtemplates", "resourcequotas", "limitranges",
    )),
    *(("apps", resource) for resource in (
        "deployments", "deployments/scale", "deployments/status", "statefulsets", "statefulsets/scale", "daemonsets",
        "replicasets", "controllerrevisions",
    )),
    ("batch", "jobs"), ("batch", "cronjobs"),
    ("networking.k8s.io", "ingresses"), ("networking.k8s.io", "networkpolicies"),
    ("policy", "poddisruptionbudgets"), ("discovery.k8s.io", "endpointslices"), ("events.k8s.io", "events"),
    ("autoscaling", "horizontalpodautoscalers"), ("coordination.k8s.io", "leases"),
    ("cert-manager.io", "certificates"), ("cert-manager.io", "certificaterequests"), ("cert-manager.io", "issuers"),
    ("acme.cert-manager.io", "orders"), ("acme.cert-manager.io", "challenges"),
    (RBAC, "roles"), (RBAC, "rolebindings"),
    ("argoproj.io", "applications"), ("argoproj.io", "appprojects"), ("argoproj.io", "applicationsets"),
    ("authorization.k8s.io", "localsubjectaccessreviews"),
)  # fmt: skip
OF_THE_CLUSTER: Final = (
    *(("", resource) for resource in ("namespaces", "nodes", "nodes/proxy", "persistentvolumes", "users", "groups")),
    (RBAC, "clusterroles"), (RBAC, "clusterrolebindings"),
    ("admissionregistration.k8s.io", "validatingadmissionpolicies"),
    ("admissionregistration.k8s.io", "validatingadmissionpolicybindings"),
    ("admissionregistration.k8s.io", "mutatingwebhookconfigurations"),
    ("apiextensions.k8s.io", "customresourcedefinitions"), ("storage.k8s.io", "storageclasses"),
    ("certificates.k8s.io", "certificatesigningrequests"), ("certificates.k8s.io", "certificatesigningrequests/approval"),
    ("authentication.k8s.io", "tokenreviews"), ("authorization.k8s.io", "subjectaccessreviews"),
    ("scheduling.k8s.io", "priorityclasses"), ("cert-manager.io", "clusterissuers"), ("apiregistration.k8s.io", "apiservices"),
)  # fmt: skip

READ: Final = ("get", "list", "watch")
# What deploy-test may do, and nothing else; all of it in sens-test.
TABLE: Final = {
    ("", "pods"): (*READ, "delete"),
    ("", "pods/log"): ("get",),
    **{
        ("", resource): READ for resource in ("services", "endpoints", "configmaps", "persistentvolumeclaims", "events")
    },
    **{("apps", resource): READ for resource in ("deployments", "statefulsets", "replicasets", "controllerrevisions")},
    ("batch", "jobs"): READ,
    ("batch", "cronjobs"): READ,
    ("networking.k8s.io", "ingresses"): READ,
    ("networking.k8s.io", "networkpolicies"): READ,
    ("policy", "poddisruptionbudgets"): READ,
    ("discovery.k8s.io", "endpointslices"): READ,
    ("events.k8s.io", "events"): READ,
    ("cert-manager.io", "certificates"): READ,
    ("cert-manager.io", "certificaterequests"): READ,
    ("acme.cert-manager.io", "orders"): READ,
    ("acme.cert-manager.io", "challenges"): READ,
}


def requests() -> Iterator[Request]:
    """Yield every request: in each namespace, in all of them at once, and for what has no namespace."""
    for verb in VERBS:
        for group, resource in KINDS:
            yield from (Request(verb, group, resource, namespace) for namespace in ("", *NAMESPACES))
        yield from (Request(verb, group, resource, "") for group, resource in OF_THE_CLUSTER)


def expected(request: Request) -> bool:
    return request.namespace == "sens-test" and request.verb in TABLE.get((request.group, request.resource), ())


@pytest.fixture(scope="session")
def authorizer(gitops: Path) -> Authorizer:
    return Authorizer(documents(gitops, "bootstrap/**/*.yaml"))


class TestFullTable:
    def test_deploy_test_may_do_what_the_table_says_and_nothing_else(self, authorizer: Authorizer) -> None:
        wrong = [request for request in requests() if authorizer.allows(DEPLOY_TEST, request) != expected(request)]

        assert wrong == []

    def test_names_only_what_can_be_asked_for(self) -> None:
        asked = {(request.group, request.resource, request.verb) for request in requests()}

        assert {(*kind, verb) for kind, verbs in TABLE.items() for verb in verbs} <= asked

    def test_others_get_nothing_from_it(self, authorizer: Authorizer) -> None:
        others = [service_account("sens-test", "default"), service_account("sens-production", "deploy-test")]

        assert not any(authorizer.allows(other, request) for other in others for request in requests())

    def test_an_api_server_answers_the_same(self, cluster: Cluster) -> None:
        wrong = [request for request in requests() if ask(cluster, request) != expected(request)]

        assert wrong == []


def ask(cluster: Cluster, request: Request) -> bool:
    resource, _, subresource = request.resource.partition("/")
    attributes = {
        "verb": request.verb,
        "group": request.group,
        "resource": resource,
        "subresource": subresource,
        "namespace": request.namespace,
    }
    spec = {"user": DEPLOY_TEST.user, "groups": sorted(DEPLOY_TEST.groups), "resourceAttributes": attributes}
    review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec}
    answer = cluster.send("POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", review)
    assert answer.status == 201, answer
    return bool(answer.document["status"]["allowed"])


class TestRoundabouts:
    """Ways to more rights that a role without a word about production may open."""

    CHANGES: Final = ("create", "update", "patch", "delete", "deletecollection")

    def test_nothing_that_starts_a_pod_can_be_made_or_changed(self, authorizer: Authorizer) -> None:
        starters = [
            ("", "pods"), ("", "pods/ephemeralcontainers"), ("", "replicationcontrollers"), ("apps", "deployments"),
            ("apps", "statefulsets"), ("apps", "daemonsets"), ("apps", "replicasets"), ("batch", "jobs"), ("batch", "cronjobs"),
        ]  # fmt: skip

        assert not any(
            authorizer.allows(DEPLOY_TEST, Request(verb, *starter, "sens-test"))
            for verb in ("create", "update", "patch")
            for starter in starters
        )

    def test_no_role_or_binding_uses_a_wildcard_or_the_whole_cluster(self, gitops: Path) -> None:
        found = list(documents(gitops))
        rules = [rule for document in found if document["kind"] == "Role" for rule in document["rules"]]

        assert {document["kind"] for document in found} & {"ClusterRole", "ClusterRoleBinding"} == set()
        assert rules
        assert not any("*" in values for rule in rules for values in rule.values())

    def test_its_token_is_in_no_pod_by_itself(self, gitops: Path) -> None:
        [account] = [document for document in documents(gitops) if document["kind"] == "ServiceAccount"]

        assert account["automountServiceAccountToken"] is False

    @pytest.mark.parametrize(
        ("kind", "rule"),
        [
            ("Role", {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}),
            ("Role", {"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}),
            ("Role", {"apiGroups": [""], "resources": ["*/exec"], "verbs": ["create"]}),
            ("Role", {"apiGroups": [RBAC], "resources": ["rolebindings"], "verbs": ["bind", "create"]}),
        ],
    )
    def test_a_rule_too_many_is_noticed(self, gitops: Path, kind: str, rule: dict[str, Any]) -> None:
        metadata = {"name": "more", "namespace": "sens-test"}
        more = [
            {"kind": kind, "metadata": metadata, "rules": [rule]},
            {
                "kind": "RoleBinding",
                "metadata": metadata,
                "roleRef": {"kind": kind, "name": "more"},
                "subjects": [{"kind": "ServiceAccount", "name": "deploy-test"}],
            },
        ]
        authorizer = Authorizer([*documents(gitops, "bootstrap/**/*.yaml"), *more])

        assert any(authorizer.allows(DEPLOY_TEST, request) != expected(request) for request in requests())


class TestEvaluator:
    """Rules of the manual, so that the table above means something."""

    POD: Final = Request("get", "", "pods", "n", "x")

    @staticmethod
    def role(kind: str, name: str, **more: Any) -> dict[str, Any]:
        metadata = {"name": name, "namespace": "n"} if kind == "Role" else {"name": name, "labels": {"of": name}}
        return {"kind": kind, "metadata": metadata, **more}

    @staticmethod
    def binding(of: str, role: tuple[str, str], **subject: str) -> dict[str, Any]:
        metadata = {"name": "b"} | ({"namespace": "n"} if of == "RoleBinding" else {})
        return {
            "kind": of,
            "metadata": metadata,
            "roleRef": {"kind": role[0], "name": role[1]},
            "subjects": [{"kind": "Group", "name": "system:authenticated"} | subject],
        }

    RULES: Final = [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]

    def test_a_role_counts_in_its_namespace_alone(self) -> None:
        found = Authorizer([self.role("Role", "r", rules=self.RULES), self.binding("RoleBinding", ("Role", "r"))])

        assert found.allows(DEPLOY_TEST, self.POD)
        assert not found.allows(DEPLOY_TEST, self.POD._replace(namespace="m"))
        assert not found.allows(DEPLOY_TEST, self.POD._replace(namespace=""))

    def test_a_cluster_role_counts_where_it_is_bound(self) -> None:
        role = self.role("ClusterRole", "r", rules=self.RULES)

        assert not Authorizer([role, self.binding("RoleBinding", ("ClusterRole", "r"))]).allows(
            DEPLOY_TEST, self.POD._replace(namespace="m")
        )
        assert Authorizer([role, self.binding("ClusterRoleBinding", ("ClusterRole", "r"))]).allows(
            DEPLOY_TEST, self.POD._replace(namespace="m")
        )

    def test_an_aggregated_role_has_the_rules_of_others(self) -> None:
        aggregation = {"clusterRoleSelectors": [{"matchLabels": {"of": "part"}}]}
        found = Authorizer(
            [
                self.role("ClusterRole", "part", rules=self.RULES),
                self.role("ClusterRole", "whole", aggregationRule=aggregation),
                self.binding("ClusterRoleBinding", ("ClusterRole", "whole")),
            ]
        )

        assert found.allows(DEPLOY_TEST, self.POD)

    def test_names_and_subresources_narrow_a_rule(self) -> None:
        rules = [{"apiGroups": [""], "resources": ["pods/log"], "verbs": ["get"], "resourceNames": ["x"]}]
        found = Authorizer([self.role("Role", "r", rules=rules), self.binding("RoleBinding", ("Role", "r"))])

        assert found.allows(DEPLOY_TEST, self.POD._replace(resource="pods/log"))
        assert not found.allows(DEPLOY_TEST, self.POD._replace(resource="pods/log", name="y"))
        assert not found.allows(DEPLOY_TEST, self.POD)

    def test_another_user_is_another_subject(self) -> None:
        binding = self.binding("RoleBinding", ("Role", "r"), kind="User", name="alice")

        assert not Authorizer([self.role("Role", "r", rules=self.RULES), binding]).allows(DEPLOY_TEST, self.POD)
