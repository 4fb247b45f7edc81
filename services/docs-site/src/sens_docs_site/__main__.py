"""The documentation's site: ``python -m sens_docs_site``."""

import asyncio

import structlog

from sens_common.lifecycle import run
from sens_common.operations import Heartbeat, serve
from sens_docs_site.app import SERVICE, create_app
from sens_docs_site.settings import DocsSiteSettings

log = structlog.get_logger()


async def main(settings: DocsSiteSettings, stop: asyncio.Event) -> None:
    """Wire the parts, and serve until the stop."""
    heartbeat = Heartbeat()
    app = create_app(settings.site.folder, heartbeat)
    async with serve(app, settings.http.host, settings.http.port), asyncio.TaskGroup() as tasks:
        log.info("serving the documentation", host=settings.http.host, port=settings.http.port)
        beating = tasks.create_task(heartbeat.keep(), name="heartbeat")
        await stop.wait()
        beating.cancel()


if __name__ == "__main__":
    run(SERVICE, DocsSiteSettings, main)
