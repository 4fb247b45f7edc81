"""The ``sens`` command."""

import sys
from collections.abc import Sequence
from typing import Annotated, Final

import typer

from sens_cli.lazy import LazyGroup, Place
from sens_common.errors import SensError

_PLATFORM: Final = "This machine"
_DATA: Final = "Data"
_ADMINISTRATION: Final = "Administration"

COMMANDS: Final = {
    "up": Place("up:up", _PLATFORM),
    "status": Place("status:status", _PLATFORM),
    "version": Place("status:version", _PLATFORM),
    "verify": Place("verify:verify", _PLATFORM),
    "publish": Place("messages:publish", _DATA),
    "tail": Place("readings:tail", _DATA),
    "devices": Place("names:devices", _DATA),
    "metrics": Place("names:metrics", _DATA),
    "latest": Place("readings:latest", _DATA),
    "measurements": Place("readings:measurements", _DATA),
    "dead-letters": Place("dead_letters:app", _DATA),
    "tenants": Place("administration:tenants", _ADMINISTRATION),
    "keys": Place("administration:keys", _ADMINISTRATION),
    "audit": Place("administration:audit", _ADMINISTRATION),
    "migrate": Place("administration:migrate", _ADMINISTRATION),
}
"""Every command, in the order of the help: where it is defined, and the panel of the help that it stands in."""


class _Commands(LazyGroup):
    """The commands of `COMMANDS`."""

    places = COMMANDS


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="SENS Platform: run it on this machine, and talk to it.",
    epilog=(
        "Exit codes: 0 done, 1 refused or not found, 2 wrong usage, 69 not reachable, 70 wrong schema, 78 wrong setting. "
        "The instance is found by its data folder (SENS_DATA_DIR), or named by SENS_API_URL and SENS_API_KEY."
    ),
)


def _version(wanted: bool) -> None:
    if wanted:
        from sens_common.version import product_version  # noqa: PLC0415 - the commands start without it

        typer.echo(product_version())
        raise typer.Exit


@app.callback()
def sens(
    *,
    version: Annotated[
        bool,
        typer.Option("--version", "-V", callback=_version, is_eager=True, help="Print the product's version, and end."),
    ] = False,
) -> None:
    """Take the options that stand before a command; the help of each command tells its own."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command; tell errors in a line or two and exit with their code."""
    try:
        app(arguments, prog_name="sens")
    except SensError as error:
        sys.stderr.write(f"sens: {error}\n")
        sys.exit(error.exit_code)
    except BrokenPipeError:  # who read our lines has seen enough
        sys.stderr.close()
        sys.exit(1)


if __name__ == "__main__":
    main()
