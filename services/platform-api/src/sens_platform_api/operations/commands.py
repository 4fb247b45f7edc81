"""``sens migrate``."""

from typing import Annotated

import typer

from sens_common.command_line.options import DataDir


def migrate(
    data_dir: DataDir,
    *,
    schema_only: Annotated[
        bool, typer.Option("--schema-only", help="Leave measurements of an earlier version where they are.")
    ] = False,
) -> None:
    """Bring the database's schema up to date, then move measurements of an earlier version into its form; safe to run again.

    The database is that of SENS_DATABASE__*, else the running instance's.
    """
    import asyncio
    import contextlib

    from sens_common.command_line.local_settings import administration_environment
    from sens_common.logs import configure_logs
    from sens_common.migrations import MigrationSettings, bring_up_to_date
    from sens_common.moving.run import move
    from sens_common.settings import DatabaseSettings

    async def move_all(database: DatabaseSettings) -> None:
        async with contextlib.aclosing(move(database)) as lines:
            async for progress in lines:
                typer.echo(str(progress))

    configure_logs("sens", "error")
    with administration_environment(data_dir):
        settings = MigrationSettings.load()
        asyncio.run(bring_up_to_date(settings))
        typer.echo("the schema is up to date")
        if not schema_only:
            asyncio.run(move_all(settings.database))
            typer.echo("all measurements have the form of this version")
