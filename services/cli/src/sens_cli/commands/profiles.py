"""``sens profiles``: kinds of devices."""

from pathlib import Path
from typing import Annotated, Any, Final

import typer

from sens_cli.options import ApiKey, ApiUrl, Limit
from sens_common.command_line.options import DataDir, Json

app = typer.Typer(no_args_is_help=True, help="Kinds of devices: their codec, and what their fields are called.")

_PAGE: Final = 1000
Name = Annotated[str, typer.Argument(help="Name of the profile.", show_default=False)]
Codec = Annotated[
    str | None,
    typer.Option(
        help="cayenne_lpp, or a codec of your own with its version: dragino@3. Without it, the network's own fields are taken.",
        show_default=False,
    ),
]
Metrics = Annotated[
    Path | None, typer.Option(help="File with the rules: a JSON object by the names of fields.", show_default=False)
]
Metric = Annotated[
    list[str] | None,
    typer.Option(
        help="A rule: FIELD=NAME, then unit=, kind=, scale=, offset= or ignore, with commas. May be given several times.",
        show_default=False,
    ),
]


@app.command("list")
def list_profiles(
    data_dir: DataDir, limit: Limit = 1000, as_json: Json = False, api_url: ApiUrl = None, api_key: ApiKey = None
) -> None:
    """List profiles.

    \b
    sens profiles list
    """
    from sens_cli.api import Api
    from sens_cli.target import find_target
    from sens_common.command_line.output import print_json, print_table

    api = Api(find_target(data_dir, api_url, api_key))
    found = list(api.pages("profiles", "profiles", {}, limit=limit, page=_PAGE))
    if as_json:
        print_json(found)
        return
    rows = [(each["profile"], each["codec"], len(each["metrics"])) for each in found]
    print_table(("PROFILE", "CODEC", "RULES"), rows, empty="no profiles")


@app.command("show")
def show_profile(
    data_dir: DataDir, name: Name, as_json: Json = False, api_url: ApiUrl = None, api_key: ApiKey = None
) -> None:
    """Show a profile and its rules.

    \b
    sens profiles show climate
    """
    from sens_cli.api import Api, segment
    from sens_cli.target import find_target

    _print(Api(find_target(data_dir, api_url, api_key)).get(f"profiles/{segment(name)}"), as_json=as_json)


@app.command("create")
def create_profile(  # noqa: PLR0917 - typer calls it with keywords
    data_dir: DataDir,
    name: Name,
    codec: Codec = None,
    metrics: Metrics = None,
    metric: Metric = None,
    as_json: Json = False,
    api_url: ApiUrl = None,
    api_key: ApiKey = None,
) -> None:
    """Make a profile.

    \b
    sens profiles create climate --codec cayenne_lpp --metric temperature_3=temperature,unit=Cel
    sens profiles create climate --codec dragino@3 --metrics rules.json
    """
    from sens_cli.api import Api, segment
    from sens_cli.target import find_target

    api, path = Api(find_target(data_dir, api_url, api_key)), f"profiles/{segment(name)}"
    if api.has(path):
        raise typer.BadParameter(f"there is a profile {name} already; sens profiles change {name} changes it")
    document = {"codec": codec, "metrics": _rules({}, metrics, metric)}
    _print(api.put(path, document), as_json=as_json)


@app.command("change")
def change_profile(  # noqa: PLR0917 - typer calls it with keywords
    data_dir: DataDir,
    name: Name,
    codec: Codec = None,
    metrics: Metrics = None,
    metric: Metric = None,
    as_json: Json = False,
    api_url: ApiUrl = None,
    api_key: ApiKey = None,
) -> None:
    """Change a profile: what is not given stays. A file replaces all rules; --codec none takes the codec away.

    \b
    sens profiles change climate --codec dragino@4
    sens profiles change climate --metric humidity=relative_humidity,unit=%
    """
    from sens_cli.api import Api, segment
    from sens_cli.target import find_target

    api, path = Api(find_target(data_dir, api_url, api_key)), f"profiles/{segment(name)}"
    before = api.get(path)
    chosen = before["codec"] if codec is None else None if codec == "none" else codec
    document = {"codec": chosen, "metrics": _rules(before["metrics"], metrics, metric)}
    _print(api.put(path, document), as_json=as_json)


@app.command("delete")
def delete_profile(data_dir: DataDir, name: Name, api_url: ApiUrl = None, api_key: ApiKey = None) -> None:
    """Delete a profile. One that a source or a device uses can't be deleted.

    \b
    sens profiles delete climate
    """
    from sens_cli.api import Api, segment
    from sens_cli.target import find_target

    Api(find_target(data_dir, api_url, api_key)).delete(f"profiles/{segment(name)}")
    typer.echo(f"profile {name} is deleted")


def _rules(before: dict[str, Any], file: Path | None, texts: list[str] | None) -> dict[str, Any]:
    from sens_cli.documents import read_json

    rules = dict(before) if file is None else read_json(file, dict)
    return rules | dict(_rule(text) for text in texts or [])


def _rule(text: str) -> tuple[str, dict[str, Any]]:
    """Return a field and its rule, as the option has them."""
    first, *parts = text.split(",")
    field, _, name = first.partition("=")
    rule: dict[str, Any] = {"name": name} if name else {}
    for part in parts:
        member, _, value = part.partition("=")
        if member in {"unit", "kind"} and value:
            rule[member] = value
        elif member in {"scale", "offset"}:
            try:
                rule[member] = float(value)
            except ValueError:
                raise typer.BadParameter(f"{member} in {text!r} needs a number") from None
        elif part == "ignore":
            rule["ignore"] = True
        else:
            raise typer.BadParameter(
                f"{part!r} in {text!r} is not known; a rule is FIELD=NAME, then unit=, kind=, scale=, offset= or ignore"
            )
    return field, rule


def _print(profile: dict[str, Any], *, as_json: bool) -> None:
    from sens_common.command_line.output import print_json, print_pairs, print_table

    if as_json:
        print_json(profile)
        return
    print_pairs([("profile", profile["profile"]), ("codec", profile["codec"])])
    rows = [
        (
            field,
            "(ignored)" if rule.get("ignore") else rule.get("name", field),
            profile["units"].get(field),
            rule.get("kind"),
            rule.get("scale"),
            rule.get("offset"),
        )
        for field, rule in sorted(profile["metrics"].items())
    ]
    typer.echo()
    heads = ("FIELD", "METRIC", "UNIT", "KIND", "SCALE", "OFFSET")
    print_table(heads, rows, empty="no rules: fields are stored by their own names")
