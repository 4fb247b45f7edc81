"""The checks of ``sens verify`` that ask kubectl: on a program of that name which answers from a table."""

import json
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pytest

from sens_cli.verify.access import check_production, check_test
from sens_cli.verify.cluster import Cluster
from sens_cli.verify.environment import Environment
from sens_cli.verify.kubectl import TIMEOUT_SECONDS, Kubectl
from sens_cli.verify.outcome import CheckFailedError, NotRunError
from sens_cli.verify.record import Expected
from support.kubectl import Answer, FakeKubectl

DIGEST = f"sha256:{'ab' * 32}"
ENVIRONMENT = Environment(
    name="test",
    namespace="sens-test",
    release="sens-platform-test",
    test_namespace="sens-test",
    production_namespace="sens-production",
    expected=Expected(version="0.5.0-alpha.12.1", images={"platform-api": DIGEST}),
)
API_IMAGE = f"ghcr.io/owner/sens-platform/platform-api:0.5.0-alpha.12.1@{DIGEST}"

ACCOUNT = "system:serviceaccount:sens-test:deploy-test"
FORBIDDEN = 'Error from server (Forbidden): pods "x" is forbidden: User "deploy-test" cannot create resource "pods/exec" in API group ""'


def workload(
    name: str = "api", *, kind: str = "Deployment", image: str = API_IMAGE, replicas: int = 1, **status: object
) -> dict[str, Any]:
    complete: dict[str, object] = {"observedGeneration": 3, "replicas": replicas, "updatedReplicas": replicas}
    if kind == "StatefulSet":
        complete |= {"readyReplicas": replicas, "currentRevision": "a", "updateRevision": "a"}
    else:
        complete |= {"availableReplicas": replicas, "readyReplicas": replicas}
    return {
        "kind": kind,
        "metadata": {"name": name, "generation": 3},
        "spec": {"replicas": replicas, "template": {"spec": {"containers": [{"image": image}]}}},
        "status": complete | status,
    }


def listed(*workloads: dict[str, Any]) -> dict[str, str]:
    return {"output": json.dumps({"kind": "List", "items": workloads})}


async def run(
    check: Callable[[Cluster], Callable[[], Awaitable[str]]],
    environment: Environment = ENVIRONMENT,
    *,
    timeout_seconds: float = TIMEOUT_SECONDS,
) -> str:
    return await check(Cluster(environment, Kubectl(timeout_seconds=timeout_seconds)))()


async def failure(check: Callable[[Cluster], Callable[[], Awaitable[str]]]) -> CheckFailedError:
    with pytest.raises(CheckFailedError) as error:
        await run(check)
    return error.value


async def production(environment: Environment = ENVIRONMENT) -> str:
    return await check_production(environment, Kubectl())


async def in_test(environment: Environment = ENVIRONMENT) -> str:
    return await check_test(environment, Kubectl())


class TestRollouts:
    async def test_that_are_complete(self, fake_kubectl: FakeKubectl) -> None:
        fake_kubectl.answer(["get"], listed(workload("api"), workload("nats", kind="StatefulSet")))

        assert await run(lambda cluster: cluster.rolled_out) == "2 of 2: api, nats"
        assert fake_kubectl.calls == [
            [
                "get",
                "deployments,statefulsets",
                "--namespace=sens-test",
                "--selector=app.kubernetes.io/instance=sens-platform-test",
                "--output=json",
            ]
        ]

    @pytest.mark.parametrize(
        ("broken", "said"),
        [
            (workload(observedGeneration=2), "api: its controller has not seen its newest state yet"),
            (workload(updatedReplicas=0), "api: 0 of 1 pods have the newest template"),
            (workload(replicas=2, updatedReplicas=2, availableReplicas=1), "api: 1 of 2 pods are available"),
            (workload(conditions=[{"type": "Progressing", "reason": "ProgressDeadlineExceeded"}]), "made no progress"),
            (workload(replicas=0), "api: is scaled to 0"),
            (workload(kind="StatefulSet", readyReplicas=0), "api: 0 of 1 pods are ready"),
            (workload(kind="StatefulSet", updateRevision="b"), "api: 1 of 1 pods have the newest template"),
            (workload() | {"status": {}}, "api: its controller has not seen"),
        ],
    )
    async def test_that_are_not_complete_say_what_they_wait_for(
        self, fake_kubectl: FakeKubectl, broken: dict[str, Any], said: str
    ) -> None:
        fake_kubectl.answer(["get"], listed(workload("docs"), broken))

        assert said in (await failure(lambda cluster: cluster.rolled_out)).detail

    async def test_with_old_pods_are_not_complete(self, fake_kubectl: FakeKubectl) -> None:
        old = workload()
        old["status"]["replicas"] = 2
        fake_kubectl.answer(["get"], listed(old))

        assert (await failure(lambda cluster: cluster.rolled_out)).detail == "api: 1 old pods are still there"

    async def test_of_nothing_are_a_failure(self, fake_kubectl: FakeKubectl) -> None:
        fake_kubectl.answer(["get"], listed())

        error = await failure(lambda cluster: cluster.rolled_out)

        assert error.detail == "there is no workload of release sens-platform-test in namespace sens-test"
        assert "--kube-context" in error.remedy

    @pytest.mark.parametrize("output", ["", "Welcome!", "[]", '{"items": [1]}', '{"items": [{}]}', '{"items": 7}', "{"])
    async def test_of_something_else_than_kubectl_are_never_complete(
        self, fake_kubectl: FakeKubectl, output: str
    ) -> None:
        fake_kubectl.answer(["get"], {"output": output})

        assert (await failure(lambda cluster: cluster.rolled_out)).remedy


class TestImages:
    async def test_are_those_of_the_release(self, fake_kubectl: FakeKubectl) -> None:
        nats = workload("nats", kind="StatefulSet", image="docker.io/library/nats:2.15.0-alpine")
        fake_kubectl.answer(["get"], listed(workload(), nats))

        assert await run(lambda cluster: cluster.images) == "0.5.0-alpha.12.1: platform-api"

    @pytest.mark.parametrize(
        "image",
        [
            API_IMAGE.replace("12.1", "11.1"),
            API_IMAGE.replace("ab", "cd"),
            API_IMAGE.replace(":0.5.0-alpha.12.1", ""),
            "localhost:5000/platform-api:latest",
        ],
    )
    async def test_that_are_others_are_a_failure(self, fake_kubectl: FakeKubectl, image: str) -> None:
        fake_kubectl.answer(["get"], listed(workload(image=image)))

        assert f"api has {image}, released is" in (await failure(lambda cluster: cluster.images)).detail

    async def test_of_none_of_the_platform_are_a_failure(self, fake_kubectl: FakeKubectl) -> None:
        fake_kubectl.answer(["get"], listed(workload(image="nginx:1.0.0")))

        assert "no image of the platform" in (await failure(lambda cluster: cluster.images)).detail


def pod(name: str, *, ready: bool = True, **status: object) -> dict[str, Any]:
    conditions = [{"type": "Ready", "status": str(ready)}]
    return {"metadata": {"name": name}, "status": {"phase": "Running", "conditions": conditions} | status}


class TestStores:
    async def test_are_ready_and_nothing_is_run_in_them(self, fake_kubectl: FakeKubectl) -> None:
        fake_kubectl.answer(["component=timescaledb"], listed(pod("db-0")))
        fake_kubectl.answer(["component=nats"], listed(pod("nats-0")))

        assert (
            await run(lambda cluster: cluster.database)
            == "db-0: pg_isready in its pod says that it accepts connections"
        )
        assert await run(lambda cluster: cluster.nats) == "nats-0: its /healthz says that it is healthy"
        labels = "app.kubernetes.io/instance=sens-platform-test,app.kubernetes.io/component="
        assert fake_kubectl.calls == [
            ["get", "pods", "--namespace=sens-test", f"--selector={labels}{store}", "--output=json"]
            for store in ("timescaledb", "nats")
        ]

    @pytest.mark.parametrize(
        ("broken", "said"),
        [
            (pod("db-0", ready=False), "db-0: is not ready (Running, 0 restarts)"),
            (
                pod(
                    "db-0",
                    ready=False,
                    containerStatuses=[
                        {"restartCount": 3, "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}}}
                    ],
                ),
                "db-0: is not ready (Running, CrashLoopBackOff: back-off, 3 restarts)",
            ),
            ({"metadata": {"name": "db-0", "deletionTimestamp": "x"}, "status": pod("db-0")["status"]}, "is not ready"),
            ({"metadata": {"name": "db-0"}}, "db-0: is not ready (no phase, 0 restarts)"),
        ],
        ids=["recovers", "crashes", "ends", "begins"],
    )
    async def test_that_are_not_ready_are_a_failure_with_the_reason(
        self, fake_kubectl: FakeKubectl, broken: dict[str, Any], said: str
    ) -> None:
        fake_kubectl.answer(["get"], listed(broken))

        error = await failure(lambda cluster: cluster.database)

        assert said in error.detail
        assert "kubectl -n sens-test logs statefulset/sens-platform-test-timescaledb" in error.remedy

    @pytest.mark.parametrize("output", ['{"items": []}', '{"items": [{}]}', '{"items": [{"metadata": 7}]}', "", "ok"])
    async def test_without_a_pod_that_can_be_read_are_a_failure(self, fake_kubectl: FakeKubectl, output: str) -> None:
        fake_kubectl.answer(["get"], {"output": output})

        for check in (lambda cluster: cluster.database, lambda cluster: cluster.nats):
            assert (await failure(check)).remedy

    async def test_that_are_outside_of_the_cluster_are_not_asked(self, fake_kubectl: FakeKubectl) -> None:
        outside = Environment(name="x", namespace="a", release="b", external_database=True, external_nats=True)

        for check in (lambda cluster: cluster.database, lambda cluster: cluster.nats):
            with pytest.raises(NotRunError, match="outside of the cluster"):
                await run(check, outside)
        assert fake_kubectl.calls == []


class TestMetrics:
    async def test_are_asked_for_in_the_pod(self, fake_kubectl: FakeKubectl) -> None:
        fake_kubectl.answer(
            ["deployment/sens-platform-test-docs"], {"output": "# TYPE sens_docs_responses counter\na 1\nb 2\n"}
        )
        fake_kubectl.answer(["python"], {"output": "# TYPE sens_api_requests counter\nsens_api_requests_total 1\n"})

        assert await run(lambda cluster: partial(cluster.metrics, "platform-api")) == "1 series"
        assert await run(lambda cluster: partial(cluster.metrics, "docs")) == "2 series"

    @pytest.mark.parametrize("output", ["", "404 page not found"])
    async def test_that_are_none_are_a_failure(self, fake_kubectl: FakeKubectl, output: str) -> None:
        fake_kubectl.answer(["exec"], {"output": output})

        assert (await failure(lambda cluster: partial(cluster.metrics, "docs"))).remedy

    async def test_of_a_program_that_fails_say_its_words(self, fake_kubectl: FakeKubectl) -> None:
        said = "ConnectionRefusedError"
        fake_kubectl.answer(["exec"], {"output": said, "errors": "command terminated with exit code 1\n", "code": 1})

        error = await failure(lambda cluster: partial(cluster.metrics, "docs"))

        assert said in error.detail
        assert "exit code 1" in error.detail


def job(name: str, start: str, *conditions: str) -> dict[str, Any]:
    status = {"startTime": start, "conditions": [{"type": each, "status": "True"} for each in conditions]}
    return {"metadata": {"name": name}, "status": status}


class TestNames:
    async def test_resolve_as_the_newest_run_that_has_ended_says(self, fake_kubectl: FakeKubectl) -> None:
        runs = (job("old", "2026-01-01T00:00:00Z", "Failed"), job("new", "2026-01-02T00:00:00Z", "Complete"))
        fake_kubectl.answer(["get"], listed(*runs, job("running", "2026-01-03T00:00:00Z")))
        fake_kubectl.answer(["logs", "job/new"], {"output": "ok name a: 192.0.2.7\nok name b: 10.0.0.1\n"})

        said = await run(lambda cluster: cluster.names)

        assert said == "2 of 2: name a: 192.0.2.7, name b: 10.0.0.1 (2026-01-02T00:00:00Z)"

    async def test_that_do_not_are_a_failure(self, fake_kubectl: FakeKubectl) -> None:
        fake_kubectl.answer(["get"], listed(job("new", "2026-01-02T00:00:00Z", "Failed")))
        fake_kubectl.answer(["logs"], {"output": "ok name a: 192.0.2.7\nfailed name b: Name or service not known\n"})

        error = await failure(lambda cluster: cluster.names)

        assert error.detail == "failed name b: Name or service not known (2026-01-02T00:00:00Z)"
        assert "coredns" in error.remedy

    @pytest.mark.parametrize(("condition", "output"), [("Complete", ""), ("Failed", "ok name a: 192.0.2.7\n")])
    async def test_without_a_result_are_a_failure(self, fake_kubectl: FakeKubectl, condition: str, output: str) -> None:
        fake_kubectl.answer(["get"], listed(job("new", "2026-01-02T00:00:00Z", condition)))
        fake_kubectl.answer(["logs"], {"output": output})

        assert "ended without a result" in (await failure(lambda cluster: cluster.names)).detail

    @pytest.mark.parametrize("runs", [[], [job("running", "2026-01-03T00:00:00Z")]])
    async def test_that_nobody_has_looked_at_are_not_known(
        self, fake_kubectl: FakeKubectl, runs: list[dict[str, Any]]
    ) -> None:
        fake_kubectl.answer(["get"], listed(*runs))

        with pytest.raises(NotRunError, match=r"checks\.enabled"):
            await run(lambda cluster: cluster.names)


class TestKubectl:
    @pytest.mark.parametrize(
        "errors",
        [
            FORBIDDEN,
            'error: context "nope" does not exist',
            "The connection to the server localhost:8080 was refused - did you specify the right host or port?",
            "Unable to connect to the server: dial tcp 192.0.2.7:6443: i/o timeout",
            "error: You must be logged in to the server (Unauthorized)",
            "error: no configuration has been provided, try setting KUBERNETES_MASTER environment variable",
        ],
    )
    async def test_without_access_leaves_the_check_undone(self, fake_kubectl: FakeKubectl, errors: str) -> None:
        fake_kubectl.answer([], {"errors": f"a warning\n{errors}\n", "code": 1})

        for check in (lambda cluster: cluster.rolled_out, lambda cluster: cluster.nats):
            with pytest.raises(NotRunError) as error:
                await run(check)
            assert str(error.value) == f"kubectl has no access: {errors}"
        with pytest.raises(NotRunError):
            await production()

    async def test_that_never_answers_is_ended(self, fake_kubectl: FakeKubectl) -> None:
        fake_kubectl.answer(["get"], {"hangs": True})
        started = time.monotonic()

        with pytest.raises(NotRunError, match=r"no answer within 0\.2 s"):
            await run(lambda cluster: cluster.rolled_out, timeout_seconds=0.2)
        assert time.monotonic() - started < 30

    @pytest.mark.parametrize(
        "answer", [{"hangs": True}, {"errors": "Unable to connect to the server: dial tcp: i/o timeout", "code": 1}]
    )
    async def test_that_can_not_reach_the_cluster_is_not_asked_again(
        self, fake_kubectl: FakeKubectl, answer: Answer
    ) -> None:
        fake_kubectl.answer([], answer)

        cluster, said = Cluster(ENVIRONMENT, Kubectl(timeout_seconds=2.0)), []
        for check in (cluster.rolled_out, cluster.nats):
            with pytest.raises(NotRunError) as error:
                await check()
            said.append(str(error.value))
        first, second = said
        assert first == second
        assert len(fake_kubectl.calls) == 1

    async def test_that_hangs_in_a_pod_is_asked_again(self, fake_kubectl: FakeKubectl) -> None:
        fake_kubectl.answer(["exec"], {"hangs": True})
        fake_kubectl.answer(["get"], listed(workload()))

        kubectl = Kubectl(timeout_seconds=2.0)
        cluster = Cluster(ENVIRONMENT, kubectl)
        with pytest.raises(NotRunError, match="no answer"):
            await cluster.metrics("docs")
        kubectl._timeout_seconds = TIMEOUT_SECONDS
        assert (await cluster.rolled_out()) == "1 of 1: api"

    async def test_that_prints_without_end_is_ended(self, fake_kubectl: FakeKubectl) -> None:
        fake_kubectl.answer(["get"], {"output": "x" * 10_000, "times": 1000})

        with pytest.raises(NotRunError, match="more than 8388608 bytes"):
            await run(lambda cluster: cluster.rolled_out)

    async def test_is_told_the_context(self, fake_kubectl: FakeKubectl) -> None:
        fake_kubectl.answer(["get"], listed(workload()))

        await Cluster(ENVIRONMENT, Kubectl("mine")).rolled_out()
        assert fake_kubectl.calls[0][0] == "--context=mine"


class TestRights:
    NEEDED = (
        *((verb, resource, "") for verb in ("get", "list", "watch") for resource in ("pods", "deployments", "statefulsets", "jobs", "ingresses")),
        ("get", "pods", "log"),
        ("delete", "pods", ""),
    )  # fmt: skip

    def allow_the_needed(self, fake_kubectl: FakeKubectl) -> None:
        for verb, resource, subresource in self.NEEDED:
            fake_kubectl.allow(verb, resource, "sens-test", subresource)

    async def test_are_enough_for_test_and_nothing_in_production(self, fake_kubectl: FakeKubectl) -> None:
        self.allow_the_needed(fake_kubectl)

        assert (await in_test()).startswith("it can do 17 of 17 things for its work; 28 of 28 questions")
        assert "system:serviceaccount:sens-test:deploy-test may do more: no" in await production()
        asked = [call for call in fake_kubectl.calls if f"--as={ACCOUNT}" in call]
        assert len(asked) == len(fake_kubectl.calls) - 3  # beside those that ask who kubectl is

    async def test_are_asked_for_by_the_account_itself_without_a_right_to_impersonate(
        self, fake_kubectl: FakeKubectl
    ) -> None:
        self.allow_the_needed(fake_kubectl)
        fake_kubectl.be(ACCOUNT)

        assert await in_test()
        assert await production()
        assert not [call for call in fake_kubectl.calls if any(word.startswith("--as") for word in call)]

    async def test_that_are_missing_in_test_are_a_failure(self, fake_kubectl: FakeKubectl) -> None:
        for verb, resource, subresource in self.NEEDED[:-1]:
            fake_kubectl.allow(verb, resource, "sens-test", subresource)

        with pytest.raises(CheckFailedError) as error:
            await in_test()
        assert error.value.detail.endswith("can't delete pods --namespace=sens-test")

    @pytest.mark.parametrize(
        ("verb", "resource", "subresource"),
        [
            ("get", "secrets", ""),
            ("create", "pods", "exec"),
            ("create", "rolebindings", ""),
            ("patch", "deployments", ""),
        ],
    )
    async def test_that_are_too_many_in_test_are_a_failure(
        self, fake_kubectl: FakeKubectl, verb: str, resource: str, subresource: str
    ) -> None:
        self.allow_the_needed(fake_kubectl)
        fake_kubectl.allow(verb, resource, "sens-test", subresource)

        with pytest.raises(CheckFailedError, match=f"can {verb} {resource}"):
            await in_test()

    @pytest.mark.parametrize(
        ("right", "shown"),
        [
            (("patch", "deployments", "sens-production", ""), "patch deployments.apps --namespace=sens-production"),
            (
                ("patch", "deployments", "sens-production", "scale"),
                "patch deployments.apps --subresource=scale --namespace",
            ),
            (("get", "secrets", "sens-production", ""), "get secrets --namespace=sens-production"),
            (
                ("create", "pods", "sens-production", "exec"),
                "create pods --subresource=exec --namespace=sens-production",
            ),
            (
                ("bind", "roles", "sens-production", ""),
                "bind roles.rbac.authorization.k8s.io --namespace=sens-production",
            ),
            (("update", "applications", "argocd", ""), "update applications.argoproj.io --namespace=argocd"),
            (("escalate", "clusterroles", "", ""), "escalate clusterroles.rbac.authorization.k8s.io --all-namespaces"),
            (("impersonate", "users", "", ""), "impersonate users --all-namespaces"),
            (("update", "certificatesigningrequests", "", "approval"), "--subresource=approval"),
        ],
    )
    async def test_in_production_are_a_failure(
        self, fake_kubectl: FakeKubectl, right: tuple[str, str, str, str], shown: str
    ) -> None:
        fake_kubectl.allow(*right)

        with pytest.raises(CheckFailedError) as error:
            await production()
        assert shown in error.value.detail
        assert f"kubectl auth can-i {right[0]} {right[1]}" in error.value.remedy

    async def test_that_the_cluster_does_not_answer_for_are_not_none(self, fake_kubectl: FakeKubectl) -> None:
        fake_kubectl.answer(["create"], {"output": ""})

        # Questions are asked in several runs; the first one that is over says so.
        with pytest.raises(NotRunError, match=r"did not answer (\d+) of \1 questions"):
            await production()

    @pytest.mark.parametrize("output", ["{}", '{"spec": {}}', '{"spec": {"resourceAttributes": {}}, "status": 1}'])
    async def test_from_a_broken_answer_are_not_none(self, fake_kubectl: FakeKubectl, output: str) -> None:
        fake_kubectl.answer(["create"], {"output": output})

        with pytest.raises(NotRunError, match="something else than an access review"):
            await production()
