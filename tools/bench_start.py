"""Starts a platform of its own and measures it: how long a start takes, memory at rest, and how long until a message is visible."""

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import aiomqtt
import httpx2
import psutil

from sens_cli.up.display import READY_LINE
from sens_common.command_line.instance import Instance
from tools.program import Program, ProgramError

ROOT = Path(__file__).resolve().parents[1]
RATE = 100
MESSAGES = 1000
START_SECONDS = 600.0  # to make an environment takes minutes where little is in the cache
MEGABYTE = 1 << 20


@contextlib.contextmanager
def started(run: Path, data: Path, offset: int) -> Iterator[float]:
    """Run the platform from a checkout; give the seconds from the command to the ready line."""
    command = [str(run), "--data-dir", str(data), "--port-offset", str(offset), "--no-simulator"]
    with tempfile.TemporaryDirectory(prefix="sens-bench-") as folder:
        output = Path(folder) / "output"
        program = Program(
            "the platform",
            command,
            output,
            ready=lambda: READY_LINE in output.read_text(encoding="utf-8").splitlines(),
        )
        began = time.perf_counter()
        try:
            with program.running_until_left(START_SECONDS):
                yield time.perf_counter() - began
        except ProgramError as error:
            raise SystemExit(str(error)) from error


@contextlib.contextmanager
def fresh_clone() -> Iterator[Path]:
    """Give a clone of the checkout without an environment; the package manager's cache stays as it is."""
    with tempfile.TemporaryDirectory(prefix="sens-clone-", ignore_cleanup_errors=True) as folder:
        subprocess.run(["git", "clone", "--quiet", str(ROOT), f"{folder}/clone"], check=True)
        yield Path(folder) / "clone"


def memory(data: Path) -> list[tuple[str, float]]:
    """Return each component's resident memory and that of its children, MB."""
    rows = []
    for note in sorted((data / "run").glob("*.pid")):
        component = psutil.Process(json.loads(note.read_text(encoding="utf-8"))["process"])
        for process in [component, *component.children()]:
            with contextlib.suppress(psutil.NoSuchProcess):
                name = note.stem if process == component else f"{note.stem}, child"
                rows.append((name, process.memory_info().rss / MEGABYTE))
    return rows


async def latencies(instance: Instance, key: str) -> list[float]:
    """Publish at `RATE`; return for each message the seconds until ``latest`` shows it or a later one."""
    published: list[float] = []
    seen: list[float] = []
    headers = {"Authorization": f"Bearer {key}"}
    async with (
        aiomqtt.Client("127.0.0.1", instance.ports["mqtt5"], protocol=aiomqtt.ProtocolVersion.V5) as broker,
        httpx2.AsyncClient(base_url=instance.api_url, headers=headers, trust_env=False) as api,
        asyncio.TaskGroup() as tasks,
    ):

        async def publish() -> None:
            begin = time.perf_counter()
            for number in range(MESSAGES):
                await asyncio.sleep(max(0.0, begin + number / RATE - time.perf_counter()))
                published.append(time.perf_counter())
                tasks.create_task(broker.publish("sens/v1/demo/bench/telemetry", f'{{"number":{number}}}', qos=1))

        tasks.create_task(publish())
        deadline = time.perf_counter() + MESSAGES / RATE + 30
        while len(seen) < MESSAGES and time.perf_counter() < deadline:
            answer = await api.get("/api/v1/devices/bench/latest")
            now = time.perf_counter()
            values = answer.json()["latest"] if answer.is_success else []
            if values:
                newest = int(values[0]["value"])
                seen += [now] * (newest + 1 - len(seen))
    return [shown - sent for sent, shown in zip(published, seen, strict=False)]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="scripts/bench-start", description=__doc__)
    parser.add_argument(
        "--environment", action="store_true", help="also measure how long a fresh clone takes until it is ready"
    )
    parser.add_argument(
        "--port-offset",
        type=int,
        default=20_000,
        help="add this to every port, where the usual ones are taken (default: %(default)s)",
    )
    options = parser.parse_args()
    for name in [name for name in os.environ if name.startswith("SENS_")]:
        del os.environ[name]
    folder = Path(tempfile.mkdtemp(prefix="sens-bench-"))
    folder.chmod(0o755)
    data = folder / "data"
    try:
        if options.environment:
            with (
                fresh_clone() as clone,
                started(clone / "scripts/run", folder / "clone", options.port_offset) as seconds,
            ):
                print(f"fresh clone, environment from the cache, to ready: {seconds:.1f} s")
        run = ROOT / "scripts/run"
        with started(run, data, options.port_offset) as seconds:
            print(f"first start to ready:  {seconds:.1f} s")
        with started(run, data, options.port_offset) as seconds:
            print(f"second start to ready: {seconds:.1f} s")
            time.sleep(5)
            for name, megabytes in memory(data):
                if not name.startswith("postgresql,"):
                    print(f"memory of {name}: {megabytes:.0f} MB")
            instance = Instance.load(data)
            if instance is None:
                raise SystemExit("the platform ended")
            key = Path(instance.key_file).read_text(encoding="ascii").strip()
            measured = sorted(asyncio.run(latencies(instance, key)))
            print(
                f"publish to visible at {RATE} msg/s, {len(measured)} of {MESSAGES} messages:"
                f" median {statistics.median(measured) * 1000:.0f} ms, p99 {measured[int(len(measured) * 0.99)] * 1000:.0f} ms"
            )
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
