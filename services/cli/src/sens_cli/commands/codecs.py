"""``sens codecs``: what turns bytes of devices into values."""

from pathlib import Path
from typing import Annotated, Any, Final

import typer

from sens_cli.options import ApiKey, ApiUrl, Limit
from sens_common.command_line.options import DataDir, Json, Utc

app = typer.Typer(no_args_is_help=True, help="What turns bytes of devices into values.")

_PAGE: Final = 1000
Name = Annotated[str, typer.Argument(help="Name of the codec.", show_default=False)]
NameOrVersion = Annotated[
    str, typer.Argument(help="Name of the codec, or one version of it: dragino@3.", show_default=False)
]


Source = Annotated[Path, typer.Argument(help="File with its source in JavaScript.", show_default=False)]
Examples = Annotated[
    Path | None,
    typer.Option(help="File with examples: a JSON array of objects with bytes, f_port, and fields or error."),
]


@app.command("list")
def list_codecs(  # noqa: PLR0917 - typer calls it with keywords
    data_dir: DataDir,
    limit: Limit = 1000,
    utc: Utc = False,
    as_json: Json = False,
    api_url: ApiUrl = None,
    api_key: ApiKey = None,
) -> None:
    """List codecs.

    \b
    sens codecs list
    """
    from sens_cli.api import Api
    from sens_cli.target import find_target
    from sens_common.command_line.output import print_json, print_table, short_time

    api = Api(find_target(data_dir, api_url, api_key))
    found = list(api.pages("codecs", "codecs", {}, limit=limit, page=_PAGE))
    if as_json:
        print_json(found)
        return
    rows = [
        (each["codec"], each["newest"], each["versions"], short_time(each["created_at"], utc=utc)) for each in found
    ]
    empty = "no codecs of your own; cayenne_lpp is built in"
    print_table(("CODEC", "NEWEST", "VERSIONS", "SINCE"), rows, empty=empty)


@app.command("show")
def show_codec(  # noqa: PLR0917 - typer calls it with keywords
    data_dir: DataDir,
    codec: NameOrVersion,
    utc: Utc = False,
    as_json: Json = False,
    api_url: ApiUrl = None,
    api_key: ApiKey = None,
) -> None:
    """Show the versions of a codec, or print the source of one.

    \b
    sens codecs show dragino
    sens codecs show dragino@3 > dragino.js
    """
    from sens_cli.api import Api
    from sens_cli.target import find_target
    from sens_common.command_line.output import print_json, print_table, short_time

    found = Api(find_target(data_dir, api_url, api_key)).get(_versions_path(codec))
    if as_json:
        print_json(found)
    elif "source" in found:
        typer.echo(found["source"], nl=not found["source"].endswith("\n"))
    else:
        rows = [
            (
                each["version"],
                each["sha256"][:12],
                each["bytes"],
                each["examples"],
                short_time(each["created_at"], utc=utc),
                each["created_by"],
                ", ".join(each["profiles"]) or None,
            )
            for each in found["versions"]
        ]
        heads = ("VERSION", "SHA-256", "BYTES", "EXAMPLES", "SINCE", "BY", "USED BY")
        print_table(heads, rows, empty="no versions")


@app.command("create")
def create_version(  # noqa: PLR0917 - typer calls it with keywords
    data_dir: DataDir,
    name: Name,
    file: Source,
    examples: Examples = None,
    as_json: Json = False,
    api_url: ApiUrl = None,
    api_key: ApiKey = None,
) -> None:
    """Add a version to a codec, which is made with its first one. Its examples are run first; a version never changes.

    \b
    sens codecs create dragino decoder.js --examples examples.json
    """
    from sens_cli.api import Api, segment
    from sens_cli.target import find_target
    from sens_common.command_line.output import print_json

    document = _document(file, examples)
    added = Api(find_target(data_dir, api_url, api_key)).post_document(f"codecs/{segment(name)}/versions", document)
    if as_json:
        print_json(added)
    else:
        typer.echo(f"{added['codec']}@{added['version']}, for profiles: --codec {added['codec']}@{added['version']}")


@app.command("test")
def try_codec(  # noqa: PLR0917 - typer calls it with keywords
    data_dir: DataDir,
    file: Source,
    examples: Examples = None,
    as_json: Json = False,
    api_url: ApiUrl = None,
    api_key: ApiKey = None,
) -> None:
    """Look whether a codec could be saved: it is parsed, and run with its examples. Nothing is stored; the exit code is 1 when something is wrong.

    \b
    sens codecs test decoder.js --examples examples.json
    """
    from sens_cli.api import Api
    from sens_cli.target import find_target
    from sens_common.command_line.output import print_json

    document = _document(file, examples)
    tried = Api(find_target(data_dir, api_url, api_key)).post_document("codec-trials", document)
    if as_json:
        print_json(tried)
    else:
        typer.echo(
            "\n".join(tried["problems"]) or f"{file} can be saved; examples: {len(document.get('examples', []))}"
        )
    if tried["problems"]:
        raise typer.Exit(1)


@app.command("compare")
def compare_versions(  # noqa: PLR0917 - typer calls it with keywords
    data_dir: DataDir,
    before: Annotated[str, typer.Argument(help="The version before, for example dragino@2.", show_default=False)],
    after: Annotated[str, typer.Argument(help="The other version, for example dragino@3.", show_default=False)],
    since: Annotated[
        str, typer.Option(help="Messages that were received since then: a time, or how long ago, such as 24h.")
    ] = "24h",
    source: Annotated[
        str | None, typer.Option(help="Source whose messages are taken; without it, those of all.", show_default=False)
    ] = None,
    as_json: Json = False,
    api_url: ApiUrl = None,
    api_key: ApiKey = None,
) -> None:
    """Compare what two versions of a codec make of the messages that were received. Nothing is stored.

    \b
    sens codecs compare dragino@2 dragino@3 --since 24h
    """
    from sens_cli.api import Api
    from sens_cli.codec_runs import follow, show
    from sens_cli.target import find_target

    api = Api(find_target(data_dir, api_url, api_key))
    ago = f"-{since}" if since[:1].isdigit() and since[-1:].isalpha() and "T" not in since else since
    order = {"kind": "compare", "before": before, "codec": after, "from": ago}
    run = api.post_document("codec-runs", order | ({} if source is None else {"source": source}))
    show(follow(api, run, lambda line: typer.echo(line, err=True)), as_json=as_json)


@app.command("delete")
def delete_codec(data_dir: DataDir, codec: NameOrVersion, api_url: ApiUrl = None, api_key: ApiKey = None) -> None:
    """Delete a codec with all its versions, or one version. One that a profile uses can't be deleted.

    \b
    sens codecs delete dragino@2
    """
    from sens_cli.api import Api, segment
    from sens_cli.target import find_target

    path = _versions_path(codec) if "@" in codec else f"codecs/{segment(codec)}"
    Api(find_target(data_dir, api_url, api_key)).delete(path)
    typer.echo(f"codec {codec} is deleted")


def _document(source: Path, examples: Path | None) -> dict[str, Any]:
    """Return a version as the API takes it."""
    from sens_cli.documents import read_json, read_text

    document: dict[str, Any] = {"source": read_text(source)}
    return document if examples is None else document | {"examples": read_json(examples, list)}


def _versions_path(codec: str) -> str:
    """Return the path of a codec's versions, or of the one that is named."""
    from sens_cli.api import segment

    name, at, number = codec.partition("@")
    if at and not (number.isascii() and number.isdigit()):
        raise typer.BadParameter("a version is a number after @, for example dragino@3")
    return f"codecs/{segment(name)}/versions" + (f"/{int(number)}" if at else "")
