"""A real Kubernetes API server, which SENS_TEST_KUBECONFIG names, with the GitOps repository's bootstrap on it.

It may be any cluster for tests, such as k3s or kind: the bootstrap stays on it. Nothing is asked for that starts a pod.
"""

import http.client
import json
import os
import shutil
import subprocess
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import closing
from http import HTTPStatus
from pathlib import Path
from typing import Any, NamedTuple

import pytest

_DEADLINE_SECONDS = 30.0


class Answer(NamedTuple):
    """Of the API server."""

    status: int
    document: dict[str, Any]

    @property
    def message(self) -> str:
        """Why it refused."""
        return str(self.document.get("message", ""))


class Cluster:
    """A connection that is kept.

    Args:
        kubeconfig: The file with an administrator's access.
        port: Where ``kubectl proxy`` listens.
    """

    def __init__(self, kubeconfig: str, port: int) -> None:
        self.kubeconfig = kubeconfig
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def send(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, kind: str = "application/json"
    ) -> Answer:
        """Return the answer to a request."""
        content = None if body is None else json.dumps(body)
        self._connection.request(method, path, content, {"Content-Type": kind})
        answer = self._connection.getresponse()
        return Answer(answer.status, json.loads(answer.read()))

    def kubectl(self, *arguments: str) -> str:
        """Return what kubectl prints."""
        command = ["kubectl", "--kubeconfig", self.kubeconfig, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout

    def wait_for(self, path: str, body: Mapping[str, Any], status: int) -> None:
        """Send a request until it is answered so: what was applied takes a moment to reach every part of the server."""
        deadline = time.monotonic() + _DEADLINE_SECONDS
        while (answer := self.send("POST", path, body)).status != status:
            assert time.monotonic() < deadline, answer
            time.sleep(0.05)


@pytest.fixture(scope="session")
def cluster(gitops: Path) -> Iterator[Cluster]:
    """Return the cluster, with the bootstrap's namespaces, rights and policies."""
    kubeconfig = os.environ.get("SENS_TEST_KUBECONFIG")
    if not kubeconfig or not shutil.which("kubectl"):
        pytest.skip("not run: SENS_TEST_KUBECONFIG names no cluster, or there is no kubectl")
    command = ["kubectl", "--kubeconfig", kubeconfig, "proxy", "--port=0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as proxy:
        try:
            assert proxy.stdout is not None
            port = int(proxy.stdout.readline().rpartition(":")[2])  # Starting to serve on 127.0.0.1:…
            with closing(Cluster(kubeconfig, port)) as found:
                for part in ("namespaces.yaml", "rbac", "policies"):
                    found.kubectl("apply", "--filename", str(gitops / "bootstrap" / part))
                _wait_for_the_policies(found)
                yield found
        finally:
            proxy.terminate()


def _wait_for_the_policies(cluster: Cluster) -> None:
    """Wait until the server goes by the policies that were applied: it takes up all at once, so until it goes by one applied after them."""
    name = f"probe-{uuid.uuid4()}"
    root, version = "/apis/admissionregistration.k8s.io/v1", "admissionregistration.k8s.io/v1"
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"]}
    policy = {
        "matchConstraints": {"resourceRules": [rule]},
        "validations": [{"expression": f"object.metadata.name != '{name}'", "reason": "Forbidden"}],
    }
    binding = {"policyName": name, "validationActions": ["Deny"]}
    kinds = {"ValidatingAdmissionPolicy": policy, "ValidatingAdmissionPolicyBinding": binding}
    plurals = ("validatingadmissionpolicies", "validatingadmissionpolicybindings")
    try:
        for plural, (kind, spec) in zip(plurals, kinds.items(), strict=True):
            document = {"apiVersion": version, "kind": kind, "metadata": {"name": name}, "spec": spec}
            assert cluster.send("POST", f"{root}/{plural}", document).status == HTTPStatus.CREATED
        document = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}}
        cluster.wait_for("/api/v1/namespaces/sens-test/configmaps?dryRun=All", document, HTTPStatus.FORBIDDEN)
    finally:
        for plural in reversed(plurals):
            cluster.send("DELETE", f"{root}/{plural}/{name}")
