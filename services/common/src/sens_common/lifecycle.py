"""How a service's process lives: uvloop, signals, one exit code per kind of failure."""

import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable

import structlog
import uvloop

from sens_common.errors import SensError, StoppedError
from sens_common.logs import configure_logs
from sens_common.settings import ServiceSettings

log = structlog.get_logger()


def run[S: ServiceSettings](
    service: str, settings_class: type[S], main: Callable[[S, asyncio.Event], Awaitable[None]]
) -> None:
    """Run a service until it is told to stop, and exit.

    Args:
        service: Name for logs.
        settings_class: Read from the environment.
        main: Gets the settings and an event that SIGTERM and SIGINT set; returns when everything is stopped.

    Exits with 0 after a stop, with the error's own code (and a line for people) after a `SensError`.
    """
    configure_logs(service)
    try:
        settings = settings_class.load()
        configure_logs(service, settings.log.level)
        uvloop.run(_main(settings, main))
    except StoppedError:
        log.info("stopped")
    except SensError as error:
        log.error("stopped by an error", error=str(error))  # noqa: TRY400 - its text is for people, a trace is not
        sys.exit(error.exit_code)
    except BaseExceptionGroup as group:
        known, unknown = group.split(SensError)
        if known is None or unknown is not None:
            raise
        leaves = [leaf for leaf in _leaves(known) if not isinstance(leaf, StoppedError)]
        if not leaves:
            log.info("stopped")
            return
        for leaf in leaves:
            log.error("stopped by an error", error=str(leaf))  # noqa: TRY400 - same
        sys.exit(max(leaf.exit_code for leaf in leaves))


def _leaves(group: BaseExceptionGroup[SensError]) -> list[SensError]:
    return [
        leaf
        for error in group.exceptions
        for leaf in (_leaves(error) if isinstance(error, BaseExceptionGroup) else [error])
    ]


async def _main[S: ServiceSettings](settings: S, main: Callable[[S, asyncio.Event], Awaitable[None]]) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    log.info("starting")
    working = asyncio.ensure_future(main(settings, stop))
    stopping = asyncio.create_task(stop.wait(), name="wait for stop")
    await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    await asyncio.wait({working}, timeout=settings.shutdown_seconds)
    if not working.done():
        log.warning("not stopped in time; what is under way is given up", seconds=settings.shutdown_seconds)
        working.cancel()
        await asyncio.wait({working})
    if not working.cancelled():
        await working
    log.info("stopped")
