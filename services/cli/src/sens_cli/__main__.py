"""The ``sens`` command."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from sens_cli.installation import DATA_DIR_VARIABLE, default_data_dir
from sens_common.errors import SensError

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="SENS Platform: run it on this machine, and talk to it.",
)

DataDir = Annotated[
    Path,
    typer.Option(
        "--data-dir",
        envvar=DATA_DIR_VARIABLE,
        default_factory=default_data_dir,
        show_default=".sens",
        help="Data folder of the instance on this machine.",
    ),
]


@app.command()
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
    """Run the whole platform on this machine."""
    from sens_cli.up.command import up as run_platform  # noqa: PLC0415 - other commands start without it
    from sens_cli.up.components import Options  # noqa: PLC0415 - same

    run_platform(
        data_dir,
        port_offset=port_offset,
        options=Options(simulator=simulator, devices=devices, rate=rate, mqtt_host=mqtt_host),
    )


@app.command()
def version() -> None:
    """Print the product's version."""
    from sens_common.version import product_version  # noqa: PLC0415 - other commands start without it

    typer.echo(product_version())


def main() -> None:
    """Run a command; tell errors in a line or two and exit with their code."""
    try:
        app()
    except SensError as error:
        typer.echo(f"sens: {error}", err=True)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
