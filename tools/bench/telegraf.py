"""Telegraf on the same broker and database: ``mqtt_consumer`` to ``postgresql``.

Its options are those of the plugins' own pages, "MQTT Consumer Input Plugin" and "PostgreSQL Output Plugin".
"""

import asyncio
import contextlib
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, NamedTuple

from tools.bench.figures import EndToEnd, Mishap, Rate, Telegraf
from tools.bench.load import Chunk, Shape, connected, packet, payload
from tools.bench.rig import Rig
from tools.bench.runs import end_to_end, sustained
from tools.stack.path import HOST, Stack, StackError
from tools.stack.usage import Usage, difference, usage

_NAME: Final = "telegraf"
_STALL_SECONDS: Final = 40
_REST_SECONDS: Final = 15
_MALFORMED_EVERY: Final = 10
_STOP_SECONDS: Final = 20
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


class Settings(NamedTuple):
    """What is tuned.

    Attributes:
        batch: ``metric_batch_size``.
        undelivered: ``max_undelivered_messages``.
        connections: ``pool_max_conns``.
    """

    batch: int
    undelivered: int
    connections: int

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


def compare(rig: Rig, shape: Shape, rounds: int) -> Telegraf:
    """Measure it with the best of several settings, in turn with SENS; see what it makes of a malformed message and of being killed.

    Raises:
        StackError: One of them does not start, or does not store everything.
    """
    rig.warm_up(shape)
    ours = rig.afresh(end_to_end)
    our_load = sustained(ours, shape)
    bare = shape._replace(root="bare")
    with _alone(rig, shape):
        tried = {settings: _round(rig, bare, settings) for settings in TRIED}
        best = max(tried, key=lambda settings: tried[settings].per_second)
        load = sustained(lambda load: _round(rig, load, best), bare)
        malformed = _malformed(rig, bare._replace(messages=min(shape.messages, 1000)), best)
        killed = _killed(rig, bare, best)
    beside: list[EndToEnd] = []
    own: list[Rate] = []
    for _ in range(rounds):
        beside.append(ours(our_load))
        with _alone(rig, shape):
            own.append(_round(rig, load, best))
    return Telegraf(
        settings=str(best),
        tried={str(settings): rate.per_second for settings, rate in tried.items()},
        rounds=own,
        malformed=malformed,
        killed=killed,
        kills=_KILLS,
        beside=beside,
    )


@contextlib.contextmanager
def _alone(rig: Rig, shape: Shape) -> Iterator[None]:
    """Let Telegraf have the machine: stop the workers until the context is left."""
    workers = rig.stack.workers
    for worker in workers:
        rig.stack.stop(worker)
    yield
    rig.stack.start_together(workers)
    rig.warm_up(shape)


@contextlib.contextmanager
def _running(rig: Rig, settings: Settings) -> Iterator["_Process"]:
    """Run it, with neither rows nor messages of before, until the context is left."""
    rig.stack.fetch("DROP TABLE IF EXISTS public.telemetry")
    asyncio.run(_forget_session(rig.stack.mqtt_port))
    with tempfile.TemporaryDirectory(prefix="sens-telegraf-") as folder:
        process = _Process(rig.stack, settings, Path(folder))
        process.start()
        try:
            yield process
        finally:
            process.stop()


async def _forget_session(port: int) -> None:
    """Begin a clean session under its name, which ends the one before (MQTT 3.1.1, section 3.1.2.4)."""
    async with connected(HOST, port, 1, name=_NAME):
        pass


class _Process:
    def __init__(self, stack: Stack, settings: Settings, folder: Path) -> None:
        self._log = folder / "telegraf.log"
        self._configuration = folder / "telegraf.conf"
        self._process: subprocess.Popen[bytes] | None = None
        self._configuration.touch(0o600)
        self._configuration.write_text(
            _CONFIGURATION.format(
                **settings._asdict(),
                name=_NAME,
                limit=max(100_000, 2 * settings.undelivered),
                folder=folder,
                host=HOST,
                port=stack.mqtt_port,
                database_port=stack.database.port,
                database=stack.database.name,
                user=stack.database.user,
                password=stack.database.password.get_secret_value() if stack.database.password else "",
            ),
            encoding="utf-8",
        )

    def start(self) -> None:
        """Start it, and wait until it is connected."""
        program = installed()
        if program is None:
            raise StackError("telegraf is not on PATH")
        self._log.unlink(missing_ok=True)
        # Its complaints about single messages are not what is measured.
        self._process = subprocess.Popen([program, "--config", str(self._configuration)], stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + _STALL_SECONDS
        while "Connected [" not in self._written():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise StackError(f"telegraf does not connect to the broker:\n{self._written()[-2000:]}")
            time.sleep(0.05)

    def _written(self) -> str:
        return self._log.read_text(encoding="utf-8", errors="replace") if self._log.exists() else ""

    def usage(self) -> dict[str, Usage]:
        """Return what it uses."""
        return {_NAME: usage(self._process.pid)} if self._process is not None else {}

    def stop(self) -> None:
        """End it as its operator does."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.kill()

    def kill(self) -> None:
        """End it at once."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()


def _count(rig: Rig) -> int:
    if not rig.stack.fetch("SELECT 1 FROM pg_tables WHERE schemaname = 'public' AND tablename = 'telemetry'"):
        return 0
    count: int = rig.stack.fetch("SELECT count(*) FROM public.telemetry")[0][0]
    return count


def _round(rig: Rig, shape: Shape, settings: Settings) -> Rate:
    packets = rig.prepare(shape)
    with _running(rig, settings) as process:
        before = rig.usage() | process.usage()
        started = time.perf_counter()
        rig.publish(shape, packets)
        seconds = _settle(rig, shape.messages) - started
        after = rig.usage() | process.usage()
    costs = difference(before, after, shape.messages)
    return Rate(shape.messages, shape.messages / seconds, costs, offered_per_second=shape.rate)


def _settle(rig: Rig, wanted: int) -> float:
    """Wait until there are so many rows, and return when there were.

    Counting costs the database something, so it is done seldom while much is missing.
    """
    started = moved = time.perf_counter()
    before = 0
    while (now := _count(rig)) < wanted:
        moment = time.perf_counter()
        if now > before:
            before, moved = now, moment
        elif moment > moved + _STALL_SECONDS:
            raise StackError(f"telegraf stored {now:,} of {wanted:,} messages and no more")
        left = (wanted - now) * (moment - started) / now if now else 0.5
        time.sleep(min(1.0, max(0.05, left / 2)))
    return time.perf_counter()


def _mishap(rig: Rig, published: int) -> Mishap:
    """Wait until nothing comes any more, and count."""
    before, moved = -1, time.perf_counter()
    while time.perf_counter() < moved + _REST_SECONDS:
        if (now := _count(rig)) != before:
            before, moved = now, time.perf_counter()
        time.sleep(0.5)
    distinct: int = rig.stack.fetch("SELECT count(*) FROM (SELECT DISTINCT device, time FROM public.telemetry) t")[0][0]
    return Mishap(published, before, distinct)


def _malformed(rig: Rig, shape: Shape, settings: Settings) -> Mishap:
    first = rig.take_times(shape.span_milliseconds)
    bodies = [payload(shape, number, first + number // shape.devices) for number in range(shape.messages)]
    data = b"".join(
        packet(shape, number % shape.devices, number, body[:-1] if number % _MALFORMED_EVERY == 0 else body)
        for number, body in enumerate(bodies)
    )
    with _running(rig, settings):
        rig.publish(shape._replace(connections=1, window=shape.messages), [[Chunk(shape.messages, data)]])
        return _mishap(rig, shape.messages)


def _killed(rig: Rig, shape: Shape, settings: Settings) -> Mishap:
    packets = rig.prepare(shape)
    with _running(rig, settings) as process, ThreadPoolExecutor(1) as others:
        load = others.submit(rig.publish, shape, packets)
        for kill in range(1, _KILLS + 1):
            _settle(rig, shape.messages * kill // (_KILLS + 1))
            process.kill()
            process.start()
        load.result()
        return _mishap(rig, shape.messages)
