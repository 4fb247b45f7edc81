"""``sens sources``, ``profiles``, ``codecs``, ``devices profile`` and ``decode`` against a running API."""

import io
import json
import sys
from pathlib import Path

import pytest

from support.api import RunningApi, as_owner
from support.command_line import sens

EUI = "70b3d57ed0a1b2c3"
UPLINK = json.dumps(
    [{"devEui": EUI, "timestamp": "2026-09-04T08:00:01Z", "payload": "03670110056700ff", "fPort": "2", "rssi": "-73"}]
)
CODEC = "function decodeUplink(input) { return {data: {a: input.bytes[0]}}; }"
ADD_DEVICE = "INSERT INTO sens.devices (tenant_id, name) SELECT id, $2 FROM sens.tenants WHERE name = $1"


@pytest.fixture
def tenant(api: RunningApi, monkeypatch: pytest.MonkeyPatch) -> str:
    """A new tenant, whose key the commands have."""
    name, key = api.new_tenant()
    monkeypatch.setenv("SENS_API_URL", api.url)
    monkeypatch.setenv("SENS_API_KEY", key)
    return name


def lines(capsys: pytest.CaptureFixture[str]) -> list[list[str]]:
    return [line.split() for line in capsys.readouterr().out.splitlines()]


class TestSources:
    def test_are_made_listed_changed_and_deleted(self, tenant: str, capsys: pytest.CaptureFixture[str]) -> None:
        assert sens("profiles", "create", "climate", "--codec", "cayenne_lpp") == 0
        filters = ("--format", "netmore", "--topic", f"{tenant}/#")
        assert sens("sources", "create", "field", *filters, "--rule", "70b3*=climate") == 0
        assert sens("sources", "create", "field", *filters) == 2
        assert sens("sources", "create", "field2", *filters) == 1
        assert "source field2 with" in capsys.readouterr().err.replace("\n", " ")
        assert sens("sources", "list") == 0
        assert lines(capsys)[1:] == [["field", f"{tenant}/#", "netmore", "-", "1", "-", "unknown"]]
        assert sens("sources", "delete", "field") == 1
        assert "disable it first" in capsys.readouterr().err
        assert sens("sources", "change", "field", "--disable", "--radio", "--json") == 0
        changed = json.loads(capsys.readouterr().out)
        assert (changed["enabled"], changed["radio"], changed["topic_filter"]) == (False, True, f"{tenant}/#")
        assert changed["profile_rules"] == [{"device": "70b3*", "profile": "climate"}]
        assert sens("sources", "show", "field") == 0
        assert ["state", "disabled"] in lines(capsys)
        broker = ("--broker", "mqtts://broker.example.org")
        assert sens("sources", "change", "field", "--rule", "none", *broker) == 0
        capsys.readouterr()
        assert sens("sources", "change", "field", "--topic", "none", "--json") == 0
        posted = json.loads(capsys.readouterr().out)
        assert (posted["transport"], posted["topic_filter"], posted["broker"]) == ("http", None, None)
        assert posted["profile_rules"] == []
        assert sens("sources", "change", "field", "--topic", f"{tenant}/new/#", "--json") == 0
        assert json.loads(capsys.readouterr().out)["transport"] == "mqtt"
        assert sens("sources", "delete", "field") == 0
        assert sens("sources", "show", "field") == 1

    @pytest.mark.usefixtures("tenant")
    def test_have_settings_from_a_file(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        file = tmp_path / "settings.json"
        file.write_text('{"nothing": 1}')
        arguments = ("sources", "create", "push", "--format", "netmore", "--settings", str(file))
        assert sens(*arguments) == 1
        assert "settings of format netmore: nothing" in capsys.readouterr().err
        file.write_text("[")
        assert sens(*arguments) == 2


class TestProfiles:
    @pytest.mark.usefixtures("tenant")
    def test_show_units_as_people_write_them(self, capsys: pytest.CaptureFixture[str]) -> None:
        rule = "temperature_3=temperature,unit=Cel,scale=0.1"
        assert sens("profiles", "create", "climate", "--codec", "cayenne_lpp", "--metric", rule) == 0
        assert ["temperature_3", "temperature", "°C", "-", "0.1", "-"] in lines(capsys)
        assert sens("profiles", "change", "climate", "--metric", "noise=,ignore", "--codec", "none", "--json") == 0
        changed = json.loads(capsys.readouterr().out)
        assert changed["codec"] is None
        assert changed["metrics"] == {
            "noise": {"ignore": True},
            "temperature_3": {"name": "temperature", "unit": "Cel", "scale": 0.1},
        }
        assert sens("profiles", "change", "climate", "--metric", "a=b,size=1") == 2
        assert sens("profiles", "delete", "climate") == 0
        assert sens("profiles", "list") == 0
        assert lines(capsys)[-1] == ["no", "profiles"]

    def test_are_given_to_devices_by_hand(
        self, api: RunningApi, tenant: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        as_owner(api.database, lambda connection: connection.execute(ADD_DEVICE, tenant, EUI))
        assert sens("profiles", "create", "climate") == 0
        assert sens("devices", "profile", EUI, "climate") == 0
        assert sens("profiles", "delete", "climate") == 1
        assert f"device {EUI}" in capsys.readouterr().err
        assert sens("devices", "profile", EUI, "--none", "--json") == 0
        assert json.loads(capsys.readouterr().out) == {"device": EUI, "profile": None}
        assert sens("devices", "profile", EUI) == 0
        assert "no profile by hand" in capsys.readouterr().out


class TestCodecs:
    @pytest.mark.usefixtures("tenant")
    def test_get_versions_from_files(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        source, examples = tmp_path / "codec.js", tmp_path / "examples.json"
        source.write_text(CODEC)
        examples.write_text('[{"bytes": "0a", "fields": {"a": 11}}]')
        assert sens("codecs", "test", str(source), "--examples", str(examples)) == 1
        assert capsys.readouterr().out.startswith("example 1: it gave a: 10")
        assert sens("codecs", "create", "mine", str(source), "--examples", str(examples)) == 1
        assert "example 1: it gave a: 10" in capsys.readouterr().err
        examples.write_text('[{"bytes": "0a", "fields": {"a": 10}}]')
        assert sens("codecs", "test", str(source), "--examples", str(examples)) == 0
        assert capsys.readouterr().out == f"{source} can be saved; examples: 1\n"
        assert sens("codecs", "list", "--json") == 0
        assert json.loads(capsys.readouterr().out) == []
        assert sens("codecs", "create", "mine", str(source), "--examples", str(examples)) == 0
        assert capsys.readouterr().out == "mine@1, for profiles: --codec mine@1\n"
        assert sens("codecs", "show", "mine@1") == 0
        assert capsys.readouterr().out == CODEC + "\n"
        assert sens("profiles", "create", "climate", "--codec", "mine@1") == 0
        assert sens("codecs", "show", "mine") == 0
        assert lines(capsys)[-1][-1] == "climate"
        assert sens("codecs", "delete", "mine@1") == 1
        assert "profile climate uses mine@1" in capsys.readouterr().err
        assert sens("codecs", "show", "mine@x") == 2


class TestDecode:
    def test_shows_each_step_and_ends_with_1_when_one_fails(
        self, tenant: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def decode(body: str, *arguments: str) -> int:
            capsys.readouterr()
            monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(body.encode())))
            return sens("decode", "--source", "field", *arguments)

        sens("sources", "create", "field", "--format", "netmore", "--topic", f"{tenant}/#")
        assert decode(UPLINK) == 1
        assert "naming failed (no_codec): source field hands over bytes" in capsys.readouterr().out
        metric = "temperature_3=temperature,unit=Cel"
        sens("profiles", "create", "climate", "--codec", "cayenne_lpp", "--metric", metric)
        sens("sources", "change", "field", "--profile", "climate")
        assert decode(UPLINK) == 0
        out = lines(capsys)
        assert ["temperature_3", "27.2"] in out
        assert ["temperature", "27.2", "°C"] in out
        assert decode(UPLINK, "--json") == 0
        assert json.loads(capsys.readouterr().out)["uplinks"][0]["device"] == EUI
        assert decode("{") == 1
        assert "unwrapping failed" in capsys.readouterr().out

    def test_reads_several_messages_and_counts_what_becomes_of_them(
        self, tenant: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        sens("profiles", "create", "climate", "--codec", "cayenne_lpp")
        sens("sources", "create", "field", "--format", "netmore", "--topic", f"{tenant}/#", "--profile", "climate")
        event = '{"devEui": "0004a30b001c0530", "deliveryStatus": "ok"}'
        many, one = tmp_path / "many.jsonl", tmp_path / "one.json"
        many.write_text(f"{UPLINK}\n\n{event}\nno message\n")
        one.write_text(UPLINK)
        capsys.readouterr()

        assert sens("decode", "--source", "field", "--lines", str(many), str(one)) == 1
        out = capsys.readouterr().out
        assert [line for line in out.splitlines() if line.startswith(str(tmp_path))] == [
            f"{many}:1",
            f"{many}:3",
            f"{many}:4",
            f"{one}:1",
        ]
        assert out.endswith("\n4 messages: 2 stored, 1 without measurements, 1 refused\n")

        assert sens("decode", "--source", "field", "--json", str(one), str(one)) == 0
        documents = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert [(each["from"], each["refused"]) for each in documents] == [(str(one), False)] * 2

        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\n \n")))
        assert sens("decode", "--source", "field", "--lines") == 2
        assert "all lines are empty" in capsys.readouterr().err

    def test_reads_json_as_the_guide_shows_it(
        self, tenant: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        file = tmp_path / "house.json"
        rule = {"topic": f"{tenant}/{{device}}/SENSOR", "time": "Time", "unusable_time": "receipt"}
        file.write_text(json.dumps({"rules": [rule, {"topic": f"{tenant}/#", "without_measurements": "event"}]}))
        assert sens("profiles", "create", "tasmota", "--metric", "AM2301.Temperature=temperature,unit=Cel") == 0
        house = ("--format", "json", "--topic", f"{tenant}/#", "--settings", str(file), "--profile", "tasmota")
        assert sens("sources", "create", "house", *house) == 0
        body = b'{"Time": "2026-09-04T08:00:01", "AM2301": {"Temperature": 21.5}}'
        for topic, expected in (("kitchen/SENSOR", ["temperature", "21.5", "°C"]), ("kitchen/LWT", None)):
            monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(body)))
            capsys.readouterr()
            assert sens("decode", "--source", "house", "--topic", f"{tenant}/{topic}") == 0
            if expected is None:
                assert "carries no measurements by its nature: event" in capsys.readouterr().out
            else:
                assert expected in lines(capsys)
