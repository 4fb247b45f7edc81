"""The chart's environment is the services' settings: every name exists, every value is one that the service takes."""

import json
from collections.abc import Iterator
from importlib.util import find_spec

import pytest
from pydantic import BaseModel

from sens_common.logins import ApiLoginSettings, WorkerLoginSettings
from sens_common.moving.run import MoveSettings
from sens_common.settings import DatabaseSettings, ServiceSettings, variable
from sens_docs_site.settings import DocsSiteSettings
from sens_http_ingestion_worker.settings import IngestionSettings as HttpIngestionSettings
from sens_mock_mqtt_broker.settings import MockBrokerSettings
from sens_mqtt_ingestion_worker.settings import IngestionSettings
from sens_platform_api.settings import AdministrationSettings, ApiSettings, ErasureSettings
from sens_telemetry_worker.settings import HistorySettings, TelemetrySettings
from support.chart import RELEASE, Container, Values, every_render, matrix_render, needs_helm, refusal, render

pytestmark = needs_helm


class MigrateSettings(ServiceSettings):
    """What ``python -m sens_common.migrations`` reads."""

    database: DatabaseSettings = DatabaseSettings()
    api_login: ApiLoginSettings = ApiLoginSettings()
    worker_login: WorkerLoginSettings = WorkerLoginSettings()


SETTINGS: dict[str, type[ServiceSettings]] = {
    "platform-api": ApiSettings,
    "docs": DocsSiteSettings,
    "mqtt-ingestion-worker": IngestionSettings,
    "http-ingestion-worker": HttpIngestionSettings,
    "telemetry-worker": TelemetrySettings,
    "mock-mqtt-broker": MockBrokerSettings,
    "migrate": MigrateSettings,
    "move": MoveSettings,
    "test": AdministrationSettings,
}
LOCAL = ["127.0.0.1", "nats://127.0.0.1:4222", "mqtt://127.0.0.1:1883"]


def variables(model: type[BaseModel], groups: tuple[str, ...] = ()) -> Iterator[tuple[str, object]]:
    """Yield every variable with its default."""
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from variables(field.annotation, (*groups, name))
        else:
            yield variable((*groups, name)), field.default


def settings_containers(name: str) -> Iterator[tuple[str, Container]]:
    for manifest, pod in matrix_render(name).pods():
        if manifest.component in SETTINGS:
            for container in pod.containers:
                # Two Jobs are of one component, and told apart by the names of their containers.
                yield container.name if container.name == "move" else manifest.component, container


class TestNames:
    @every_render
    def test_are_all_settings_of_the_service(self, name: str) -> None:
        for component, container in settings_containers(name):
            known = {known for known, _default in variables(SETTINGS[component])}
            given = {given for given in container.environment if given.startswith("SENS_")}
            assert given <= known, component

    @every_render
    def test_cover_what_has_a_default_for_one_machine_only(self, name: str) -> None:
        for component, container in settings_containers(name):
            if component == "test":
                continue
            local = {known for known, default in variables(SETTINGS[component]) if default in LOCAL}
            assert local <= container.environment.keys(), component

    @every_render
    def test_are_set_once(self, name: str) -> None:
        for component, container in settings_containers(name):
            names = [variable.name for variable in container.env]
            assert len(names) == len(set(names)), component

    def test_of_users_may_be_added(self) -> None:
        rendered = render({"telemetry": {"env": {"SENS_BATCH__LANES": "3"}}})

        assert rendered.container("telemetry-worker").environment["SENS_BATCH__LANES"].value == "3"


class TestValues:
    @every_render
    def test_are_taken_by_the_service(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        for component, container in settings_containers(name):
            with monkeypatch.context() as patch:
                for variable_name, entry in container.environment.items():
                    if entry.value is not None:
                        patch.setenv(variable_name, entry.value)
                    elif entry.value_from is not None and entry.value_from.field_ref is not None:
                        patch.setenv(variable_name, f"{RELEASE}-{component}-0")
                    else:
                        patch.setenv(variable_name, "secret")

                SETTINGS[component].load()

    def test_of_secrets_come_from_the_secret(self) -> None:
        for name in ("test", "external everything", "everything on"):
            for component, container in settings_containers(name):
                for entry in container.env:
                    if "PASSWORD" in entry.name or "TOKEN" in entry.name:
                        assert entry.value is None, component
                        assert entry.value_from is not None
                        assert entry.value_from.secret_key_ref is not None

    def test_need_only_one_key_of_the_secret(self) -> None:
        needed = {
            entry.value_from.secret_key_ref.key
            for name in ("test", "production", "external everything")
            for _manifest, pod in matrix_render(name).pods()
            for container in pod.containers
            for entry in container.env
            if entry.value_from and entry.value_from.secret_key_ref and not entry.value_from.secret_key_ref.optional
        }

        assert needed == {"postgres-password"}


class TestIdentity:
    @pytest.mark.parametrize(
        ("component", "setting"),
        [("mqtt-ingestion-worker", "SENS_MQTT__CLIENT_ID"), ("http-ingestion-worker", "SENS_HTTP__PUBLISHER")],
    )
    def test_is_the_name_of_the_pod_which_outlives_it(self, component: str, setting: str) -> None:
        entry = matrix_render("test").container(component).environment[setting]

        assert entry.value_from is not None
        assert entry.value_from.field_ref is not None
        assert entry.value_from.field_ref.field_path == "metadata.name"


def topic_filters(values: Values, base: str = "test") -> list[str]:
    value = (
        render({"ingestion": values}, base=base)
        .container("mqtt-ingestion-worker")
        .environment["SENS_MQTT__TOPIC_FILTERS"]
        .value
    )
    filters: list[str] = json.loads(value or "")
    return filters


class TestSubscriptions:
    @pytest.mark.parametrize("more", [{}, {"replicas": 2}, {"replicas": 0}, {"autoscaling": {"enabled": True}}])
    def test_do_not_change_with_the_number_of_pods(self, more: Values) -> None:
        assert topic_filters(more) == [f"$share/{RELEASE}-{RELEASE}/sens/v1/+/+/telemetry"]

    def test_of_two_installations_at_one_broker_are_two_groups(self) -> None:
        assert topic_filters({}) != topic_filters({"shareGroup": "another"})

    def test_may_be_written_out(self) -> None:
        given = ["$share/a/b/#", "c/+/d"]

        assert topic_filters({"topicFilters": given, "shareGroup": "g"}) == ["$share/a/b/#", "$share/g/c/+/d"]

    def test_can_do_without_sharing_for_a_broker_that_can_not(self) -> None:
        assert topic_filters({"shared": False}) == ["sens/v1/+/+/telemetry"]

    @pytest.mark.parametrize("group", ["a/b", "a+", "#", "a b"])
    def test_have_a_group_that_can_be_one(self, group: str) -> None:
        assert "/ingestion/shareGroup" in refusal({"ingestion": {"shareGroup": group}})


class TestServiceModules:
    def test_that_are_started_by_name_exist(self) -> None:
        commands = [
            container.command
            for component, container in settings_containers("test")
            if component in {"migrate", "move"}
        ]

        assert len(commands) == 2
        for interpreter, option, module in commands:
            assert [interpreter, option] == ["python", "-m"]
            found = find_spec(module)
            assert found is not None
            assert found.submodule_search_locations is None or find_spec(f"{module}.__main__") is not None


class TestHistory:
    def test_of_the_stream_is_what_receipts_of_erasures_count_with(self) -> None:
        history = {"telemetry": {"env": {"SENS_HISTORY__HISTORY_SECONDS": "7200"}}}
        same = {"api": {"env": {"SENS_ERASURE__HISTORY_SECONDS": "7200"}}}

        for values in (history, history | same):
            env = render(values).container("platform-api").env
            assert [each.value for each in env if each.name == "SENS_ERASURE__HISTORY_SECONDS"] == ["7200"]

    def test_has_the_default_that_the_chart_counts_with(self) -> None:
        assert HistorySettings().history_seconds == ErasureSettings().history_seconds == 86_400
