"""What can be reached from where: public is what has a host alone, inside only the platform's own edges."""

import re

import pytest

from support.chart import CHART, RELEASE, Render, every_render, matrix_render, needs_helm, render

pytestmark = needs_helm

PUBLIC = {"platform-api", "docs"}
HTTP = "http-ingestion-worker"
PEERS: list[dict[str, dict[str, dict[str, str]]]] = [{"podSelector": {"matchLabels": {"app": "chirpstack"}}}]
type Edge = tuple[str, str, int]


def _components(peers: list[dict[str, dict[str, dict[str, str]]]]) -> set[str]:
    return {
        peer["podSelector"]["matchLabels"]["app.kubernetes.io/component"]
        for peer in peers
        if "namespaceSelector" not in peer and "podSelector" in peer
    }


def edges(rendered: Render, direction: str) -> set[Edge]:
    """Return who may reach whom at which port, inside of the release, as the policies of one side say."""
    found = set()
    for policy in rendered.of("NetworkPolicy").values():
        for rule in policy.spec.get(direction) or []:
            for component in _components(rule.get("from", []) + rule.get("to", [])):
                for port in rule["ports"]:
                    pair = (component, policy.component) if direction == "ingress" else (policy.component, component)
                    found.add((*pair, port["port"]))
    return found


DESIGN: set[Edge] = {
    ("mqtt-ingestion-worker", "mock-mqtt-broker", 1884),
    ("mqtt-ingestion-worker", "nats", 4222),
    ("http-ingestion-worker", "nats", 4222),
    ("telemetry-worker", "nats", 4222),
    ("telemetry-worker", "timescaledb", 5432),
    ("platform-api", "nats", 4222),
    ("platform-api", "timescaledb", 5432),
    ("migrate", "timescaledb", 5432),
    ("test", "mock-mqtt-broker", 1884),
    ("test", "platform-api", 8000),
    ("test", "docs", 8080),
    ("test", "timescaledb", 5432),
}


class TestPolicies:
    def test_deny_everything_by_default(self) -> None:
        policy = matrix_render("test").find("NetworkPolicy", "default-deny")

        assert policy.spec["policyTypes"] == ["Ingress", "Egress"]
        assert "ingress" not in policy.spec
        assert "egress" not in policy.spec
        for manifest, _pod in matrix_render("test").pods():
            assert policy.spec["podSelector"]["matchLabels"].items() <= manifest.pod_labels.items()

    def test_allow_exactly_the_edges_of_the_design(self) -> None:
        assert edges(matrix_render("test"), "egress") == DESIGN

    def test_allow_the_checks_what_they_look_at(self) -> None:
        rendered = render({"checks": {"enabled": True}})
        more = {("checks", "timescaledb", 5432), ("checks", "nats", 8222)}

        assert edges(rendered, "egress") == edges(rendered, "ingress") == DESIGN | more

    def test_agree_at_both_ends_of_each_edge(self) -> None:
        assert edges(matrix_render("test"), "ingress") == edges(matrix_render("test"), "egress")

    def test_let_named_pods_ask_the_embedded_database_in_sql_and_nothing_else(self) -> None:
        grafana = {"podSelector": {"matchLabels": {"app": "grafana"}}, "namespaceSelector": {}}
        rendered = render({"networkPolicy": {"sqlFrom": [grafana]}})

        let_in = {
            (policy.component, rule["ports"][0]["port"])
            for policy in rendered.of("NetworkPolicy").values()
            for rule in policy.spec.get("ingress") or []
            if grafana in rule.get("from", [])
        }
        assert let_in == {("timescaledb", 5432)}
        assert edges(rendered, "ingress") == DESIGN

    def test_let_nobody_from_outside_in_without_an_ingress(self) -> None:
        for policy in matrix_render("test").of("NetworkPolicy").values():
            for rule in policy.spec.get("ingress") or []:
                assert rule["from"], policy.name

    def test_let_the_public_reach_only_what_is_public(self) -> None:
        for policy in matrix_render("production").of("NetworkPolicy").values():
            for rule in policy.spec.get("ingress") or []:
                assert rule.get("from") or policy.component in PUBLIC, policy.name

    def test_open_the_ports_of_the_external_servers(self) -> None:
        rendered = matrix_render("external everything")

        def ports(component: str) -> set[int]:
            policy = rendered.find("NetworkPolicy", component)
            return {port["port"] for rule in policy.spec["egress"] for port in rule["ports"]} - {53}

        assert ports("mqtt-ingestion-worker") == {8883, 4222, 4223}
        assert ports(HTTP) == {4222, 4223}
        assert ports("telemetry-worker") == {6432, 4222, 4223}
        assert ports("migrate") == {6432}

    @pytest.mark.parametrize(
        ("url", "port"),
        [
            ("nats://nats.example.org", 4222),
            ("ws://nats.example.org/", 80),
            ("wss://nats.example.org", 443),
            ("wss://nats.example.org:8443/nats", 8443),
            ("tls://[2001:db8::1]", 4222),
            ("tls://[2001:db8::1]:4333", 4333),
        ],
    )
    def test_open_the_port_that_a_url_means(self, url: str, port: int) -> None:
        policy = render({"nats": {"embedded": False, "url": url}}).find("NetworkPolicy", "telemetry-worker")

        assert {"ports": [{"protocol": "TCP", "port": port}]} in policy.spec["egress"]


def routes(rendered: Render, component: str) -> dict[str, str]:
    """Return the paths of a public host, and the names of the ports they lead to."""
    [rule] = rendered.find("Ingress", component).spec["rules"]
    return {path["path"]: path["backend"]["service"]["port"]["name"] for path in rule["http"]["paths"]}


POSTING = {"enabled": True, "httpIngestionHost": "in.example.org"}


class TestHttpIngestion:
    def test_has_no_public_host_by_itself(self) -> None:
        rendered = render(
            {"httpIngestion": {"enabled": True}, "networkPolicy": {"httpIngestionFrom": PEERS}}, base="production"
        )

        assert f"{RELEASE}-{HTTP}" not in rendered.of("Ingress")
        assert rendered.find("NetworkPolicy", HTTP).spec["ingress"] == [
            {"from": PEERS, "ports": [{"protocol": "TCP", "port": 8090}]}
        ]

    def test_is_reached_at_the_host_that_it_is_given(self) -> None:
        rendered = render(
            {"httpIngestion": {"enabled": True}, "ingress": POSTING, "networkPolicy": {"publicFrom": PEERS}},
            base="production",
        )

        assert routes(rendered, HTTP) == {"/ingest/v1": "http", "/sens/v1": "http", "/api/v1": "http"}
        assert rendered.find("Ingress", HTTP).spec["tls"] == [
            {"hosts": ["in.example.org"], "secretName": f"{RELEASE}-{HTTP}-tls"}
        ]
        assert rendered.find("NetworkPolicy", HTTP).spec["ingress"] == [
            {"from": PEERS, "ports": [{"protocol": "TCP", "port": 8090}]}
        ]

    def test_takes_nothing_over_plain_http_where_its_host_has_tls(self) -> None:
        environment = matrix_render("everything on").container(HTTP).environment

        assert environment["SENS_HTTPS__ONLY"].value == "true"
        assert "SENS_HTTPS__ONLY" not in matrix_render("test").container(HTTP).environment

    def test_reaches_no_database(self) -> None:
        ports = {
            port["port"]
            for rule in matrix_render("test").find("NetworkPolicy", HTTP).spec["egress"]
            for port in rule["ports"]
        }

        assert ports == {53, 4222}

    def test_host_has_limits_of_its_own(self) -> None:
        words = {
            "a.example/body": "$BODY_BYTES",
            "a.example/rate": "$REQUESTS_PER_SECOND",
            "a.example/wait": "$SILENT_SECONDS",
        }
        limits = {"annotations": words, "httpIngestion": {"requestsPerSecond": 5000}}
        rendered = render(
            {"httpIngestion": {"enabled": True}, "ingress": POSTING | {"limits": limits}}, base="production"
        )

        posting, api = (rendered.find("Ingress", component).annotations for component in (HTTP, "platform-api"))
        assert [posting[name] for name in words] == ["900000", "5000", "60"]
        assert [api[name] for name in words] == ["524288", "100", "60"]

    def test_service_sends_to_pods_that_are_ready(self) -> None:
        spec = matrix_render("test").find("Service", HTTP).spec

        assert "clusterIP" not in spec
        assert "publishNotReadyAddresses" not in spec


class TestPublic:
    @every_render
    def test_are_the_api_the_documentation_and_the_http_ingestion_alone(self, name: str) -> None:
        rendered = matrix_render(name)
        allowed = {f"{RELEASE}-{component}" for component in (*PUBLIC, HTTP)}
        for ingress in rendered.of("Ingress").values():
            for rule in ingress.spec["rules"]:
                assert {path["backend"]["service"]["name"] for path in rule["http"]["paths"]} <= allowed
        for service in rendered.of("Service").values():
            assert service.spec.get("type", "ClusterIP") == "ClusterIP"
            assert not service.spec.get("externalIPs")

    def test_hosts_show_no_metrics_by_themselves(self) -> None:
        rendered = matrix_render("production")

        assert "/api/v1" in routes(rendered, "platform-api")
        assert not routes(rendered, "platform-api").keys() & {"/", "/metrics"}
        # All of the documentation's port is public: the metrics are at another one.
        assert routes(rendered, "docs") == {"/": "http"}
        assert rendered.container("docs").environment["SENS_HTTP__METRICS_PORT"].value == "8081"

    def test_hosts_show_metrics_where_the_values_say_so(self) -> None:
        rendered = render({"ingress": {"publicMetrics": True}}, base="production")

        assert routes(rendered, "platform-api")["/metrics"] == "http"
        assert routes(rendered, "docs") == {"/": "http", "/metrics": "metrics"}
        ports = {port["name"]: port["targetPort"] for port in rendered.find("Service", "docs").spec["ports"]}
        assert ports == {"http": "http", "metrics": "metrics"}
        [public] = rendered.find("NetworkPolicy", "docs").spec["ingress"][1:]
        assert [port["port"] for port in public["ports"]] == [8080, 8081]

    def test_hosts_can_do_without_the_data(self) -> None:
        rendered = render({"ingress": {"publicData": False}}, base="production")
        [rule] = rendered.find("Ingress", "platform-api").spec["rules"]

        assert {path["path"] for path in rule["http"]["paths"]} == {"/healthz", "/readyz", "/version", "/test"}

    def test_hosts_have_certificates(self) -> None:
        for name in PUBLIC:
            ingress = matrix_render("production").find("Ingress", name)
            assert ingress.annotations["cert-manager.io/cluster-issuer"] == "production"
            assert ingress.spec["tls"][0]["hosts"] == [ingress.spec["rules"][0]["host"]]

    def test_hosts_serve_nothing_over_plain_http(self) -> None:
        for component in PUBLIC:
            environment = matrix_render("production").container(component).environment
            assert environment["SENS_HTTPS__ONLY"].value == "true"
            assert environment["SENS_HTTPS__HSTS_SECONDS"].value == "31536000"

    def test_hosts_serve_plain_http_where_tls_ends_in_front_of_the_controller(self) -> None:
        rendered = render({"ingress": {"tls": {"only": False, "hstsSeconds": 0}}}, base="production")

        assert rendered.container("docs").environment["SENS_HTTPS__ONLY"].value == "false"
        assert rendered.container("docs").environment["SENS_HTTPS__HSTS_SECONDS"].value == "0"

    def test_hosts_are_bound_to_an_entry_point_by_annotations_of_any_controller(self) -> None:
        given = {"traefik.ingress.kubernetes.io/router.entrypoints": "websecure"}
        rendered = render({"ingress": {"annotations": given}}, base="production")

        assert all(given.items() <= ingress.annotations.items() for ingress in rendered.of("Ingress").values())
        for file in (CHART / "templates").iterdir():
            assert not re.search("traefik|nginx", file.read_text(encoding="utf-8"), re.IGNORECASE), file.name

    def test_hosts_have_limits_in_the_words_of_any_controller(self) -> None:
        words = {
            "a.example/body": "$BODY_BYTES",
            "a.example/rate": "$REQUESTS_PER_SECOND/s",
            "a.example/more": "$CONNECTIONS $SILENT_SECONDS",
        }
        limits = {"bodyBytes": 10_000_000, "requestsPerSecond": 7, "annotations": words}
        rendered = render({"ingress": {"limits": limits, "annotations": {"a.example/more": "mine"}}}, base="production")

        for component in PUBLIC:
            annotations = rendered.find("Ingress", component).annotations
            assert annotations["a.example/body"] == "10000000"
            assert annotations["a.example/rate"] == "7/s"
            assert annotations["a.example/more"] == "mine"

    def test_hosts_have_no_limits_of_a_controller_that_was_not_named(self) -> None:
        names = matrix_render("production").find("Ingress", "platform-api").annotations.keys()

        assert names == {"argocd.argoproj.io/sync-wave", "cert-manager.io/cluster-issuer"}

    @pytest.mark.parametrize("name", ["test", "trial"])
    def test_hosts_that_are_not_there_ask_for_no_https(self, name: str) -> None:
        assert "SENS_HTTPS__ONLY" not in matrix_render(name).container("platform-api").environment

    def test_hosts_take_an_existing_certificate(self) -> None:
        tls = {"issuer": "", "existingSecret": "wildcard"}
        ingress = render({"ingress": {"tls": tls}}, base="production").find("Ingress", "docs")

        assert ingress.spec["tls"][0]["secretName"] == "wildcard"
        assert not [name for name in ingress.annotations if name.startswith("cert-manager")]
