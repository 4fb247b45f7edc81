"""Presets for devices and their firmware: Tasmota, Shelly, ESPHome, OwnTracks."""

from typing import Final

from sens_payloads.formats.json import Settings
from sens_payloads.formats.json_settings import Rule
from sens_payloads.formats.preset import Preset

_TASMOTA: Final = Preset(
    name="tasmota",
    title="Tasmota",
    description=(
        "Telemetry of Tasmota with the FullTopic %prefix%/%topic%/. Device: the Topic. Time: its own where it has an offset (SetOption52 1),"
        " else the receipt. Answers to commands and whether it is online are counted as events."
    ),
    filters=("tele/#",),
    # Tasmota documentation, "MQTT" (telemetry, FullTopic, prefixes) and "Commands" (SetOption52, TelePeriod).
    settings=Settings(
        rules=(
            Rule(topic="tele/{device}/SENSOR", other_characters="replace", time="Time", unusable_time="receipt"),
            Rule(topic="tele/{device}/STATE", other_characters="replace", time="Time", unusable_time="receipt"),
            Rule(topic="tele/#", without_measurements="event"),
            Rule(topic="stat/#", without_measurements="event"),
            Rule(topic="cmnd/#", without_measurements="command"),
        )
    ),
)

_SHELLY_GEN1: Final = Preset(
    name="shelly_gen1",
    title="Shelly, first generation",
    description=(
        "One value a message. Device: the level after shellies. Metric: the last level of a sensor, of all else the levels joined with dots:"
        " relay.0.power. Energy of relays is in watt-minutes, as the device sends it. online, announce and info are counted as events."
    ),
    filters=("shellies/#",),
    # Shelly API documentation, Gen1, "MQTT" of each device: shellies/<id>/relay/<i>, …/power, …/energy, sensor/<quantity>, online, command.
    settings=Settings(
        rules=(
            Rule(topic="shellies/announce", without_measurements="event"),
            Rule(topic="shellies/command", without_measurements="command"),
            Rule(topic="shellies/+/online", without_measurements="event"),
            Rule(topic="shellies/+/announce", without_measurements="event"),
            Rule(topic="shellies/+/info", without_measurements="event"),
            Rule(topic="shellies/{path...}/command", without_measurements="command"),
            Rule(topic="shellies/{path...}/set", without_measurements="command"),
            Rule(topic="shellies/{device}/sensor/{metric}", other_characters="replace"),
            Rule(topic="shellies/{device}/{metric...}", other_characters="replace"),
        )
    ),
)


def _shelly(before: str) -> tuple[Rule, ...]:
    """Return the rules of devices in whose topics something is before their names."""
    return (
        Rule(topic=f"{before}{{device}}/status/{{metric}}", other_characters="replace"),
        Rule(
            topic=f"{before}{{device}}/events/rpc",
            when={"method": ["NotifyStatus", "NotifyFullStatus"]},
            other_characters="replace",
            values="params",
            time="params.ts",
            time_unit="s",
            unusable_time="receipt",
        ),
        Rule(topic=f"{before}+/events/rpc", without_measurements="event"),
        Rule(topic=f"{before}+/online", without_measurements="event"),
        Rule(topic=f"{before}+/debug/#", without_measurements="event"),
        Rule(topic=f"{before}+/rpc", without_measurements="command"),
        Rule(topic=f"{before}+/command/#", without_measurements="command"),
    )


_SHELLY: Final = Preset(
    name="shelly",
    title="Shelly, second generation and later",
    description=(
        "Status of components and notifications. Device: the topic prefix, without shelly/ before it. Metrics: component and member,"
        " switch:0.apower. A device with both options on sends its values twice, with the receipt's and with its own time: RPC notifications"
        " have the latter, so switch «generic status update» off. Events, answers and whether it is online are counted as events."
    ),
    filters=("+/status/+", "+/events/rpc"),
    # Shelly API documentation, Gen2, "MQTT" (status_ntf, rpc_ntf, online) and "Notifications" (NotifyStatus, NotifyFullStatus, ts).
    settings=Settings(
        rules=(
            *_shelly("shelly/"),
            *_shelly(""),
        )
    ),
)

_ESPHOME: Final = Preset(
    name="esphome",
    title="ESPHome",
    description=(
        "One value a message, lights as objects. Device: the topic prefix, without esphome/ before it. Metric: the entity's name. nan, which a"
        " sensor without a value sends, is no value. Whether it is online and its log are counted as events."
    ),
    filters=("+/+/+/state",),
    # ESPHome documentation, "MQTT Client Component": <topic_prefix>/<component>/<name>/state, …/command, status, debug.
    settings=Settings(
        rules=(
            Rule(topic="esphome/{device}/+/{metric...}/state", other_characters="replace", no_value=("nan", "unknown")),
            Rule(topic="{device}/+/{metric...}/state", other_characters="replace", no_value=("nan", "unknown")),
            Rule(topic="esphome/+/status", without_measurements="event"),
            Rule(topic="esphome/+/debug", without_measurements="event"),
            Rule(topic="esphome/+/+/{path...}/command", without_measurements="command"),
            Rule(topic="+/status", without_measurements="event"),
            Rule(topic="+/debug", without_measurements="event"),
            Rule(topic="+/+/{path...}/command", without_measurements="command"),
        )
    ),
)

_OWNTRACKS_EVENTS: Final = [
    "beacon",
    "card",
    "configuration",
    "dump",
    "lwt",
    "request",
    "status",
    "steps",
    "transition",
    "waypoint",
    "waypoints",
]

_OWNTRACKS: Final = Preset(
    name="owntracks",
    title="OwnTracks",
    description=(
        "Locations of telephones. Device: user and device, joined with a hyphen. Time: tst. Regions entered and left, and all else but"
        " locations, are counted as events. Encrypted messages can't be read and are refused."
    ),
    filters=("owntracks/#",),
    # OwnTracks Booklet, "JSON": topics, _type, tst in seconds.
    settings=Settings(
        rules=(
            Rule(
                topic="owntracks/{user}/{phone}",
                when={"_type": ["location"]},
                device="{user}-{phone}",
                other_characters="replace",
                time="tst",
                time_unit="s",
                skip=("_type", "_id"),
            ),
            Rule(topic="owntracks/+/+", when={"_type": _OWNTRACKS_EVENTS}, without_measurements="event"),
            Rule(topic="owntracks/+/+/cmd", without_measurements="command"),
            Rule(topic="owntracks/+/+/+", without_measurements="event"),
        )
    ),
)

PRESETS: Final = (_TASMOTA, _SHELLY, _SHELLY_GEN1, _ESPHOME, _OWNTRACKS)
