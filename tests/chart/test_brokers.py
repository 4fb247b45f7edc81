"""Brokers of tenants' own in the chart: which may be reached, and where their credentials are."""

from support.chart import Render, needs_helm, refusal, render

pytestmark = needs_helm

CREDENTIALS = [
    {"tenant": "acme", "name": "netmore", "secret": "acme-netmore"},
    {"tenant": "plant.north", "name": "house", "secret": "house"},
]
VALUES = {"brokers": {"allowedHosts": ["broker.example.org:8883", "*.example.net:1883"], "credentials": CREDENTIALS}}


class TestCredentials:
    def test_are_mounted_in_a_folder_of_their_tenant_and_may_be_missing(self) -> None:
        spec = render(VALUES).find("StatefulSet", "mqtt-ingestion-worker").spec["template"]["spec"]

        mounts = {mount["mountPath"]: mount for mount in spec["containers"][0]["volumeMounts"]}
        volumes = {volume["name"]: volume for volume in spec["volumes"]}
        for credential in CREDENTIALS:
            mount = mounts[f"/etc/sens/brokers/{credential['tenant']}/{credential['name']}"]
            assert mount["readOnly"]
            assert volumes[mount["name"]]["secret"] == {"secretName": credential["secret"], "optional": True}

    def test_are_given_to_nobody_else(self) -> None:
        for manifest in render(VALUES).manifests:
            if manifest.component != "mqtt-ingestion-worker":
                assert "acme-netmore" not in str(manifest.document)

    def test_with_the_same_name_are_refused(self) -> None:
        said = refusal({"brokers": {"credentials": [CREDENTIALS[0], CREDENTIALS[0]]}})

        assert "tenant acme has two credentials named netmore" in said

    def test_that_would_lie_elsewhere_are_refused(self) -> None:
        said = refusal({"brokers": {"credentials": [{"tenant": "..", "name": "x", "secret": "x"}]}})

        assert "'/brokers/credentials/0/tenant'" in said


def settings(rendered: Render) -> dict[str, str | None]:
    """Return the worker's variables that have a value."""
    (container,) = rendered.find("StatefulSet", "mqtt-ingestion-worker").spec["template"]["spec"]["containers"]
    return {each["name"]: each.get("value") for each in container["env"]}


class TestAllowedHosts:
    def test_are_told_the_worker_and_opened_at_their_ports(self) -> None:
        rendered = render(VALUES)

        assert settings(rendered)["SENS_BROKERS__ALLOWED_HOSTS"] == '["broker.example.org:8883","*.example.net:1883"]'
        egress = rendered.find("NetworkPolicy", "mqtt-ingestion-worker").spec["egress"]
        assert {"ports": [{"protocol": "TCP", "port": 1883}, {"protocol": "TCP", "port": 8883}]} in egress

    def test_lead_to_the_peers_that_are_named(self) -> None:
        peer = {"ipBlock": {"cidr": "192.0.2.0/24"}}
        rendered = render({"brokers": {"allowedHosts": ["nas.local:*"]}, "networkPolicy": {"brokersTo": [peer]}})

        assert {"to": [peer]} in rendered.find("NetworkPolicy", "mqtt-ingestion-worker").spec["egress"]

    def test_are_none_by_default(self) -> None:
        rendered = render({})

        assert "SENS_BROKERS__ALLOWED_HOSTS" not in settings(rendered)
        assert {} not in rendered.find("NetworkPolicy", "mqtt-ingestion-worker").spec["egress"]

    def test_without_a_port_are_refused(self) -> None:
        assert "'/brokers/allowedHosts/0'" in refusal({"brokers": {"allowedHosts": ["broker.example.org"]}})
