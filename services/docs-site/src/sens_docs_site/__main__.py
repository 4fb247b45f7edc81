"""The documentation's site: ``python -m sens_docs_site``."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog

from sens_common.lifecycle import run
from sens_common.operations import Heartbeat, serve
from sens_docs_site.app import SERVICE, create_app, metrics_app
from sens_docs_site.settings import DocsSiteSettings, HttpSettings

log = structlog.get_logger()


async def main(settings: DocsSiteSettings, stop: asyncio.Event) -> None:
    """Wire the parts, and serve until the stop."""
    heartbeat = Heartbeat()
    http = settings.http
    app = create_app(settings.site.folder, heartbeat, settings.https, with_metrics=http.metrics_port is None)
    async with serve(app, http.host, http.port), _metrics(http, heartbeat), asyncio.TaskGroup() as tasks:
        log.info("serving the documentation", host=http.host, port=http.port)
        beating = tasks.create_task(heartbeat.keep(), name="heartbeat")
        await stop.wait()
        beating.cancel()


@asynccontextmanager
async def _metrics(http: HttpSettings, heartbeat: Heartbeat) -> AsyncIterator[None]:
    """Serve the metrics at a port of their own, where there is one."""
    if http.metrics_port is None:
        yield
        return
    async with serve(metrics_app(heartbeat), http.host, http.metrics_port):
        yield


if __name__ == "__main__":
    run(SERVICE, DocsSiteSettings, main)
