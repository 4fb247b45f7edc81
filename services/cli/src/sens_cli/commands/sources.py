"""``sens sources``: how other people's messages come in."""

from pathlib import Path
from typing import Annotated, Any, Final

import typer

from sens_cli.options import ApiKey, ApiUrl, Limit
from sens_common.command_line.options import DataDir, Json

app = typer.Typer(no_args_is_help=True, help="How other people's messages come in.")

_PAGE: Final = 1000
Name = Annotated[str, typer.Argument(help="Name of the source.", show_default=False)]
Topic = Annotated[
    str | None, typer.Option(help="MQTT topic filter of its messages, on the platform's broker.", show_default=False)
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
        help="PATTERN=PROFILE: devices whose names fit, * stands for any characters. The first one that fits holds.",
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
Enabled = Annotated[
    bool | None, typer.Option("--enable/--disable", help="Whether messages are taken.", show_default=False)
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
            "enabled" if each["enabled"] else "disabled",
        )
        for each in found
    ]
    print_table(("SOURCE", "COMES FROM", "FORMAT", "PROFILE", "RULES", "STATE"), rows, empty="no sources")


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
        str, typer.Option("--format", help="Network format, for example netmore or json.", show_default=False)
    ],
    topic: Topic = None,
    settings: Settings = None,
    profile: Profile = None,
    rule: Rule = None,
    radio: Radio = None,
    register: Registers = None,
    enabled: Enabled = None,
    as_json: Json = False,
    api_url: ApiUrl = None,
    api_key: ApiKey = None,
) -> None:
    """Make a source. Without --topic its messages come by HTTP.

    \b
    sens sources create field --format netmore --topic 'netmore/acme/#' --rule '0004a30b*=climate'
    sens sources create house --format json --topic 'house/#' --settings house.json
    """
    from sens_cli.api import Api, segment
    from sens_cli.target import find_target

    api, path = Api(find_target(data_dir, api_url, api_key)), f"sources/{segment(name)}"
    if api.has(path):
        raise typer.BadParameter(f"there is a source {name} already; sens sources change {name} changes it")
    start = {"transport": "http" if topic is None else "mqtt", "format": network_format}
    changes = _changes(topic, settings, profile, rule, radio, register, enabled)
    _print(api.put(path, start | changes), as_json=as_json)


@app.command("change")
def change_source(  # noqa: PLR0917 - typer calls it with keywords
    data_dir: DataDir,
    name: Name,
    network_format: Annotated[str | None, typer.Option("--format", help="Network format.", show_default=False)] = None,
    topic: Topic = None,
    settings: Settings = None,
    profile: Profile = None,
    rule: Rule = None,
    radio: Radio = None,
    register: Registers = None,
    enabled: Enabled = None,
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
    before = {
        member: value for member, value in api.get(path).items() if member not in {"source", "created_at", "changed_at"}
    }
    changes = _changes(topic, settings, profile, rule, radio, register, enabled)
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
) -> dict[str, Any]:
    from sens_cli.documents import read_json

    given = {
        "topic_filter": topic,
        "settings": None if settings is None else read_json(settings, dict),
        "default_profile": profile,
        "profile_rules": [_rule(text) for text in rules] if rules else None,
        "radio": radio,
        "registers_devices": register,
        "enabled": enabled,
    }
    changes: dict[str, Any] = {member: value for member, value in given.items() if value is not None}
    if profile == "none":
        changes["default_profile"] = None
    return changes


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
    rules = [f"{rule['device']} has {rule['profile']}" for rule in source["profile_rules"]]
    print_pairs(
        [
            ("source", source["source"]),
            ("comes from", source["topic_filter"] or "HTTP"),
            ("format", source["format"]),
            ("settings", json.dumps(source["settings"], ensure_ascii=False) if source["settings"] else None),
            ("devices that are not known", "are registered" if source["registers_devices"] else "are refused"),
            ("values of the radio", "are stored" if source["radio"] else "are not stored"),
            ("profile by rules", "; ".join(rules) or None),
            ("profile of all others", source["default_profile"]),
            ("state", "enabled" if source["enabled"] else "disabled"),
        ]
    )
