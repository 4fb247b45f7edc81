"""What devices and programs publish, in the shapes that their documentation has, through presets and rules."""

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sens_common.errors import RejectedMessageError
from sens_payloads.formats import json as json_format
from sens_payloads.formats.presets import PRESETS
from sens_payloads.uplinks import Received, Uplink, WithoutMeasurements

VECTORS: dict[str, Any] = json.loads((Path(__file__).parent / "vectors" / "json_devices.json").read_text())
RECEIVED_AT = round(datetime.fromisoformat(VECTORS["received_at"]).timestamp()) * 1_000_000
THINGSBOARD = json_format.Settings.model_validate(
    {"rules": [{"topic": "v1/devices/me/telemetry", "device": "d1", "time": "ts", "values": "values"}]}
)
SETTINGS = {
    "Tasmota": PRESETS["tasmota"].settings,
    "Shelly Gen1": PRESETS["shelly_gen1"].settings,
    "Shelly Gen2": PRESETS["shelly"].settings,
    "Zigbee2MQTT": PRESETS["zigbee2mqtt"].settings,
    "ESPHome": PRESETS["esphome"].settings,
    "ThingsBoard": THINGSBOARD,
    "Home Assistant": PRESETS["home_assistant"].settings,
}


def settings_of(case: dict[str, Any]) -> json_format.Settings:
    return next(settings for start, settings in SETTINGS.items() if case["name"].startswith(start))


def instant(text: str) -> int:
    moment = datetime.fromisoformat(text)
    return round(moment.timestamp() * 1_000_000)


@pytest.mark.parametrize("case", VECTORS["cases"], ids=[case["name"] for case in VECTORS["cases"]])
def test_vector(case: dict[str, Any]) -> None:
    received = Received(case["body"].encode(), RECEIVED_AT, case["topic"])
    found = json_format.unwrap(received, settings_of(case))
    if "ignored" in case:
        assert found == WithoutMeasurements(case["ignored"])
        return
    assert not isinstance(found, WithoutMeasurements)
    assert [
        (uplink.device, RECEIVED_AT if uplink.measured_at is None else uplink.measured_at, dict(uplink.fields or {}))
        for uplink in found
    ] == [
        # The vector has the friendly name; a device can't have a space in its name.
        (uplink["device"].replace(" ", "_"), instant(uplink["time"]), uplink["fields"])
        for uplink in case["uplinks"]
    ]


def one(preset: str, topic: str, body: bytes | str) -> Uplink:
    raw = body if isinstance(body, bytes) else body.encode()
    found = json_format.unwrap(Received(raw, RECEIVED_AT, topic), PRESETS[preset].settings)
    assert isinstance(found, list)
    assert len(found) == 1
    return found[0]


def kind(preset: str, topic: str, body: bytes) -> str:
    found = json_format.unwrap(Received(body, RECEIVED_AT, topic), PRESETS[preset].settings)
    assert isinstance(found, WithoutMeasurements)
    return found.kind


class TestTasmota:
    def test_takes_the_time_that_has_an_offset(self) -> None:
        uplink = one(
            "tasmota", "tele/plug/STATE", '{"Time":"2026-09-04T10:00:00+02:00","POWER":"ON","Wifi":{"RSSI":44}}'
        )
        assert uplink == Uplink("plug", RECEIVED_AT - 9_000_000, {"POWER": "ON", "Wifi.RSSI": 44})

    def test_takes_the_receipt_while_the_clock_is_not_set(self) -> None:
        uplink = one("tasmota", "tele/plug/STATE", '{"Time":"1970-01-01T00:00:11+00:00","UptimeSec":11}')
        assert uplink == Uplink("plug", None, {"UptimeSec": 11})

    def test_answers_and_commands_are_no_measurements(self) -> None:
        assert kind("tasmota", "stat/plug/RESULT", b'{"POWER":"ON"}') == "event"
        assert kind("tasmota", "cmnd/plug/POWER", b"TOGGLE") == "command"


class TestShelly:
    def test_reads_a_message_before_the_clock_is_set(self) -> None:
        body = '{"src":"s","dst":"s/events","method":"NotifyFullStatus","params":{"ts":null,"temperature:0":{"id":0,"tC":19.8},"ble":{}}}'
        assert one("shelly", "s/events/rpc", body) == Uplink(
            "s", None, {"temperature:0.id": 0, "temperature:0.tC": 19.8}
        )

    def test_events_are_no_measurements(self) -> None:
        body = b'{"src":"s","method":"NotifyEvent","params":{"ts":1788508800,"events":[{"component":"input:0","event":"single_push"}]}}'
        assert kind("shelly", "s/events/rpc", body) == "event"
        assert kind("shelly", "s/online", b"true") == "event"

    def test_may_have_a_prefix_that_all_devices_share(self) -> None:
        assert one("shelly", "shelly/boiler/status/switch:0", '{"apower":936.5}') == Uplink(
            "boiler", None, {"switch:0.apower": 936.5}
        )
        assert kind("shelly", "shelly/boiler/online", b"true") == "event"

    def test_joins_the_levels_of_the_first_generation(self) -> None:
        assert one("shelly_gen1", "shellies/shelly1pm-1/relay/0/power", "61.4").fields == {"relay.0.power": 61.4}
        assert one("shelly_gen1", "shellies/shelly1pm-1/relay/0", "on").fields == {"relay.0": "on"}
        assert one("shelly_gen1", "shellies/s/input_event/0", '{"event":"S","event_cnt":2}').fields == {
            "input_event.0.event": "S",
            "input_event.0.event_cnt": 2,
        }

    def test_commands_to_the_first_generation_are_no_measurements(self) -> None:
        assert kind("shelly_gen1", "shellies/s/relay/0/command", b"on") == "command"
        assert kind("shelly_gen1", "shellies/s/online", b"true") == "event"
        assert kind("shelly_gen1", "shellies/announce", b"{}") == "event"


class TestZigbee2Mqtt:
    def test_a_friendly_name_may_have_slashes(self) -> None:
        uplink = one("zigbee2mqtt", "zigbee2mqtt/Küche/Lampe 1", '{"state":"ON","brightness":215}')
        assert uplink == Uplink("Kuche_Lampe_1", None, {"state": "ON", "brightness": 215})

    def test_an_address_stays(self) -> None:
        assert one("zigbee2mqtt", "zigbee2mqtt/0x00158d00018255df", '{"occupancy":true}').device == "0x00158d00018255df"

    def test_commands_are_no_measurements(self) -> None:
        assert kind("zigbee2mqtt", "zigbee2mqtt/a/b/set", b'{"state":"ON"}') == "command"
        assert kind("zigbee2mqtt", "zigbee2mqtt/a/set/state", b"ON") == "command"
        assert kind("zigbee2mqtt", "zigbee2mqtt/bridge/devices", b"[]") == "event"

    def test_nothing_but_null_is_no_measurement(self) -> None:
        assert kind("zigbee2mqtt", "zigbee2mqtt/lamp", b'{"state":null}') == "event"


class TestEspHome:
    def test_reads_a_light(self) -> None:
        uplink = one("esphome", "desk/light/lamp/state", '{"state":"ON","brightness":255,"color":{"r":1}}')
        assert uplink.fields == {"lamp.state": "ON", "lamp.brightness": 255, "lamp.color.r": 1}

    def test_reads_values_of_a_climate(self) -> None:
        assert one("esphome", "desk/climate/room/current_temperature/state", "20.5").fields == {
            "room.current_temperature": 20.5
        }

    def test_may_have_a_prefix_that_all_devices_share(self) -> None:
        found = one("esphome", "esphome/greenhouse/sensor/air/state", "21.5")
        assert found == Uplink("greenhouse", None, {"air": 21.5})
        assert kind("esphome", "esphome/greenhouse/status", b"online") == "event"

    def test_its_log_is_no_measurement(self) -> None:
        assert kind("esphome", "desk/debug", b"\x1b[0;36m[D][sensor]\x1b[0m") == "event"
        assert kind("esphome", "desk/status", b"online") == "event"


class TestHomeAssistant:
    def test_reads_states_and_attributes(self) -> None:
        assert one("home_assistant", "homeassistant/sensor/kitchen_temperature/state", "21.5") == Uplink(
            "sensor.kitchen_temperature", None, {"state": 21.5}
        )
        assert one("home_assistant", "homeassistant/climate/room/preset_mode", '"eco"').fields == {"preset_mode": "eco"}
        assert one("home_assistant", "homeassistant/light/desk/rgb_color", "[255,0,12]").fields == {
            "rgb_color.0": 255,
            "rgb_color.1": 0,
            "rgb_color.2": 12,
        }

    @pytest.mark.parametrize("state", [b"unavailable", b"unknown", b"None"])
    def test_no_state_is_no_measurement(self, state: bytes) -> None:
        assert kind("home_assistant", "homeassistant/sensor/a/state", state) == "event"

    def test_descriptions_are_no_measurements(self) -> None:
        assert kind("home_assistant", "homeassistant/sensor/a/unit_of_measurement", '"°C"'.encode()) == "event"
        assert kind("home_assistant", "homeassistant/sensor/node/x1/config", b"{}") == "event"


class TestRtl433:
    def test_names_the_device_by_what_it_says(self) -> None:
        body = '{"time":"2026-09-04T10:00:00+0200","model":"Acurite-Tower","id":1234,"channel":"A","battery_ok":1,"temperature_C":21.5,"mic":"CHECKSUM"}'
        assert one("rtl_433", "rtl_433/host/events", body) == Uplink(
            "Acurite-Tower-A-1234", RECEIVED_AT - 9_000_000, {"battery_ok": 1, "temperature_C": 21.5}
        )

    def test_leaves_out_what_a_sensor_does_not_say(self) -> None:
        body = '{"time":"2026-09-04 08:00:00","model":"LaCrosse TX","id":7,"humidity":40}'
        assert one("rtl_433", "rtl_433/host/events", body) == Uplink("LaCrosse_TX-7", None, {"humidity": 40})

    def test_reads_a_time_in_seconds(self) -> None:
        body = '{"time":"1788508800.25","model":"M","humidity":40}'
        assert one("rtl_433", "rtl_433/host/events", body).measured_at == 1_788_508_800_250_000

    def test_the_same_values_again_are_no_measurements(self) -> None:
        assert kind("rtl_433", "rtl_433/host/devices/M/7/humidity", b"40") == "event"


class TestVictron:
    def test_reads_a_value(self) -> None:
        uplink = one("victron", "N/c0619ab1234/solarcharger/279/Dc/0/Voltage", '{"value":20.43,"max":48}')
        assert uplink == Uplink("c0619ab1234-solarcharger-279", None, {"Dc.0.Voltage": 20.43})

    def test_no_value_is_no_measurement(self) -> None:
        assert kind("victron", "N/p/pvinverter/20/Ac/L2/Power", b'{"value": null}') == "event"
        assert kind("victron", "N/p/pvinverter/20/Ac/L2/Power", b"") == "event"
        assert kind("victron", "N/p/full_publish_completed", b'{"value":1702459522}') == "event"
        assert kind("victron", "N/p/settings/0/Settings/LEDs/Enable", b'{"value":1}') == "event"


class TestOwnTracks:
    def test_reads_a_location(self) -> None:
        body = '{"_type":"location","tid":"JP","tst":1788508800,"lat":52.5,"lon":13.4,"acc":75,"inregions":["home"]}'
        assert one("owntracks", "owntracks/jane/phone", body) == Uplink(
            "jane-phone",
            1_788_508_800_000_000,
            {"tid": "JP", "lat": 52.5, "lon": 13.4, "acc": 75, "inregions.0": "home"},
        )

    def test_other_messages_are_no_measurements(self) -> None:
        assert kind("owntracks", "owntracks/jane/phone", b'{"_type":"lwt","tst":1}') == "event"
        assert kind("owntracks", "owntracks/jane/phone/event", b'{"_type":"transition"}') == "event"
        assert kind("owntracks", "owntracks/jane/phone/cmd", b'{"_type":"cmd"}') == "command"

    def test_refuses_what_is_encrypted(self) -> None:
        with pytest.raises(RejectedMessageError, match="no rule of the source fits the message: _type is location or"):
            one("owntracks", "owntracks/jane/phone", '{"_type":"encrypted","data":"x"}')


class TestPresets:
    def test_each_is_named_and_described(self) -> None:
        for name, preset in PRESETS.items():
            assert name == preset.name
            assert preset.title
            assert preset.description.endswith(".")
            assert preset.filters

    def test_each_survives_being_stored(self) -> None:
        for preset in PRESETS.values():
            assert json_format.Settings.model_validate_json(preset.settings.model_dump_json()) == preset.settings


@st.composite
def mutated(draw: st.DrawFn) -> tuple[bytes, str, json_format.Settings]:
    case = draw(st.sampled_from(VECTORS["cases"]))
    body = bytearray(case["body"].encode())
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(body)))
        body[at : at + draw(st.integers(0, 3))] = draw(
            st.sampled_from(
                [b"", b"0", b"9" * 25, b'"', b"{", b"}", b"[", b"]", b":", b",", b"\\u003a", b"\xff", b"-", b"e9"]
            )
        )
    return bytes(body), case["topic"], settings_of(case)


class TestAnyBytes:
    @given(mutated())
    def test_mutated_vectors_give_uplinks_or_a_rejection(
        self, example: tuple[bytes, str, json_format.Settings]
    ) -> None:
        body, topic, settings = example
        try:
            found = json_format.unwrap(Received(body, RECEIVED_AT, topic), settings)
        except RejectedMessageError:
            return
        assert isinstance(found, WithoutMeasurements) or all(uplink.fields for uplink in found)

    @given(st.binary(max_size=200), st.sampled_from(sorted(PRESETS)), st.text("a/#+{}é\0", max_size=12))
    def test_any_bytes_on_any_topic_do(self, body: bytes, preset: str, topic: str) -> None:
        try:
            json_format.unwrap(Received(body, RECEIVED_AT, topic), PRESETS[preset].settings)
        except RejectedMessageError:
            return
