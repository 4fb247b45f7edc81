"""Reads through the API on this machine: how long they take, how many pages of the database they look at, and what a long stream costs."""

import http.client
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import urlencode

from tools.bench import history
from tools.bench.figures import CHART, LATEST_OF_DECADES, LATEST_OF_FLEET, LATEST_OF_MONTH, Read, Reads, Stream
from tools.stack.path import API, INGESTION, TELEMETRY, Stack, StackError
from tools.stack.programs import POSTGRES
from tools.stack.server import HOST
from tools.stack.usage import difference

SETTINGS: Final = {
    "SENS_LIMITS__REQUESTS_PER_MINUTE": "10000000",
    "SENS_LIMITS__MEASUREMENTS": "100000000",
    "SENS_LIMITS__STREAM_SECONDS": "3600",
}
"""Of the API, so that no limit is measured."""

_PARTITIONS: Final = "SELECT count(*) FROM pg_inherits WHERE inhparent = 'sens.readings'::regclass"
_CHUNKS: Final = "SELECT count(*) FROM timescaledb_information.chunks WHERE hypertable_schema = 'sens' AND hypertable_name = 'readings'"
_CSV: Final = "text/csv"
_STREAMED: Final = (_CSV, "application/vnd.apache.arrow.stream", "application/vnd.apache.parquet")
_MEASUREMENTS: Final = "/api/v1/devices/{device}/measurements"
_LATEST_OF_ALL: Final = "/api/v1/latest"
_CHART_POINTS: Final = 1000
_OK: Final = 200
_MOST: Final = 200
_LEAST: Final = 5
_ROLLUP_SECONDS: Final = 3600
_CHUNK_BYTES: Final = 1 << 16


class Pace(NamedTuple):
    """How long is taken for a kind of read.

    Attributes:
        seconds: For asking again and again, at least.
        statistics_seconds: Until all sessions of PostgreSQL have told their statistics: one that is idle does after ten seconds (pgstat.c,
            PGSTAT_IDLE_INTERVAL).
    """

    seconds: float = 5.0
    statistics_seconds: float = 11.0


class Answer(NamedTuple):
    """What a read brought.

    Attributes:
        requests: How many it took.
        size: Bytes of all answers.
    """

    requests: int
    size: int


class Client:
    """One connection to the API that stays open, with a key."""

    def __init__(self, port: int, key: str) -> None:
        self._connection = http.client.HTTPConnection(HOST, port, timeout=600)
        self._key = key

    def open(self, path: str, accept: str = "application/json", **parameters: str) -> http.client.HTTPResponse:
        """Return an answer before it is read.

        Raises:
            StackError: It is not 200.
        """
        target = f"{path}?{urlencode(parameters)}" if parameters else path
        self._connection.request("GET", target, headers={"Authorization": f"Bearer {self._key}", "Accept": accept})
        answer = self._connection.getresponse()
        if answer.status != _OK:
            raise StackError(f"{target} answers {answer.status}: {answer.read()[:500].decode(errors='replace')}")
        return answer

    def get(self, path: str, **parameters: str) -> Answer:
        """Read an answer."""
        return Answer(1, len(self.open(path, **parameters).read()))

    def get_all(self, path: str, **parameters: str) -> Answer:
        """Read a list to its end, page by page."""
        requests, size, cursor = 0, 0, None
        while requests == 0 or cursor:
            body = self.open(path, **parameters, **({"cursor": cursor} if cursor else {})).read()
            requests, size, cursor = requests + 1, size + len(body), json.loads(body).get("next")
        return Answer(requests, size)

    def close(self) -> None:
        """End the connection."""
        self._connection.close()


def measure(stack: Stack, size: history.Size, pace: Pace = Pace()) -> Reads:  # noqa: B008 - it never changes
    """Fill the database, and read.

    Raises:
        StackError: The API does not answer as it should, or the rollups are not made in time.
    """
    history.fill(stack, size)
    _wait_for_rollups(stack)
    for worker in (INGESTION, TELEMETRY):
        stack[worker].stop()
    stack.fetch("ALTER SYSTEM SET autovacuum = off")
    stack.fetch("SELECT pg_reload_conf()")
    key = json.loads(stack.sens("keys", "create", f"--tenant={history.TENANT}", "--json"))["key"]
    stack.add_api(SETTINGS)
    client = Client(stack.workers[API].port, key)
    try:
        document = json.loads(client.open("/openapi.json").read())
        reads = [_read(stack, client, pace, name, ask) for name, ask in _questions(client, document, size).items()]
        streams = [_stream(stack, client, accept, size) for accept in _STREAMED if accept in _forms(document)]
    finally:
        client.close()
    [[partitions]] = stack.fetch(_CHUNKS if "TimescaleDB" in stack.database_versions() else _PARTITIONS)
    [[readings]] = stack.fetch("SELECT count(*) FROM sens.readings")
    return Reads(readings=readings, partitions=partitions, devices=size.devices, reads=reads, streams=streams)


def _wait_for_rollups(stack: Stack) -> None:
    """Wait until the telemetry worker has added what was filled in to the rollups."""
    deadline = time.monotonic() + _ROLLUP_SECONDS
    while stack.fetch("SELECT FROM sens.rollup_changes LIMIT 1"):
        if time.monotonic() > deadline:
            raise StackError(f"the rollups are not made within {_ROLLUP_SECONDS} s")
        time.sleep(1)


def _forms(document: dict[str, Any]) -> list[str]:
    """Return the media types that measurements come in."""
    return list(document["paths"][_MEASUREMENTS]["get"]["responses"]["200"]["content"])


def _questions(client: Client, document: dict[str, Any], size: history.Size) -> dict[str, Callable[[], Answer]]:
    """Return what is asked, by name; what the API does not have in one request is asked in several."""
    paths = document["paths"]
    has_points = any(each["name"] == "points" for each in paths[_MEASUREMENTS]["get"]["parameters"])
    of_minutes = _MEASUREMENTS.format(device=history.MINUTES)
    days = min(365, max(1, size.readings // 1440))
    width = {"points": str(_CHART_POINTS)} if has_points else {"bucket": f"{math.ceil(days * 24 / _CHART_POINTS)}h"}
    chart = {"metric": "temperature", "from": f"-{days}d", **width}

    def latest_of_fleet() -> Answer:
        if _LATEST_OF_ALL in paths:
            return client.get_all(_LATEST_OF_ALL, limit="1000")
        answers = [client.get(f"/api/v1/devices/fleet-{number:05d}/latest") for number in range(size.devices)]
        return Answer(len(answers), sum(answer.size for answer in answers))

    return {
        LATEST_OF_DECADES: lambda: client.get(f"/api/v1/devices/{history.DECADES}/latest"),
        LATEST_OF_MONTH: lambda: client.get(f"/api/v1/devices/{history.MONTH}/latest"),
        "latest of a device with a reading a minute": lambda: client.get(f"/api/v1/devices/{history.MINUTES}/latest"),
        "the newest 1,000 values of a metric": lambda: client.get(
            of_minutes, metric="temperature", order="desc", limit="1000"
        ),
        "a day by 5 minutes": lambda: client.get(of_minutes, metric="temperature", bucket="5m"),
        CHART: lambda: client.get(of_minutes, **chart),
        LATEST_OF_FLEET: latest_of_fleet,
    }


def _read(stack: Stack, client: Client, pace: Pace, name: str, ask: Callable[[], Answer]) -> Read:
    """Ask again and again, for some seconds."""
    client.close()  # the API closes what is idle; the next request opens another connection
    answer = ask()
    buffers, before = _buffers(stack, pace), stack.usage()
    client.close()
    seconds: list[float] = []
    while len(seconds) < _LEAST or (sum(seconds) < pace.seconds and len(seconds) < _MOST):
        started = time.perf_counter()
        answer = ask()
        seconds.append(time.perf_counter() - started)
    costs = difference(before, stack.usage(), len(seconds))
    seconds.sort()
    at = {percentile: seconds[int(len(seconds) * float(percentile) / 100)] * 1e3 for percentile in ("50", "95")}
    return Read(
        name=name,
        times=len(seconds),
        requests=answer.requests,
        kilobytes=answer.size / 1e3,
        milliseconds=at | {"100": seconds[-1] * 1e3},
        cpu_microseconds={part: costs[part] for part in (API, POSTGRES)},
        buffers=(_buffers(stack, pace) - buffers) / len(seconds),
    )


def _buffers(stack: Stack, pace: Pace) -> int:
    """Return how many pages the database has looked at, once all sessions have told what they have."""
    time.sleep(pace.statistics_seconds)
    [[pages]] = stack.fetch("SELECT blks_hit + blks_read FROM pg_stat_database WHERE datname = current_database()")
    return int(pages)


def _stream(stack: Stack, client: Client, accept: str, size: history.Size) -> Stream:
    """Read everything of one device, as fast as it comes."""
    process = stack[API].process
    if process is None:
        raise StackError("the API does not run")
    Path(f"/proc/{process.pid}/clear_refs").write_text(
        "5", encoding="ascii"
    )  # the peak begins again (proc_pid_clear_refs(5))
    client.close()
    before, started = stack.usage(), time.perf_counter()
    first = -(-size.readings // 1440) + 1
    answer = client.open(
        _MEASUREMENTS.format(device=history.MINUTES), accept, **{"from": f"-{first}d", "limit": "100000000"}
    )
    lines = length = 0
    while chunk := answer.read(_CHUNK_BYTES):
        length += len(chunk)
        lines += chunk.count(b"\n")
    seconds = time.perf_counter() - started
    # Arrow and Parquet have no lines; what CSV has in lines are values. The head is one.
    rows = lines - 1 if accept == _CSV else size.readings * len(history.METRICS)
    costs = difference(before, stack.usage(), rows)
    return Stream(
        form=accept,
        rows=rows,
        rows_per_second=rows / seconds,
        readings_per_second=rows / len(history.METRICS) / seconds,
        megabytes=stack[API].peak_megabytes(),
        bytes_per_row=length / rows,
        cpu_microseconds={part: costs[part] for part in (API, POSTGRES)},
    )
