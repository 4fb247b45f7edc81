"""Telegraf on the same broker and database: ``mqtt_consumer`` to ``postgresql``.

Its options are those of the plugins' own pages, "MQTT Consumer Input Plugin" and "PostgreSQL Output Plugin".
"""

import asyncio
import contextlib
import shutil
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, NamedTuple

from tools.bench.figures import AfterFault, EndToEnd, Rate, Telegraf
from tools.bench.load import Chunk, Shape, connected, packet, payload
from tools.bench.measured_path import MeasuredPath
from tools.bench.runs import end_to_end, sustained
from tools.program import ProgramError
from tools.stack.path import Stack, StackError
from tools.stack.server import HOST, Server
from tools.stack.usage import Usage, difference

_NAME: Final = "telegraf"
_STALL_SECONDS: Final = 40
_REST_SECONDS: Final = 15
_MALFORMED_EVERY: Final = 10
_KILLS: Final = 5

_CONFIGURATION: Final = """\
[agent]
  interval = "10s"
  flush_interval = "1s"
  flush_jitter = "0s"
  metric_batch_size = {batch}
  metric_buffer_limit = {limit}
  omit_hostname = true
  logfile = "{folder}/telegraf.log"

[[inputs.mqtt_consumer]]
  servers = ["tcp://{host}:{port}"]
  topics = ["bare/v1/+/+/telemetry"]
  topic_tag = ""
  qos = 1
  client_id = "{name}-0"
  persistent_session = true
  max_undelivered_messages = {undelivered}
  name_override = "telemetry"
  data_format = "json"
  json_time_key = "ts"
  json_time_format = "unix_ms"
  json_string_fields = ["state"]
  [[inputs.mqtt_consumer.topic_parsing]]
    topic = "bare/v1/+/+/telemetry"
    tags = "_/_/tenant/device/_"

[[outputs.postgresql]]
  connection = "host={host} port={database_port} user={user} password={password} dbname={database} sslmode=disable \
pool_max_conns={connections}"
  schema = "public"
"""
_KEY: Final = """\
  create_templates = ["CREATE TABLE {{ .table }} ({{ .columns }})", "CREATE UNIQUE INDEX ON {{ .table }} (device, time)"]
"""


class Settings(NamedTuple):
    """What is tuned.

    Attributes:
        batch: ``metric_batch_size``.
        undelivered: ``max_undelivered_messages``.
        connections: ``pool_max_conns``.
        keyed: Whether the table has a unique key on device and time; Telegraf makes one without.
    """

    batch: int
    undelivered: int
    connections: int
    keyed: bool = False

    def __str__(self) -> str:
        return (
            f"metric_batch_size {self.batch}, max_undelivered_messages {self.undelivered}, "
            f"pool_max_conns {self.connections}"
        )


TRIED: Final = (
    Settings(1000, 10_000, 1),
    Settings(5000, 50_000, 1),
    Settings(10_000, 50_000, 1),
    Settings(5000, 50_000, 2),
)


def installed() -> str | None:
    """Return the program's path, None without one."""
    return shutil.which(_NAME)


def compare(path: MeasuredPath, shape: Shape, rounds: int) -> Telegraf:
    """Measure it with the best of several settings, in turn with SENS; see what it makes of a malformed message and of being killed.

    Raises:
        StackError: One of them does not start, or does not store everything.
    """
    path.warm_up(shape)
    ours = path.with_empty_tables(end_to_end)
    our_load = sustained(ours, shape)
    bare = shape._replace(root="bare")
    with alone(path, shape):
        tried = {settings: measure(path, bare, settings) for settings in TRIED}
        best = max(tried, key=lambda settings: tried[settings].per_second)
        with_key = best._replace(keyed=True)
        load = sustained(lambda load: measure(path, load, best), bare)
        # Messages of a reading that is split have one time and no key.
        keyed_load = None if shape.parts > 1 else sustained(lambda load: measure(path, load, with_key), bare)
        malformed = _malformed(path, bare._replace(messages=min(shape.messages, 1000)), best)
        killed = _killed(path, bare, best)
    beside: list[EndToEnd] = []
    own: list[Rate] = []
    keyed: list[Rate] = []
    for _ in range(rounds):
        beside.append(ours(our_load))
        with alone(path, shape):
            own.append(measure(path, load, best))
            if keyed_load is not None:
                keyed.append(measure(path, keyed_load, with_key))
    return Telegraf(
        settings=str(best),
        tried={str(settings): rate.per_second for settings, rate in tried.items()},
        rounds=own,
        malformed=malformed,
        killed=killed,
        kills=_KILLS,
        beside=beside,
        keyed=keyed,
    )


def fastest(path: MeasuredPath, shape: Shape) -> Settings:
    """Return those of the settings that are tried with which it is fastest."""
    with alone(path, shape):
        bare = shape._replace(root="bare")
        return max(TRIED, key=lambda settings: measure(path, bare, settings).per_second)


def sustained_load(path: MeasuredPath, shape: Shape, settings: Settings) -> Shape:
    """Return the load of which most gets through."""
    with alone(path, shape):
        return sustained(lambda load: measure(path, load, settings), shape._replace(root="bare"))


@contextlib.contextmanager
def alone(path: MeasuredPath, shape: Shape) -> Iterator[None]:
    """Let Telegraf have the machine: stop the workers until the context is left."""
    workers = path.stack.workers
    for worker in workers:
        path.stack[worker].stop()
    yield
    path.stack.start(*workers)
    path.warm_up(shape)


@contextlib.contextmanager
def _running(path: MeasuredPath, settings: Settings) -> Iterator["_Process"]:
    """Run it without rows or messages of an earlier run until the context is left."""
    program = installed()
    if program is None:
        raise StackError("telegraf is not on PATH")
    path.stack.fetch("DROP TABLE IF EXISTS public.telemetry")
    asyncio.run(_forget_session(path.stack.mqtt_port))
    with tempfile.TemporaryDirectory(prefix="sens-telegraf-") as folder:
        process = _Process(path.stack, program, settings, Path(folder))
        try:
            process.start_and_connect()
            yield process
        finally:
            process.stop()


async def _forget_session(port: int) -> None:
    """Begin a clean session under its name, which ends the one before (MQTT 3.1.1, section 3.1.2.4)."""
    async with connected(HOST, port, 1, name=_NAME):
        pass


class _Process(Server):
    """Telegraf. Its log is the file that it writes itself: what it prints beside that are complaints about single messages."""

    def __init__(self, stack: Stack, program: str, settings: Settings, folder: Path) -> None:
        self._written = folder / "telegraf.log"
        configuration = folder / "telegraf.conf"
        configuration.touch(0o600)
        configuration.write_text(
            _CONFIGURATION.format(
                batch=settings.batch,
                undelivered=settings.undelivered,
                connections=settings.connections,
                name=_NAME,
                limit=max(100_000, 2 * settings.undelivered),
                folder=folder,
                host=HOST,
                port=stack.mqtt_port,
                database_port=stack.database.port,
                database=stack.database.name,
                user=stack.database.user,
                password=stack.database.password.get_secret_value() if stack.database.password else "",
            )
            + _KEY * settings.keyed,
            encoding="utf-8",
        )
        command = [program, "--config", str(configuration)]
        super().__init__(_NAME, command, folder / "output", ready=self._is_connected)

    def start_and_connect(self) -> None:
        """Start it, and wait until it is connected.

        Raises:
            StackError: It ends, or does not connect in time.
        """
        self._written.unlink(missing_ok=True)
        self.start()
        try:
            self.wait_until_ready(_STALL_SECONDS)
        except ProgramError as error:
            raise StackError(f"telegraf does not connect to the broker: {error}\n{self._text()[-2000:]}") from error

    def _is_connected(self) -> bool:
        return "Connected [" in self._text()

    def _text(self) -> str:
        return self._written.read_text(encoding="utf-8", errors="replace") if self._written.exists() else ""

    def used(self) -> dict[str, Usage]:
        """Return what it uses, by its name."""
        return {_NAME: used} if (used := self.usage()) is not None else {}


def _count(path: MeasuredPath) -> int:
    if not path.stack.fetch("SELECT 1 FROM pg_tables WHERE schemaname = 'public' AND tablename = 'telemetry'"):
        return 0
    count: int = path.stack.fetch("SELECT count(*) FROM public.telemetry")[0][0]
    return count


def measure(path: MeasuredPath, shape: Shape, settings: Settings) -> Rate:
    """Let it store a load, in a new table.

    Raises:
        StackError: It does not start, or does not store everything.
    """
    packets = path.prepare(shape)
    with _running(path, settings) as process:
        written = path.written()
        before = path.usage() | process.used()
        started = time.perf_counter()
        path.publish(shape, packets)
        seconds = _wait_for_rows(path, shape.messages) - started
        after = path.usage() | process.used()
        grown = path.written_since(written, shape.messages)
    costs = difference(before, after, shape.messages)
    return Rate(shape.messages, shape.messages / seconds, costs, offered_per_second=shape.rate, **grown)


def _wait_for_rows(path: MeasuredPath, wanted: int) -> float:
    """Wait until there are so many rows, and return when there were.

    Counting costs the database something, so it is done seldom while much is missing.
    """
    started = moved = time.perf_counter()
    before = 0
    while (now := _count(path)) < wanted:
        moment = time.perf_counter()
        if now > before:
            before, moved = now, moment
        elif moment > moved + _STALL_SECONDS:
            raise StackError(f"telegraf stored {now:,} of {wanted:,} messages, and then stopped")
        left = (wanted - now) * (moment - started) / now if now else 0.5
        time.sleep(min(1.0, max(0.05, left / 2)))
    return time.perf_counter()


def _after_fault(path: MeasuredPath, published: int) -> AfterFault:
    """Wait until nothing comes any more, and count."""
    before, moved = -1, time.perf_counter()
    while time.perf_counter() < moved + _REST_SECONDS:
        if (now := _count(path)) != before:
            before, moved = now, time.perf_counter()
        time.sleep(0.5)
    distinct: int = path.stack.fetch("SELECT count(*) FROM (SELECT DISTINCT * FROM public.telemetry) t")[0][0]
    return AfterFault(published, before, distinct)


def _malformed(path: MeasuredPath, shape: Shape, settings: Settings) -> AfterFault:
    first = path.take_times(shape.span_milliseconds)
    bodies = [payload(shape, number, first + shape.milliseconds(number)) for number in range(shape.messages)]
    data = b"".join(
        packet(shape, shape.device(number), number, body[:-1] if number % _MALFORMED_EVERY == 0 else body)
        for number, body in enumerate(bodies)
    )
    with _running(path, settings):
        path.publish(shape._replace(connections=1, window=shape.messages), [[Chunk(shape.messages, data)]])
        return _after_fault(path, shape.messages)


def _killed(path: MeasuredPath, shape: Shape, settings: Settings) -> AfterFault:
    packets = path.prepare(shape)
    with _running(path, settings) as process, ThreadPoolExecutor(1) as others:
        load = others.submit(path.publish, shape, packets)
        for kill in range(1, _KILLS + 1):
            _wait_for_rows(path, shape.messages * kill // (_KILLS + 1))
            process.kill()
            process.start_and_connect()
        load.result()
        return _after_fault(path, shape.messages)
