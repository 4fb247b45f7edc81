"""Which sessions sources need, and what a credential's files have to hold."""

import os
import tracemalloc
from pathlib import Path

import pytest

from sens_common.brokers import Broker
from sens_common.health import Problems
from sens_common.tenant_limits import MqttSource
from sens_mqtt_ingestion_worker.brokers.credentials import CredentialFolder
from sens_mqtt_ingestion_worker.brokers.opening import publisher_of
from sens_mqtt_ingestion_worker.brokers.plans import plans
from sens_mqtt_ingestion_worker.pipeline import SourceUnavailableError
from sens_mqtt_ingestion_worker.source_routes import TenantRoutes

BROKER = Broker("mqtts://broker.example.org", credential="one")
ALLOWED = ["broker.example.org:8883"]


class TestPlans:
    def test_share_a_session_where_the_broker_is_the_same(self) -> None:
        sources = {
            "demo": [MqttSource("a", "a/#", BROKER), MqttSource("b", "b/#", BROKER), MqttSource("c", "c/#")],
            "acme": [MqttSource("a", "a/#", BROKER)],
        }
        found = plans(sources, ALLOWED)
        assert sorted((plan.tenant, [each.name for each in plan.sources]) for plan in found.sessions.values()) == [
            ("acme", ["a"]),
            ("demo", ["a", "b"]),
        ]
        assert len({publisher_of(plan) for plan in found.sessions.values()}) == 2
        assert found.refused == {}

    def test_have_different_words_for_two_sessions_at_one_broker(self) -> None:
        other = Broker("mqtts://broker.example.org", client_id="second")
        found = plans({"demo": [MqttSource("a", "a/#", BROKER), MqttSource("b", "b/#", other)]}, ALLOWED)
        assert {plan.words for plan in found.sessions.values()} == {
            "broker broker.example.org:8883 of tenant demo",
            "broker broker.example.org:8883 of tenant demo as second",
        }

    def test_refuse_the_second_of_two_that_want_one_session_differently(self) -> None:
        other = Broker("mqtts://broker.example.org:8883", credential="two")
        found = plans({"demo": [MqttSource("b", "b/#", other), MqttSource("a", "a/#", BROKER)]}, ALLOWED)
        (plan,) = found.sessions.values()
        assert [each.name for each in plan.sources] == ["a"]
        assert found.refused["demo"]["b"].detail.startswith("source a has the same session")

    def test_take_no_room_for_brokers_that_are_not_allowed(self) -> None:
        found = plans({"demo": [MqttSource("a", "a/#", BROKER)]}, ["broker.example.org:1883"])
        assert found.sessions == {}
        assert found.refused["demo"]["a"].reason == "host_not_allowed"


class TestRoutes:
    def test_give_a_broker_of_a_tenant_no_word_for_others(self) -> None:
        routes = TenantRoutes("demo", Problems("brokers"))
        routes.set({"demo": [MqttSource("house", "tele/#"), MqttSource("rest", "sens/v1/+/+/telemetry")]})
        assert routes.topic("tele/x") == "ingest/v1/demo/house/tele/x"
        assert routes.topic("sens/v1/acme/d1/telemetry") == "ingest/v1/demo/rest/sens/v1/acme/d1/telemetry"
        assert routes.topic("ingest/v1/acme/x/y") == "ingest/v1/demo/house/ingest/v1/acme/x/y"
        assert routes.states(1.0)["demo"]["house"].messages == 2

    def test_remember_no_more_topics_than_fit_however_long_a_broker_makes_them(self) -> None:
        routes = TenantRoutes("demo", Problems("brokers"))
        routes.set({"demo": [MqttSource("house", "tele/#")]})
        tracemalloc.start()
        try:
            for number in range(200):
                routes.topic(f"tele/{number}/".ljust(60_000, "x"))
            kept, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert kept < 4 << 20
        assert routes.states(1.0)["demo"]["house"].messages == 200


class TestCredential:
    @pytest.mark.parametrize(
        ("files", "why"),
        [
            ({}, "is empty: "),
            ({"password": b"x"}, "has a password and no user: "),
            ({"tls.key": b"x"}, "tls.crt is missing"),
            ({"username": b"\xff"}, "have to be text"),
            ({"username": b"x" * 300_000}, "more than 262,144 bytes"),
        ],
    )
    def test_that_can_not_be_used_is_named_without_its_contents(
        self, tmp_path: Path, files: dict[str, bytes], why: str
    ) -> None:
        folder = tmp_path / "demo" / "one"
        folder.mkdir(parents=True)
        for name, content in files.items():
            (folder / name).write_bytes(content)
        with pytest.raises(SourceUnavailableError, match=why) as caught:
            CredentialFolder(str(tmp_path), "demo", "one").read()
        assert caught.value.reason == "credential_missing"

    def test_is_what_its_files_hold_and_shows_nothing(self, tmp_path: Path) -> None:
        (tmp_path / "demo" / "one").mkdir(parents=True)
        (tmp_path / "demo" / "one" / "username").write_text("me\n")
        (tmp_path / "demo" / "one" / "password").write_text("hidden\r\n")
        credential = CredentialFolder(str(tmp_path), "demo", "one").read()
        assert (credential.username, credential.password) == ("me", "hidden")
        assert "hidden" not in repr(credential)

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
    def test_that_may_not_be_read_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "demo" / "one").mkdir(parents=True)
        (tmp_path / "demo").chmod(0)
        with pytest.raises(SourceUnavailableError, match="one can't be read: Permission denied"):
            CredentialFolder(str(tmp_path), "demo", "one").read()

    def test_whose_folder_can_not_be_looked_at_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "demo").symlink_to("demo")
        with pytest.raises(SourceUnavailableError, match="one can't be read: Too many levels") as caught:
            CredentialFolder(str(tmp_path), "demo", "one").read()
        assert caught.value.reason == "credential_missing"

    def test_of_another_tenant_is_not_there(self, tmp_path: Path) -> None:
        (tmp_path / "acme" / "one").mkdir(parents=True)
        with pytest.raises(SourceUnavailableError, match="there is no folder"):
            CredentialFolder(str(tmp_path), "demo", "one").read()
