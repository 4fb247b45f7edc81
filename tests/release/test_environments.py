"""What an environment's values say, and what ``sens verify`` is told of it, is the same."""

import tomllib
from pathlib import Path

import pytest
import yaml

from sens_cli.verify.environment import Environment
from support.chart import CHART, RELEASE, needs_helm, render
from support.gitops import documents, find, gitops_init, values_of, written

ENTRY_POINTS = "traefik.ingress.kubernetes.io/router.entrypoints"


@pytest.mark.parametrize("name", ["test", "production"])
class TestAnEnvironment:
    def test_says_itself_what_is_public_and_tells_verify_the_same(self, gitops: Path, name: str) -> None:
        ingress = values_of(gitops, name)["ingress"]
        known = tomllib.loads((gitops / "environments" / name / "environment.toml").read_text(encoding="utf-8"))
        environment = Environment.read(gitops, name)

        # Written out in both, not left to a default.
        assert {"public_data", "public_metrics"} <= known.keys()
        public = environment.public_data, environment.public_metrics
        assert (ingress["publicData"], ingress["publicMetrics"]) == public

    @needs_helm
    def test_gives_the_metrics_of_the_api_on_its_public_host(self, gitops: Path, name: str) -> None:
        values = values_of(gitops, name)
        ingress = render(values, base=None).of("Ingress")[f"{RELEASE}-platform-api"]
        [rule] = ingress.spec["rules"]

        assert "/metrics" in {path["path"] for path in rule["http"]["paths"]}

    def test_is_reached_by_https_alone(self, gitops: Path, name: str) -> None:
        values = values_of(gitops, name)
        tls = values["ingress"]["tls"]

        assert values["ingress"]["annotations"][ENTRY_POINTS] == "websecure"
        assert tls.get("enabled", True)
        assert tls.get("only", True)

    def test_takes_the_stores_in_the_versions_that_the_chart_is_tried_with(self, gitops: Path, name: str) -> None:
        values = values_of(gitops, name)
        chart = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))

        for store in ("nats", "database"):
            assert values[store]["image"] == {"tag": chart[store]["image"]["tag"], "digest": ""}

    @needs_helm
    def test_pins_the_stores_images_by_digest_when_they_are_given(self, tmp_path: Path, name: str) -> None:
        digests = {"nats": f"sha256:{'a' * 64}", "timescaledb": f"sha256:{'b' * 64}"}
        written(tmp_path / "new", *(f"{store}_digest={digest}" for store, digest in digests.items()))
        rendered = render(values_of(tmp_path / "new", name), base=None)

        for store, digest in digests.items():
            assert rendered.container(store).image.endswith(f"@{digest}")


class TestDigests:
    def test_that_are_none_are_refused(self, tmp_path: Path) -> None:
        done = gitops_init(tmp_path / "new", "--set", "nats_digest=sha256:12")

        assert done.returncode == 1
        assert "nats_digest: 'sha256:12' is not a digest, sha256: and 64 hexadecimal digits, or nothing" in done.stderr


class TestPlainHttp:
    def test_does_not_reach_argo_cd(self, gitops: Path) -> None:
        ingress = find(gitops, "Ingress", "argocd-server")

        assert ingress["metadata"]["annotations"][ENTRY_POINTS] == "websecure"

    def test_is_redirected_after_everything_that_has_a_route_of_its_own(self, gitops: Path) -> None:
        route = find(gitops, "IngressRoute", "plain-http")
        [rule] = route["spec"]["routes"]

        assert route["spec"]["entryPoints"] == ["web"]
        # The answer to an HTTP-01 challenge is an Ingress with a rule by host and path, whose priority is its length.
        assert (rule["match"], rule["priority"]) == ("PathPrefix(`/`)", 1)
        [middleware] = rule["middlewares"]
        found = find(gitops, "Middleware", middleware["name"])
        assert found["metadata"]["namespace"] == route["metadata"]["namespace"]
        assert found["spec"] == {"redirectScheme": {"scheme": "https", "permanent": True}}

    def test_is_told_to_browsers_by_a_middleware_that_is_there(self, gitops: Path) -> None:
        annotations = find(gitops, "Ingress", "argocd-server")["metadata"]["annotations"]
        hsts = find(gitops, "Middleware", "hsts")

        name = f"{hsts['metadata']['namespace']}-{hsts['metadata']['name']}@kubernetescrd"
        assert annotations["traefik.ingress.kubernetes.io/router.middlewares"] == name
        assert hsts["spec"]["headers"]["stsSeconds"] >= 31_536_000


class TestLimits:
    @pytest.mark.parametrize("name", ["test", "production"])
    def test_of_traefik_are_by_address_and_can_be_named_by_the_environment(self, gitops: Path, name: str) -> None:
        found = {
            document["metadata"]["name"]: document["spec"]
            for document in documents(gitops, "bootstrap/limits.yaml")
            if document["metadata"]["namespace"] == f"sens-{name}"
        }

        assert found.keys() == {"rate", "connections"}
        for spec in found.values():
            [limit] = spec.values()
            # Without it Traefik counts the requests of a host, whoever sends them.
            assert limit["sourceCriterion"] == {"ipStrategy": {"depth": 0}}

    @pytest.mark.parametrize("name", ["test", "production"])
    def test_are_not_in_force_before_somebody_has_seen_that_addresses_differ(self, gitops: Path, name: str) -> None:
        values = values_of(gitops, name)

        assert "limits" not in values["ingress"]
