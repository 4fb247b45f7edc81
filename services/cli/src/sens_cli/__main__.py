"""The ``sens`` command."""

import sys
from typing import Annotated

import typer

from sens_cli.commands import administration, dead_letters, messages, readings, status, verify
from sens_cli.options import DataDir
from sens_common.errors import SensError

_PLATFORM = "This machine"
_DATA = "Data"
_ADMINISTRATION = "Administration"

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="SENS Platform: run it on this machine, and talk to it.",
    epilog=(
        "Exit codes: 0 done, 1 refused or not found, 2 wrong usage, 69 not reachable, 70 wrong schema, 78 wrong setting. "
        "The instance is found by its data folder (SENS_DATA_DIR), or named by SENS_API_URL and SENS_API_KEY."
    ),
)


@app.command(rich_help_panel=_PLATFORM)
def up(  # noqa: PLR0917 - typer calls it with keywords
    data_dir: DataDir,
    port_offset: Annotated[int, typer.Option(help="Added to every port, so that several instances can run.")] = 0,
    simulator: Annotated[bool, typer.Option("--simulator/--no-simulator", help="Simulated sensors publish.")] = True,
    devices: Annotated[int | None, typer.Option(min=1, max=10_000, help="Number of simulated sensors.")] = None,
    rate: Annotated[
        float | None, typer.Option(min=0.001, max=20_000, help="Messages per second of all simulated sensors.")
    ] = None,
    mqtt_host: Annotated[
        str, typer.Option(help="IP address the broker listens on; 0.0.0.0 lets real sensors reach it.")
    ] = "127.0.0.1",
) -> None:
    """Run the whole platform on this machine, until Ctrl-C.

    \b
    sens up
    sens up --no-simulator --mqtt-host 0.0.0.0
    sens up --data-dir /tmp/another --port-offset 1000 --devices 100 --rate 500
    """  # noqa: D301 - click's mark for lines that stay lines
    from sens_cli.up.command import up as run_platform  # noqa: PLC0415 - other commands start without it
    from sens_cli.up.components import Options  # noqa: PLC0415 - same

    run_platform(
        data_dir,
        port_offset=port_offset,
        options=Options(simulator=simulator, devices=devices, rate=rate, mqtt_host=mqtt_host),
    )


app.command(rich_help_panel=_PLATFORM)(status.status)
app.command(rich_help_panel=_PLATFORM)(status.version)
app.command(rich_help_panel=_PLATFORM)(verify.verify)
for command in (messages.publish, readings.tail, readings.devices, readings.latest, readings.measurements):
    app.command(rich_help_panel=_DATA)(command)
app.add_typer(dead_letters.app, name="dead-letters", rich_help_panel=_DATA)
app.add_typer(administration.tenants, name="tenants", rich_help_panel=_ADMINISTRATION)
app.add_typer(administration.keys, name="keys", rich_help_panel=_ADMINISTRATION)
app.command(rich_help_panel=_ADMINISTRATION)(administration.migrate)


def main() -> None:
    """Run a command; tell errors in a line or two and exit with their code."""
    try:
        app(prog_name="sens")
    except SensError as error:
        sys.stderr.write(f"sens: {error}\n")
        sys.exit(error.exit_code)
    except BrokenPipeError:  # who read our lines has seen enough
        sys.stderr.close()
        sys.exit(1)


if __name__ == "__main__":
    main()
