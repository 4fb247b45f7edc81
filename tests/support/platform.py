"""The whole platform as one fixture: a real ``sens up`` on free ports, in a folder of its own.

`platform` runs once a session, without the simulated fleet, for tests that read or that keep to a device of their own.
`running_platform` runs another one for a test that kills, fills or restarts something.
"""

import dataclasses
import io
import json
import os
import random
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sens_cli.up.display import READY_LINE
from sens_cli.up.ports import Ports, check_free, ports
from sens_common.command_line.instance import Instance
from sens_common.errors import SensError
from support import command_line
from support.servers import HOST, scratch_folder
from tools.ports import claim_port
from tools.program import Program

READY_SECONDS = 90.0


@dataclasses.dataclass(frozen=True, slots=True)
class Platform:
    """A running ``sens up``.

    Attributes:
        process: The ``sens up`` process.
        data_dir: Its data folder.
        offset: Its ``--port-offset``.
        ports: What listens where; MQTT on ``mqtt``, the API on ``api``.
        tenant: First tenant.
        key: An API key of that tenant.
        output: File with what ``sens up`` printed.
    """

    process: "subprocess.Popen[bytes]"
    data_dir: Path
    offset: int
    ports: Ports
    tenant: str
    key: str
    output: Path

    @property
    def host(self) -> str:
        """Address of everything."""
        return HOST

    @property
    def api_url(self) -> str:
        """Base URL of the API, without ``/api/v1``."""
        return f"http://{HOST}:{self.ports.api}"

    @property
    def headers(self) -> dict[str, str]:
        """Request headers that carry the key."""
        return {"Authorization": f"Bearer {self.key}"}

    def operations_port(self, component: str) -> int:
        """Return the operations port of a component, by its name (``telemetry-worker``)."""
        instance = Instance.load(self.data_dir)
        assert instance is not None
        return int(instance.operations[component].rpartition(":")[2])

    def process_number(self, component: str) -> int:
        """Return the process number of a component, by its name."""
        content = json.loads((self.data_dir / "run" / f"{component}.pid").read_text(encoding="utf-8"))
        return int(content["process"])

    def sens(self, *arguments: str, given: bytes = b"") -> "subprocess.CompletedProcess[str]":
        """Run a ``sens`` command on this instance, in the process of the test; the standard input is what is given."""
        files = {"stdin": io.BytesIO(given), "stdout": io.BytesIO(), "stderr": io.BytesIO()}
        with pytest.MonkeyPatch.context() as patch:
            for name in os.environ.keys() - clean_environment().keys():
                patch.delenv(name)
            for name, value in self._variables().items():
                patch.setenv(name, value)
            for name, file in files.items():
                patch.setattr(sys, name, io.TextIOWrapper(file, encoding="utf-8", write_through=True))
            code = command_line.sens(*arguments)
            # A stream that nobody holds any more closes its file.
            output, errors = (files[name].getvalue().decode() for name in ("stdout", "stderr"))
        return subprocess.CompletedProcess(["sens", *arguments], code, output, errors)

    def start_sens(self, *arguments: str) -> "subprocess.Popen[str]":
        """Start a ``sens`` command on this instance without waiting for its end."""
        return subprocess.Popen(
            [sys.executable, "-m", "sens_cli", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            env=clean_environment() | self._variables(),
        )

    def _variables(self) -> dict[str, str]:
        return {"SENS_DATA_DIR": str(self.data_dir), "COLUMNS": "200", "NO_COLOR": "1"}

    def create_tenant(self, name: str | None = None) -> tuple[str, str]:
        """Make a tenant; return its name and an API key."""
        tenant = name or f"tenant-{secrets.token_hex(6)}"
        made = self.sens("tenants", "create", tenant)
        assert made.returncode == 0, made.stderr
        key = self.sens("keys", "create", "--tenant", tenant, "--json")
        assert key.returncode == 0, key.stderr
        return tenant, str(json.loads(key.stdout)["key"])


def clean_environment() -> dict[str, str]:
    """Return the environment without settings of the platform."""
    return {name: value for name, value in os.environ.items() if not name.startswith("SENS_")}


def free_port_offset() -> int:
    """Return a port offset with which nothing listens on the platform's ports, and no other test process is given one of them.

    They lie below the ports that Linux gives to outgoing connections (ip(7), ``ip_local_port_range``), which come and go.
    """
    for _attempt in range(100):
        offset = random.SystemRandom().randrange(17_200, 24_500)  # above those of `free_port`
        try:
            check_free(ports(offset), {})
        except SensError:
            continue
        if all(map(claim_port, ports(offset))):
            return offset
    pytest.fail("no port offset with free ports found")


def command(data_dir: Path, offset: int, *options: str) -> list[str]:
    """Return the command line of ``sens up``."""
    return [sys.executable, "-m", "sens_cli", "up", "--data-dir", str(data_dir), "--port-offset", str(offset), *options]


@contextmanager
def running_platform(data_dir: Path, *options: str, offset: int | None = None) -> Iterator[Platform]:
    """Run ``sens up`` in a data folder, which may have one already, while the context is open.

    Args:
        data_dir: In a folder that other accounts can reach, such as `scratch_folder` gives.
        options: More options of ``sens up``.
        offset: Of the ports, None for one with which they are free.
    """
    chosen = free_port_offset() if offset is None else offset
    output = data_dir.parent / f"up-{secrets.token_hex(4)}.txt"
    program = Program(
        "sens up",
        command(data_dir, chosen, *options),
        output,
        ready=lambda: READY_LINE in output.read_text(encoding="utf-8").splitlines(),
        env=clean_environment(),
    )
    with program.running_until_left(READY_SECONDS):
        assert program.process is not None
        instance = Instance.load(data_dir)
        assert instance is not None
        key = Path(instance.key_file).read_text(encoding="ascii").strip()
        yield Platform(program.process, data_dir, chosen, ports(chosen), instance.tenant, key, output)


@pytest.fixture(scope="session")
def platform() -> Iterator[Platform]:
    """The platform without simulated sensors; one for the whole session."""
    with scratch_folder("sens-platform-") as folder, running_platform(folder / "data", "--no-simulator") as running:
        yield running


def stop(running: Platform) -> float:
    """Ask ``sens up`` to stop as a service manager does; return the seconds it took."""
    began = time.monotonic()
    running.process.terminate()
    running.process.wait(30)
    return time.monotonic() - began
