"""``sens sources``: how other people's messages come in."""

from pathlib import Path
from typing import Annotated, Any, Final

import typer

from sens_cli.options import ApiKey, ApiUrl, Limit
from sens_common.command_line.options import DataDir, Json

app = typer.Typer(no_args_is_help=True, help="How other people's messages come in.")

_PAGE: Final = 1000
_NOT_CHANGED: Final = frozenset({"source", "state", "created_at", "changed_at"})
_NONE: Final = "none"
Name = Annotated[str, typer.Argument(help="Name of the source.", show_default=False)]
Topic = Annotated[
    str | None, typer.Option(help="MQTT topic filter of its messages; none for HTTP.", show_default=False)
]
Settings = Annotated[
    Path | None, typer.Option(help="File with the format's settings, a JSON object.", show_default=False)
]
Profile = Annotated[
    str | None, typer.Option(help="Profile of devices that no rule fits; none takes it away.", show_default=False)
]
Rule = Annotated[
    list[str] | None,
    typer.Option(
        help="PATTERN=PROFILE: devices whose names fit, * stands for any characters. The first one that fits holds. none alone for no rule.",
        show_default=False,
    ),
]
Radio = Annotated[
    bool | None, typer.Option("--radio/--no-radio", help="Store values of the radio as well.", show_default=False)
]
Registers = Annotated[
    bool | None,
    typer.Option("--register/--no-register", help="Register devices that are not known.", show_default=False),
]
BrokerUrl = Annotated[
    str | None,
    typer.Option(
        "--broker",
        metavar="URL",
        help="Broker of its own, mqtt://host:port or mqtts://host:port; none for the platform's.",
        show_default=False,
    ),
]
Credential = Annotated[
    str | None,
    typer.Option(
        help="Name of the broker's credential, whose files the workers have; none for none.", show_default=False
    ),
]
ClientId = Annotated[str | None, typer.Option(help="Client identifier at the broker.", show_default=False)]
MqttVersion = Annotated[
    str | None, typer.Option(metavar="VERSION", help="Of MQTT at the broker: 5 or 3.1.1.", show_default=False)
]
CleanSession = Annotated[
    bool | None,
    typer.Option(
        "--clean-session/--keep-session",
        help="Whether the broker keeps nothing while nobody is connected.",
        show_default=False,
    ),
]
Enabled = Annotated[
    bool | None, typer.Option("--enable/--disable", help="Whether messages are taken.", show_default=False)
]

KeepFrames = Annotated[
    int | None,
    typer.Option(
        "--keep-frames",
        min=0,
        max=400,
        help="Days for which messages are kept as they came, to be decoded again; 0: not at all.",
        show_default=False,
    ),
]


@app.command("list")
def list_sources(
    data_dir: DataDir, limit: Limit = 1000, as_json: Json = False, api_url: ApiUrl = None, api_key: ApiKey = None
) -> None:
    """List sources.

    \b
    sens sources list
    """
    from sens_cli.api import Api
    from sens_cli.target import find_target
    from sens_common.command_line.output import print_json, print_table

    api = Api(find_target(data_dir, api_url, api_key))
    found = list(api.pages("sources", "sources", {}, limit=limit, page=_PAGE))
    if as_json:
        print_json(found)
        return
    rows = [
        (
            each["source"],
            each["topic_filter"] or "HTTP",
            each["format"],
            each["default_profile"],
            len(each["profile_rules"]),
            each["broker"]["url"] if each["broker"] else None,
            _short_state(each),
        )
        for each in found
    ]
    columns = ("SOURCE", "COMES FROM", "FORMAT", "PROFILE", "RULES", "BROKER", "STATE")
    print_table(columns, rows, empty="no sources")


@app.command("show")
def show_source(
    data_dir: DataDir, name: Name, as_json: Json = False, api_url: ApiUrl = None, api_key: ApiKey = None
) -> None:
    """Show a source.

    \b
    sens sources show field
    """
    from sens_cli.api import Api, segment
    from sens_cli.target import find_target

    _print(Api(find_target(data_dir, api_url, api_key)).get(f"sources/{segment(name)}"), as_json=as_json)


@app.command("create")
def create_source(  # noqa: PLR0917 - typer calls it with keywords
    data_dir: DataDir,
    name: Name,
    network_format: Annotated[
        str | None, typer.Option("--format", help="Network format, for example netmore or json.", show_default=False)
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            help="Rules for a well-known program, in place of --format; sens sources presets lists them.",
            show_default=False,
        ),
    ] = None,
    topic: Topic = None,
    broker: BrokerUrl = None,
    credential: Credential = None,
    client_id: ClientId = None,
    mqtt_version: MqttVersion = None,
    clean_session: CleanSession = None,
    settings: Settings = None,
    profile: Profile = None,
    rule: Rule = None,
    radio: Radio = None,
    register: Registers = None,
    enabled: Enabled = None,
    keep_frames: KeepFrames = None,
    as_json: Json = False,
    api_url: ApiUrl = None,
    api_key: ApiKey = None,
) -> None:
    """Make a source. Without --topic its messages come by HTTP, or with --preset from the topics that the program uses by default.

    \b
    sens sources create kitchen --preset tasmota
    sens sources create field --format netmore --topic 'netmore/acme/#' --rule '0004a30b*=climate'
    sens sources create house --format json --topic 'house/#' --settings house.json
    sens sources create ttn --format the_things_stack --topic 'v3/greenhouse@ttn/devices/+/up' --mqtt-version 3.1.1 \\
        --broker mqtts://eu1.cloud.thethings.network:8883 --credential ttn
    """
    from sens_cli.api import Api, segment
    from sens_cli.target import find_target

    api, path = Api(find_target(data_dir, api_url, api_key)), f"sources/{segment(name)}"
    if api.has(path):
        raise typer.BadParameter(f"there is a source {name} already; sens sources change {name} changes it")
    if (network_format is None) == (preset is None):
        raise typer.BadParameter("name a --format, or a --preset, one of them")
    start = (
        {"preset": preset} if preset else {"transport": "http" if topic is None else "mqtt", "format": network_format}
    )
    changes = _changes(topic, settings, profile, rule, radio, register, enabled, keep_frames)
    changes |= _broker_changes(None, broker, credential, client_id, mqtt_version, clean_session)
    _print(api.put(path, start | changes), as_json=as_json)


@app.command("presets")
def list_presets(data_dir: DataDir, as_json: Json = False, api_url: ApiUrl = None, api_key: ApiKey = None) -> None:
    """List presets: rules for messages of well-known programs and devices, and the topics that they match.

    \b
    sens sources presets
    """
    from sens_cli.api import Api
    from sens_cli.target import find_target
    from sens_common.command_line.output import print_json, print_table

    found = Api(find_target(data_dir, api_url, api_key)).get("presets")["presets"]
    if as_json:
        print_json(found)
        return
    rows = [(each["preset"], each["title"], ", ".join(each["topic_filters"]), each["description"]) for each in found]
    print_table(("PRESET", "FOR", "TOPICS", "READS"), rows, empty="no presets")


@app.command("change")
def change_source(  # noqa: PLR0917 - typer calls it with keywords
    data_dir: DataDir,
    name: Name,
    network_format: Annotated[str | None, typer.Option("--format", help="Network format.", show_default=False)] = None,
    topic: Topic = None,
    broker: BrokerUrl = None,
    credential: Credential = None,
    client_id: ClientId = None,
    mqtt_version: MqttVersion = None,
    clean_session: CleanSession = None,
    settings: Settings = None,
    profile: Profile = None,
    rule: Rule = None,
    radio: Radio = None,
    register: Registers = None,
    enabled: Enabled = None,
    keep_frames: KeepFrames = None,
    as_json: Json = False,
    api_url: ApiUrl = None,
    api_key: ApiKey = None,
) -> None:
    """Change a source: what is not given stays. Rules that are given replace all of them.

    \b
    sens sources change field --radio
    sens sources change field --disable
    """
    from sens_cli.api import Api, segment
    from sens_cli.target import find_target

    api, path = Api(find_target(data_dir, api_url, api_key)), f"sources/{segment(name)}"
    before = {member: value for member, value in api.get(path).items() if member not in _NOT_CHANGED}
    changes = _changes(topic, settings, profile, rule, radio, register, enabled, keep_frames)
    changes |= _broker_changes(before["broker"], broker, credential, client_id, mqtt_version, clean_session)
    if network_format is not None:
        changes["format"] = network_format
    _print(api.put(path, before | changes), as_json=as_json)


@app.command("delete")
def delete_source(data_dir: DataDir, name: Name, api_url: ApiUrl = None, api_key: ApiKey = None) -> None:
    """Delete a source that is disabled. Its devices and their measurements stay.

    \b
    sens sources delete field
    """
    from sens_cli.api import Api, segment
    from sens_cli.target import find_target

    Api(find_target(data_dir, api_url, api_key)).delete(f"sources/{segment(name)}")
    typer.echo(f"source {name} is deleted")


def _changes(  # noqa: PLR0917 - as the commands have them
    topic: str | None,
    settings: Path | None,
    profile: str | None,
    rules: list[str] | None,
    radio: bool | None,
    register: bool | None,
    enabled: bool | None,
    keep_frames: int | None,
) -> dict[str, Any]:
    from sens_cli.documents import read_json

    given = {
        "settings": None if settings is None else read_json(settings, dict),
        "default_profile": profile,
        "profile_rules": _rules(rules) if rules else None,
        "radio": radio,
        "registers_devices": register,
        "enabled": enabled,
    }
    changes: dict[str, Any] = {member: value for member, value in given.items() if value is not None}
    if topic == _NONE:
        changes |= {"transport": "http", "topic_filter": None, "broker": None}
    elif topic is not None:
        changes |= {"transport": "mqtt", "topic_filter": topic}
    if keep_frames is not None:
        changes["keep_frames"] = keep_frames or None
    if profile == _NONE:
        changes["default_profile"] = None
    return changes


def _broker_changes(  # noqa: PLR0917 - as the commands have them
    before: dict[str, Any] | None,
    url: str | None,
    credential: str | None,
    client_id: str | None,
    version: str | None,
    clean_session: bool | None,
) -> dict[str, Any]:
    """Return what becomes of the member ``broker``; nothing where nothing is said of one."""
    given = {
        "url": url,
        "credential": credential,
        "client_id": client_id,
        "version": version,
        "clean_session": clean_session,
    }
    changes: dict[str, Any] = {member: value for member, value in given.items() if value is not None}
    if not changes:
        return {}
    if url == _NONE:
        return {"broker": None}
    if before is None and url is None:
        raise typer.BadParameter("the source has no broker of its own; give it one with --broker")
    if credential == _NONE:
        changes["credential"] = None
    return {"broker": (before or {}) | changes}


def _state_words(source: dict[str, Any]) -> str:
    state = source["state"]
    return f"{state['status']}: {state['detail']}" if state["detail"] else str(state["status"])


def _short_state(source: dict[str, Any]) -> str:
    """Return a state that fits into a table."""
    state = source["state"]
    return f"{state['status']}: {state['reason']}" if state["reason"] else str(state["status"])


def _broker_words(broker: dict[str, Any] | None) -> str | None:
    if broker is None:
        return None
    parts = [
        broker["url"],
        f"MQTT {broker['version']}",
        f"credential {broker['credential']}" if broker["credential"] else "no credential",
        *([f"client {broker['client_id']}"] if broker["client_id"] else []),
        *(["clean sessions"] if broker["clean_session"] else []),
    ]
    return ", ".join(parts)


def _rules(texts: list[str]) -> list[dict[str, str]]:
    return [] if texts == [_NONE] else [_rule(text) for text in texts]


def _rule(text: str) -> dict[str, str]:
    device, equals, profile = text.partition("=")
    if not equals:
        raise typer.BadParameter(f"{text!r} is not a rule; a rule is PATTERN=PROFILE, for example '0004a30b*=climate'")
    return {"device": device, "profile": profile}


def _print(source: dict[str, Any], *, as_json: bool) -> None:
    import json

    from sens_common.command_line.output import print_json, print_pairs

    if as_json:
        print_json(source)
        return
    state = source["state"]
    tokens = {True: "are checked", False: "are not checked: the workers have no AS key for this source"}
    rules = [f"{rule['device']} has {rule['profile']}" for rule in source["profile_rules"]]
    print_pairs(
        [
            ("source", source["source"]),
            ("comes from", source["topic_filter"] or "HTTP"),
            ("broker", _broker_words(source["broker"])),
            ("format", source["format"]),
            ("settings", json.dumps(source["settings"], ensure_ascii=False) if source["settings"] else None),
            ("devices that are not known", "are registered" if source["registers_devices"] else "are refused"),
            ("values of the radio", "are stored" if source["radio"] else "are not stored"),
            ("profile by rules", "; ".join(rules) or None),
            ("profile of all others", source["default_profile"]),
            ("messages are kept", "no" if source["keep_frames"] is None else f"for {source['keep_frames']} days"),
            ("state", _state_words(source)),
            ("tokens of requests", tokens.get(state["checks_token"])),
            ("connected since", state["connected_since"]),
            ("last message", state["last_message_at"]),
            ("messages", state["messages"]),
            ("downlinks are pushed to", state["downlink_push"]),
            ("downlinks are replaced at", state["downlink_replace"]),
        ]
    )
