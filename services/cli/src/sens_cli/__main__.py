"""The ``sens`` command."""

import gc
import sys
from collections.abc import Sequence
from typing import Annotated, Final

import typer

from sens_cli.lazy import Definition, LazyGroup
from sens_common.errors import SensError

_PLATFORM: Final = "This machine"
_DATA: Final = "Data"
_OBJECTS_BETWEEN_COLLECTIONS: Final = 50_000

COMMANDS: Final = {
    "up": Definition("sens_cli.commands.up", "up", _PLATFORM),
    "status": Definition("sens_cli.commands.status", "status", _PLATFORM),
    "version": Definition("sens_cli.commands.status", "version", _PLATFORM),
    "verify": Definition("sens_cli.commands.verify", "verify", _PLATFORM),
    "publish": Definition("sens_cli.commands.messages", "publish", _DATA),
    "tail": Definition("sens_cli.commands.readings", "tail", _DATA),
    "devices": Definition("sens_cli.commands.names", "devices", _DATA),
    "metrics": Definition("sens_cli.commands.names", "metrics", _DATA),
    "latest": Definition("sens_cli.commands.readings", "latest", _DATA),
    "measurements": Definition("sens_cli.commands.measurements", "measurements", _DATA),
    "calibrations": Definition("sens_cli.commands.calibrations", "app", _DATA),
    "sources": Definition("sens_cli.commands.sources", "app", _DATA),
    "profiles": Definition("sens_cli.commands.profiles", "app", _DATA),
    "codecs": Definition("sens_cli.commands.codecs", "app", _DATA),
    "decode": Definition("sens_cli.commands.decode", "decode", _DATA),
    "import": Definition("sens_cli.commands.importing", "import_file", _DATA),
    "redecode": Definition("sens_cli.commands.redecode", "redecode", _DATA),
    "dead-letters": Definition("sens_cli.commands.dead_letters", "app", _DATA),
}
"""The commands of this package, in the order of the help."""


class _Commands(LazyGroup):
    """The commands of this package, and those that other packages add."""

    definitions = COMMANDS
    entry_points = "sens.commands"
    panel = "Administration"


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
    # Most of a command's work are imports, which make many objects and no garbage.
    gc.set_threshold(_OBJECTS_BETWEEN_COLLECTIONS)
    try:
        app(arguments, prog_name="sens")
    except SensError as error:
        sys.stderr.write(f"sens: {error}\n")
        sys.exit(error.exit_code)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("sens_"):
            raise
        sys.stderr.write(
            f"sens: this command needs the library {error.name}, which this installation leaves out; run it from a clone of the"
            " repository, or install the package sens-cli with its extras up and verify\n"
        )
        sys.exit(1)
    except BrokenPipeError:  # who read our lines has seen enough
        sys.stderr.close()
        sys.exit(1)


if __name__ == "__main__":
    main()
