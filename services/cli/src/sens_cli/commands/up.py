"""``sens up``: the platform on this machine."""

import enum
from pathlib import Path
from typing import Annotated

import typer

from sens_common.command_line.options import DataDir


class BrokerChoice(enum.StrEnum):
    """Brokers that ``sens up`` can run."""

    EMBEDDED = "embedded"
    MOSQUITTO = "mosquitto"


def up(  # noqa: PLR0917 - typer calls it with keywords
    data_dir: DataDir,
    port_offset: Annotated[int, typer.Option(help="Added to every port, so that several instances can run.")] = 0,
    simulator: Annotated[
        bool | None,
        typer.Option(
            "--simulator/--no-simulator",
            help="Whether simulated sensors publish; they do unless --mqtt-url is given.",
            show_default=False,
        ),
    ] = None,
    devices: Annotated[int | None, typer.Option(min=1, max=10_000, help="Number of simulated sensors.")] = None,
    rate: Annotated[
        float | None, typer.Option(min=0.001, max=20_000, help="Messages per second of all simulated sensors.")
    ] = None,
    quiet_fleet: Annotated[
        bool, typer.Option("--quiet-fleet", help="Simulated sensors make no malformed messages; else 1 in 1,000.")
    ] = False,
    broker: Annotated[
        BrokerChoice, typer.Option(help="MQTT broker: the embedded one, or Mosquitto where it is installed.")
    ] = BrokerChoice.EMBEDDED,
    mqtt_url: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="A broker that runs already, in place of one of its own: mqtt://USER@HOST:PORT or mqtts://USER@HOST:PORT; it must speak MQTT 5.",
            show_default=False,
        ),
    ] = None,
    mqtt_password_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="File with the password of that user.", show_default=False)
    ] = None,
    mqtt_ca_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", resolve_path=True, help="Authority of that broker's certificate, PEM.", show_default=False
        ),
    ] = None,
    mqtt_host: Annotated[
        str,
        typer.Option(
            help="IP address the broker listens on; 0.0.0.0 lets real sensors reach it. It asks nobody for a password."
        ),
    ] = "127.0.0.1",
    api_host: Annotated[
        str, typer.Option(help="IP address the API listens on; 0.0.0.0 lets other machines reach it, in plain HTTP.")
    ] = "127.0.0.1",
    docs_host: Annotated[
        str, typer.Option(help="IP address the documentation listens on; 0.0.0.0 lets other machines read it.")
    ] = "127.0.0.1",
    postgres_programs: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            exists=True,
            file_okay=False,
            resolve_path=True,
            help="Folder with the programs of another PostgreSQL, in place of the embedded one's; TimescaleDB is used where it is installed there.",
        ),
    ] = None,
) -> None:
    """Run the whole platform on this machine, until Ctrl-C.

    \b
    sens up
    sens up --no-simulator --mqtt-host 0.0.0.0
    sens up --broker mosquitto --quiet-fleet
    sens up --mqtt-url mqtt://sens@nas.local:1883 --mqtt-password-file password.txt
    sens up --data-dir /tmp/another --port-offset 1000 --devices 100 --rate 500
    sens up --postgres-programs /usr/lib/postgresql/18/bin
    """
    from sens_cli.up.command import up as run_platform
    from sens_cli.up.components import EMBEDDED, Options
    from sens_cli.up.house_broker import house_broker

    house = None
    if mqtt_url is not None:
        if simulator or broker is not BrokerChoice.EMBEDDED:
            raise typer.BadParameter(
                "--mqtt-url goes with neither --simulator nor --broker: it names a broker of real sensors"
            )
        house = house_broker(mqtt_url, mqtt_password_file, mqtt_ca_file)
    elif mqtt_password_file is not None or mqtt_ca_file is not None:
        raise typer.BadParameter("--mqtt-password-file and --mqtt-ca-file belong to --mqtt-url")
    run_platform(
        data_dir,
        port_offset=port_offset,
        options=Options(
            simulator=house is None if simulator is None else simulator,
            devices=devices,
            rate=rate,
            quiet_fleet=quiet_fleet,
            broker=EMBEDDED if broker is BrokerChoice.EMBEDDED else broker.value,
            house_broker=house,
            mqtt_host=mqtt_host,
            api_host=api_host,
            docs_host=docs_host,
            postgres_programs=postgres_programs,
        ),
    )
