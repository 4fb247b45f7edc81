"""Which pod gets which password."""

import pytest

from support.chart import Render, Values, needs_helm, render

pytestmark = needs_helm

OWN = {
    "platform-api": {"postgres-api-password", "nats-api-password"},
    "mqtt-ingestion-worker": {"nats-ingestion-password"},
    "http-ingestion-worker": {"nats-http-ingestion-password"},
    "telemetry-worker": {"postgres-worker-password", "nats-telemetry-password"},
    "migrate": {"postgres-api-password", "postgres-worker-password"},
    "nats": {f"nats-{who}-password" for who in ("administrator", "api", "ingestion", "http-ingestion", "telemetry")},
}
ALL = set().union(*OWN.values())


def keys(rendered: Render, component: str, *, optional: bool) -> set[str]:
    """Return the keys of the secret that a component's pods read."""
    return {
        entry.value_from.secret_key_ref.key
        for manifest, pod in rendered.pods()
        if manifest.component == component
        for container in pod.containers
        for entry in container.env
        if entry.value_from and entry.value_from.secret_key_ref
        if bool(entry.value_from.secret_key_ref.optional) == optional
    }


class TestWithCredentialsOfEachServicesOwn:
    def test_each_pod_gets_those_that_it_needs(self) -> None:
        rendered = render({"perServiceCredentials": True})

        assert {component: keys(rendered, component, optional=False) & ALL for component in OWN} == OWN
        assert not any(keys(rendered, component, optional=True) & ALL for component in OWN)

    def test_the_owners_password_is_in_no_workers_pod(self) -> None:
        rendered = render({"perServiceCredentials": True})

        having = {
            manifest.component
            for manifest, _pod in rendered.pods()
            if "postgres-password" in keys(rendered, manifest.component, optional=False)
        }
        # The administration command runs in the API's pod, as the owner.
        assert having == {"timescaledb", "migrate", "platform-api", "test"}

    def test_a_trial_makes_them(self) -> None:
        trial = {
            "existingSecret": "",
            "trialSecret": {"enabled": True, "postgresPassword": "only for a trial"},
        }
        made = render(trial).find("Secret", "trial").document["stringData"]

        assert set(made) == ALL | {"postgres-password"}
        assert len(set(made.values())) == len(made)
        assert all(len(value) >= 16 for value in made.values())

    def test_the_one_of_the_http_ingestion_is_needed_with_it_alone(self) -> None:
        rendered = render({"perServiceCredentials": True, "httpIngestion": {"enabled": False}})

        assert keys(rendered, "nats", optional=False) == OWN["nats"] - OWN["http-ingestion-worker"]
        assert "http-ingestion" not in rendered.find("ConfigMap", "nats").document["data"]["nats.conf"]


class TestWithoutThem:
    def test_logins_are_used_where_the_secret_has_them(self) -> None:
        rendered = render({})

        for component in ("platform-api", "telemetry-worker", "migrate"):
            assert keys(rendered, component, optional=False) == {"postgres-password"}
            wanted = {key for key in OWN[component] if key.startswith("postgres")}
            assert wanted <= keys(rendered, component, optional=True)

    def test_nats_asks_for_nothing(self) -> None:
        assert "authorization" not in render({}).find("ConfigMap", "nats").document["data"]["nats.conf"]

    @pytest.mark.parametrize(
        "values",
        [{"perServiceCredentials": False}, {"perServiceCredentials": False, "nats": {"requireToken": True}}],
        ids=["none", "a token"],
    )
    def test_none_is_read_where_the_values_say_so(self, values: Values) -> None:
        rendered = render(values)

        assert not any(
            keys(rendered, component, optional=optional) & ALL for component in OWN for optional in (True, False)
        )

    def test_a_role_of_an_administrators_goes_before_ours(self) -> None:
        rendered = render({"perServiceCredentials": True, "api": {"databaseUser": "their_api"}})

        assert "api-password" in keys(rendered, "platform-api", optional=False)
        assert "postgres-api-password" not in keys(rendered, "migrate", optional=False)
