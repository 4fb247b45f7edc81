"""The life of one ``sens up``: take the data folder, start everything, run, stop everything."""

import asyncio
import contextlib
import dataclasses
import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from sens_cli.up import account, documentation, house_broker, startup
from sens_cli.up.account import OURSELVES, Children
from sens_cli.up.brokers import MALFORMED_ONE_IN, MOSQUITTO_CONFIGURATION, MOSQUITTO_STORE, brokers, is_open
from sens_cli.up.components import (
    BROKER_CREDENTIALS,
    EMBEDDED,
    KEY_SECRET,
    NATS_CONFIGURATION,
    SOURCE_SECRETS,
    TENANT,
    Component,
    Options,
    Step,
    inherited,
    services,
    stores,
)
from sens_cli.up.counts import DatabaseCounts
from sens_cli.up.data import DataFolder
from sens_cli.up.display import PlainDisplay, TerminalDisplay
from sens_cli.up.ports import Ports, check_free
from sens_cli.up.process import end_leftovers
from sens_cli.up.supervisor import Supervisor
from sens_cli.up.traffic import TrafficReader
from sens_cli.up.watch import LOOK_SECONDS, Watch
from sens_common.command_line.installation import checkout, product_commit
from sens_common.command_line.instance import Instance
from sens_common.command_line.local_settings import HOST, OWNER_SECRET, nats_environment, owner_environment
from sens_common.errors import SensError
from sens_common.version import product_version

_LIVE_SECONDS: Final = 1.0
_LOGS_SECONDS: Final = 30.0

type Display = PlainDisplay | TerminalDisplay


async def run(path: Path, table: Ports, options: Options, display: Display) -> None:
    """Run the platform until SIGINT, SIGTERM or SIGHUP.

    Raises:
        SensError: It can't be started, or can't be kept running.
    """
    data = DataFolder(path)
    data.open()
    try:
        display.notice(f"SENS Platform {product_version()}, data in {data.path}")
        leftovers = end_leftovers(data.run)
        if leftovers:
            display.notice(f"stopped what an earlier start left running: {', '.join(sorted(leftovers))}")
        _check_free(table, options)
        if options.house_broker is not None:
            await house_broker.check(options.house_broker)
        data.rotate_logs()
        await _run_until_signal(data, table, options, display)
    except OSError as error:
        where = error.filename or data.path
        raise SensError(f"{where}: {error.strerror or error}; check the disk of the data folder {data.path}") from error
    finally:
        data.close()


async def _run_until_signal(data: DataFolder, table: Ports, options: Options, display: Display) -> None:
    children = await account.children(data.path)
    if children.account is not None:
        display.notice(f"started by root: everything runs as account {children.account.name}")
    components, steps = parts(data, table, options, children, tell=display.notice)
    children.give(data.nats, data.run / NATS_CONFIGURATION, data.site)
    children.give(data.path / BROKER_CREDENTIALS, data.path / SOURCE_SECRETS)
    children.give(data.path / MOSQUITTO_STORE, data.run / MOSQUITTO_CONFIGURATION)
    supervisor = Supervisor(
        components, steps, data=data, environment=inherited(product_commit()), display=display, children=children
    )
    stop = asyncio.Event()
    with _signals(stop, supervisor.hurry):
        tasks = [
            asyncio.create_task(supervisor.run(), name="supervisor"),
            asyncio.create_task(_tell(data, table, options, display, supervisor, components), name="display"),
            asyncio.create_task(stop.wait(), name="stop signal"),
        ]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            display.notice("stopping; Ctrl-C again stops at once" if stop.is_set() else "stopping")
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            await supervisor.stop()
            display.notice("stopped")
    for result in results:
        if isinstance(result, Exception):
            raise _first(result)


def _first(error: Exception) -> Exception:
    """Return the error to tell people: the first one of a task group."""
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error


def _check_free(table: Ports, options: Options) -> None:
    mqtt = options.mqtt_host
    unused = ("mqtt", "mqtt5", "broker_operations") if options.house_broker is not None else ()
    check_free(table, {"mqtt": mqtt, "mqtt5": mqtt, "api": options.api_host, "docs": options.docs_host}, unused)


def parts(
    data: DataFolder,
    table: Ports,
    options: Options,
    children: Children = OURSELVES,
    tell: Callable[[str], None] = print,
) -> tuple[list[Component], list[Step]]:
    """Return everything that is run, wired together; a step that takes long tells how far it is."""
    own = owner_environment(data.secret, table.postgres) | nats_environment(data.secret, table.nats)
    programs = startup.Programs(data, inherited(product_commit()) | own, children)
    key_needs = "first tenant" if data.read_secret(KEY_SECRET) is None else "platform-api"

    async def migrate() -> str:
        return await startup.migrations(programs)

    async def move() -> str:
        return await startup.move(table.postgres, data.secret(OWNER_SECRET), tell)

    async def first_tenant() -> str:
        return await startup.first_tenant(programs, data)

    async def first_key() -> str:
        return await startup.first_key(programs, data, table)

    async def build_documentation() -> str:
        return await documentation.build(checkout(), data.site, log=data.log_file("documentation"), children=children)

    store_components, store_steps = stores(data, table, options.postgres_programs)
    components = [*store_components, *brokers(data, table, options), *services(data, table, options, data.site)]
    return components, [
        *store_steps,
        Step(name="migrations", after=("database",), work=migrate),
        Step(name="earlier measurements", after=("migrations",), work=move),
        Step(name="first tenant", after=("migrations",), work=first_tenant),
        Step(name="first key", after=(key_needs,), work=first_key),
        Step(name="documentation", after=(), work=build_documentation),
    ]


async def _tell(  # noqa: PLR0917 - all that there is to tell of
    data: DataFolder,
    table: Ports,
    options: Options,
    display: Display,
    supervisor: Supervisor,
    components: Sequence[Component],
) -> None:
    """Tell where everything is, once it is there, and then what flows."""
    house = options.house_broker
    mqtt_host, mqtt_ports = options.mqtt_host, {}
    if house is not None:
        mqtt_host, mqtt_ports = house.address.host, {"mqtt": house.address.port, "mqtt5": house.address.port}
    instance = Instance(
        process=os.getpid(),
        version=product_version(),
        ready=False,
        host=HOST,
        mqtt_host=mqtt_host,
        api_host=options.api_host,
        docs_host=options.docs_host,
        ports=table._asdict() | mqtt_ports,
        operations={each.name: each.operations for each in components if each.operations is not None},
        tenant=TENANT,
        key_file=str(data.secrets / KEY_SECRET),
    )
    data.write_instance(instance)
    await supervisor.all_ready()
    data.write_instance(dataclasses.replace(instance, ready=True))
    for text in cautions(options):
        display.notice(text, warning=True)
    display.addresses(instance, data.read_secret(KEY_SECRET) or "")
    counts = DatabaseCounts(table.postgres, data.secret(OWNER_SECRET))
    embedded = options.broker == EMBEDDED and house is None
    operations = table.broker_operations if embedded else None
    watch = Watch(components, display, broker_operations=operations, end=supervisor.end)
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(_look(watch), name="watch readiness")
            tasks.create_task(_bound_logs(data), name="bound logs")
            if isinstance(display, TerminalDisplay):
                tasks.create_task(_refresh(display, TrafficReader(table, counts), watch, options), name="live line")
    finally:
        await counts.close()


async def _look(watch: Watch) -> None:
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        await watch.look()


async def _bound_logs(data: DataFolder) -> None:
    while True:
        await asyncio.sleep(_LOGS_SECONDS)
        data.bound_logs()


async def _refresh(display: TerminalDisplay, reader: TrafficReader, watch: Watch, options: Options) -> None:
    while True:
        display.live((await reader.read()).text(), live_warnings(watch.problems, options))
        await asyncio.sleep(_LIVE_SECONDS)


def live_warnings(problems: Mapping[str, str], options: Options) -> list[str]:
    """Return what stands below the live line for as long as it holds."""
    lines = [f"not ready: {name}: {problem}" for name, problem in problems.items()]
    if is_open(options.mqtt_host):
        lines.append("anybody who reaches the broker can write and read everything")
    return lines


def cautions(options: Options) -> list[str]:
    """Return what people should know about what they have asked for."""
    found = []
    if is_open(options.mqtt_host):
        found.append(
            f"the broker listens on {options.mqtt_host} and asks nobody for a password:"
            " whoever reaches it can write and read everything"
        )
    if is_open(options.api_host):
        found.append(f"the API listens on {options.api_host} in plain HTTP: whoever listens in can read its keys")
    if options.simulator and not options.quiet_fleet:
        found.append(
            f"1 in {MALFORMED_ONE_IN:,} messages of the simulated sensors is malformed on purpose: --quiet-fleet makes none"
        )
    return found


@contextlib.contextmanager
def _signals(stop: asyncio.Event, hurry: Callable[[], None]) -> Iterator[None]:
    """Set the event at the first signal that asks to stop; hurry at the next."""

    def handle() -> None:
        if stop.is_set():
            hurry()
        stop.set()

    loop = asyncio.get_running_loop()
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    for number in numbers:
        loop.add_signal_handler(number, handle)
    try:
        yield
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)
