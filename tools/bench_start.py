"""Measures a platform of its own in a temporary folder: starts, memory at rest, publish to visible. See scripts/bench-start."""

import argparse
import contextlib
import os
import shutil
import signal
import socket
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import mqtt5

from sens_cli.instance import Instance
from sens_cli.up.display import READY_LINE

ROOT = Path(__file__).resolve().parents[1]
RATE = 100
MESSAGES = 1000


@contextlib.contextmanager
def started(run: Path, data: Path, offset: int) -> Iterator[float]:
    """Run the platform from a checkout; give the seconds from the command to the ready line."""
    began = time.perf_counter()
    command = [str(run), "--data-dir", str(data), "--port-offset", str(offset), "--no-simulator"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL) as child:
        assert child.stdout is not None  # noqa: S101 - for the type checker
        for line in child.stdout:
            if line.strip() == READY_LINE:
                break
        else:
            raise SystemExit("the platform did not start")
        try:
            yield time.perf_counter() - began
        finally:
            child.send_signal(signal.SIGTERM)
            child.communicate()


@contextlib.contextmanager
def fresh_clone() -> Iterator[Path]:
    """Give a clone of the checkout without an environment; the package manager's cache stays as it is."""
    with tempfile.TemporaryDirectory(prefix="sens-clone-", ignore_cleanup_errors=True) as folder:
        subprocess.run(["git", "clone", "--quiet", str(ROOT), f"{folder}/clone"], check=True)
        yield Path(folder) / "clone"


def memory(data: Path) -> list[tuple[str, float]]:
    """Return each component's resident memory and that of its children, MB; Linux only (proc_pid_status(5))."""
    rows = []
    for note in sorted((data / "run").glob("*.pid")):
        number = int(note.read_text(encoding="utf-8").split(":")[1].split(",")[0])
        for process in [number, *_children(number)]:
            with contextlib.suppress(OSError):
                status = Path(f"/proc/{process}/status").read_text(encoding="utf-8")
                resident = next(line for line in status.splitlines() if line.startswith("VmRSS"))
                rows.append(
                    (note.stem if process == number else f"{note.stem}, child", int(resident.split()[1]) / 1024)
                )
    return rows


def _children(number: int) -> list[int]:
    text = Path(f"/proc/{number}/task/{number}/children").read_text(encoding="ascii")
    return [int(part) for part in text.split()]


class Publisher:
    """An MQTT 5 client that only publishes (QoS 1); a thread throws the acknowledgements away."""

    def __init__(self, port: int) -> None:
        self._connection = socket.create_connection(("127.0.0.1", port), timeout=10)
        self._connection.sendall(mqtt5.ConnectPacket("sens-bench", clean_start=True, keep_alive=60).write())
        self._connection.recv(65_536)
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        with contextlib.suppress(OSError):
            while self._connection.recv(65_536):
                pass

    def publish(self, number: int) -> None:
        """Publish one message."""
        topic, payload = "sens/v1/demo/bench/telemetry", f'{{"number":{number}}}'.encode()
        packet = mqtt5.PublishPacket(topic, payload, qos=mqtt5.QoS.AT_LEAST_ONCE, packet_id=number % 65_535 + 1)
        self._connection.sendall(packet.write())


def latencies(instance: Instance, key: str) -> list[float]:
    """Publish at `RATE`; return for each message the seconds until ``latest`` shows it or a later one."""
    publisher = Publisher(instance.ports["mqtt5"])
    published: list[float] = []
    seen: list[float] = []

    def publish() -> None:
        begin = time.perf_counter()
        for number in range(MESSAGES):
            time.sleep(max(0.0, begin + number / RATE - time.perf_counter()))
            published.append(time.perf_counter())
            publisher.publish(number)

    sender = threading.Thread(target=publish)
    sender.start()
    deadline = time.perf_counter() + MESSAGES / RATE + 30
    with httpx.Client(base_url=instance.api_url, headers={"Authorization": f"Bearer {key}"}, trust_env=False) as client:
        while len(seen) < MESSAGES and time.perf_counter() < deadline:
            answer = client.get("/api/v1/devices/bench/latest")
            now = time.perf_counter()
            values = answer.json()["latest"] if answer.is_success else []
            if values:
                newest = int(values[0]["value"])
                seen += [now] * (newest + 1 - len(seen))
    sender.join()
    return [shown - sent for sent, shown in zip(published, seen, strict=False)]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--environment", action="store_true", help="also time a fresh clone that makes its environment")
    parser.add_argument("--port-offset", type=int, default=20_000, help="where the ports are free")
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
            measured = sorted(latencies(instance, Path(instance.key_file).read_text(encoding="ascii").strip()))
            print(
                f"publish to visible at {RATE} msg/s, {len(measured)} of {MESSAGES} messages:"
                f" median {statistics.median(measured) * 1000:.0f} ms, p99 {measured[int(len(measured) * 0.99)] * 1000:.0f} ms"
            )
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
