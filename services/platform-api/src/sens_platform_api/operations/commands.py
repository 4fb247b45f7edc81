"""``sens migrate``."""

import typer

from sens_common.command_line.options import DataDir


def migrate(data_dir: DataDir) -> None:
    """Bring the database's schema up to date; safe to run again.

    The database is that of SENS_DATABASE__*, else the running instance's.
    """
    import asyncio

    from sens_common.command_line.local_settings import administration_environment
    from sens_common.logs import configure_logs
    from sens_common.migrations import MigrationSettings, bring_up_to_date

    configure_logs("sens", "error")
    with administration_environment(data_dir):
        asyncio.run(bring_up_to_date(MigrationSettings.load()))
    typer.echo("the schema is up to date")
