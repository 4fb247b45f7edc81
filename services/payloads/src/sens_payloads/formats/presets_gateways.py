"""Presets for programs that speak for many devices: Zigbee2MQTT, Home Assistant, rtl_433, Victron."""

from typing import Final

from sens_payloads.formats.json import Settings
from sens_payloads.formats.json_settings import Rule
from sens_payloads.formats.preset import Preset

_ZIGBEE2MQTT: Final = Preset(
    name="zigbee2mqtt",
    title="Zigbee2MQTT",
    description=(
        "State of devices. Device: the friendly name, in which other characters than a device may have become an underscore. Time: the receipt;"
        " last_seen is a text. Needs the setting «output: json», which is the default. The bridge's topics and availability are counted as"
        " events."
    ),
    filters=("zigbee2mqtt/#",),
    # Zigbee2MQTT documentation, "MQTT Topics and Messages": FRIENDLY_NAME (which may have slashes), …/availability, …/set, …/get, bridge/….
    settings=Settings(
        rules=(
            Rule(topic="zigbee2mqtt/bridge/#", without_measurements="event"),
            Rule(topic="zigbee2mqtt/{path...}/availability", without_measurements="event"),
            Rule(topic="zigbee2mqtt/{path...}/set/#", without_measurements="command"),
            Rule(topic="zigbee2mqtt/{path...}/get/#", without_measurements="command"),
            Rule(topic="zigbee2mqtt/{device...}", other_characters="replace"),
        )
    ),
)

# Home Assistant's developer documentation, "Entity" and "Sensor entity": attributes that say what an entity is, not what it measures.
_DESCRIPTIONS: Final = (
    "assumed_state",
    "attribution",
    "config",
    "device_class",
    "entity_picture",
    "friendly_name",
    "icon",
    "last_changed",
    "last_updated",
    "options",
    "state_class",
    "supported_features",
    "unit_of_measurement",
)

_HOME_ASSISTANT: Final = Preset(
    name="home_assistant",
    title="Home Assistant, MQTT Statestream",
    description=(
        "States of entities and, where they are published, their attributes. Device: the entity, such as sensor.kitchen. Metric: state, or the"
        " attribute's name. unknown and unavailable are no value. Discovery messages, and attributes that describe an entity, are counted"
        " as events."
    ),
    filters=("homeassistant/+/+/+",),
    # Home Assistant documentation, "MQTT Statestream": <base_topic>/<domain>/<entity>/state as it is, attributes as JSON, last_updated and
    # last_changed as times; "MQTT": discovery at <prefix>/<component>/[<node>/]<object>/config.
    settings=Settings(
        rules=(
            *(Rule(topic=f"homeassistant/+/+/{name}", without_measurements="event") for name in _DESCRIPTIONS),
            Rule(topic="homeassistant/+/+/+/config", without_measurements="event"),
            Rule(topic="homeassistant/status", without_measurements="event"),
            Rule(
                topic="homeassistant/{domain}/{entity}/{metric}",
                device="{domain}.{entity}",
                no_value=("unknown", "unavailable", "none", "nan"),
            ),
        )
    ),
)

_RTL_433: Final = Preset(
    name="rtl_433",
    title="rtl_433",
    description=(
        "Messages of radio sensors. Device: model, channel and id, as far as the sensor has them. Time: its own where it has an offset or is an"
        " epoch (report_meta time:iso:tz or time:unix), else the receipt. The values under devices/ are the same again and are counted as"
        " events."
    ),
    filters=("rtl_433/+/events",),
    # rtl_433 documentation, "Operation" (-F mqtt, report_meta time) and "Data format" (model, id, channel, mic).
    settings=Settings(
        rules=(
            Rule(
                topic="rtl_433/+/events",
                device="{model}[-{channel}][-{id}]",
                other_characters="replace",
                time="time",
                unusable_time="receipt",
                skip=("mic",),
            ),
            Rule(topic="rtl_433/#", without_measurements="event"),
        )
    ),
)

_VICTRON: Final = Preset(
    name="victron",
    title="Victron Venus OS",
    description=(
        "Values of the D-Bus of a GX device. Device: portal id, service and instance, joined with hyphens. Metric: the path, joined with dots:"
        " Dc.0.Voltage. null, and the empty message of a device that has gone, are no value. The device sends only while it is asked to:"
        " somebody has to publish to R/<portal id>/keepalive every minute. Settings are counted as events."
    ),
    filters=("N/#",),
    # victronenergy/dbus-flashmq, README: N/<portal ID>/<service_type>/<device instance>/<D-Bus path>, {"value": …}, keep-alive.
    settings=Settings(
        rules=(
            Rule(topic="N/+/settings/#", without_measurements="event"),
            Rule(
                topic="N/{portal}/{service}/{instance}/{metric...}",
                device="{portal}-{service}-{instance}",
                other_characters="replace",
                values="value",
            ),
            Rule(topic="N/#", without_measurements="event"),
            Rule(topic="R/#", without_measurements="command"),
            Rule(topic="W/#", without_measurements="command"),
        )
    ),
)

PRESETS: Final = (_ZIGBEE2MQTT, _HOME_ASSISTANT, _RTL_433, _VICTRON)
