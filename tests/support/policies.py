"""ValidatingAdmissionPolicies, evaluated as the API server does, with the Common Expression Language's own library.

Order and meaning: kubernetes.io/docs/reference/access-authn-authz/validating-admission-policy. A policy is asked when its rules and
match conditions match; then each validation that isn't true is a refusal with its message.
"""

from collections.abc import Mapping
from functools import cache
from typing import Any, Final, NamedTuple

from cel_expr_python import cel
from cel_expr_python.ext import ext_optional, ext_strings

Document = Mapping[str, Any]
# Plural name and group of the kinds that are asked for here.
RESOURCES: Final = {
    "Pod": ("", "pods"), "ReplicationController": ("", "replicationcontrollers"), "PodTemplate": ("", "podtemplates"),
    "Deployment": ("apps", "deployments"), "StatefulSet": ("apps", "statefulsets"), "DaemonSet": ("apps", "daemonsets"),
    "ReplicaSet": ("apps", "replicasets"), "Job": ("batch", "jobs"), "CronJob": ("batch", "cronjobs"),
    "Application": ("argoproj.io", "applications"),
}  # fmt: skip


class Asked(NamedTuple):
    """A request to the API server.

    Attributes:
        document: The object as it would be.
        operation: CREATE or UPDATE.
        subresource: Such as ephemeralcontainers.
    """

    document: Document
    operation: str = "CREATE"
    subresource: str = ""


@cache
def _environment() -> cel.Env:
    names = dict.fromkeys(("object", "request", "variables"), cel.Type.DYN)
    return cel.NewEnv(variables=names, extensions=[ext_strings.ExtStrings(), ext_optional.ExtOptional()])


@cache
def _compiled(expression: str) -> cel.Expression:
    return _environment().compile(expression)


class Policy:
    """A policy with its binding.

    Args:
        policy: The ValidatingAdmissionPolicy.
        binding: The ValidatingAdmissionPolicyBinding.
    """

    def __init__(self, policy: Document, binding: Document) -> None:
        assert binding["spec"]["policyName"] == policy["metadata"]["name"]
        assert "Deny" in binding["spec"]["validationActions"]
        assert policy["spec"]["failurePolicy"] == "Fail"
        self._spec = policy["spec"]
        [self.namespace] = binding["spec"]["matchResources"]["namespaceSelector"]["matchLabels"].values()

    def refusals(self, asked: Asked) -> list[str]:
        """Return the messages; none when the request is let through."""
        if asked.document["metadata"]["namespace"] != self.namespace or not self._is_for(asked):
            return []
        known: dict[str, Any] = {"object": asked.document, "request": {"operation": asked.operation}, "variables": {}}
        if not all(_value(condition["expression"], known) for condition in self._spec["matchConditions"]):
            return []
        for variable in self._spec["variables"]:
            value = _value(variable["expression"], known)
            known["variables"] = known["variables"] | {variable["name"]: value}
        return [
            validation.get("message") or _value(validation["messageExpression"], known)
            for validation in self._spec["validations"]
            if _value(validation["expression"], known) is not True
        ]

    def _is_for(self, asked: Asked) -> bool:
        group, resource = RESOURCES[asked.document["kind"]]
        resource += f"/{asked.subresource}" if asked.subresource else ""
        return any(
            group in rule["apiGroups"] and resource in rule["resources"] and asked.operation in rule["operations"]
            for rule in self._spec["matchConstraints"]["resourceRules"]
        )


def _value(expression: str, known: Mapping[str, Any]) -> Any:
    result = _compiled(expression).eval(data=dict(known))
    assert result.type() != cel.Type.ERROR, (expression, result)
    return result.plain_value()
