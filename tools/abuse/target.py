"""The instance that is abused: on this machine's loopback address, with an attacker and a bystander of its own."""

import contextlib
import ipaddress
import json
import logging
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import aiomqtt

from sens_common.command_line.instance import Instance, find_instance
from sens_common.errors import SensError
from tools.stack.usage import usage

ATTACKER: Final = "abuse-attacker"
BYSTANDER: Final = "abuse-bystander"

logging.getLogger("mqtt").setLevel(logging.ERROR)  # aiomqtt warns of many publishes under way, which are wanted here


class Target(NamedTuple):
    """What runs.

    Attributes:
        instance: The running instance.
        data_dir: Its data folder.
        attacker_key: An API key of the tenant that makes the mistakes.
        bystander_key: An API key of the tenant that must not notice.
    """

    instance: Instance
    data_dir: Path
    attacker_key: str
    bystander_key: str

    @property
    def api_port(self) -> int:
        """Port of the API on `instance.host`."""
        return self.instance.ports["api"]

    def headers(self, key: str) -> dict[str, str]:
        """Return the request headers that carry a key."""
        return {"Authorization": f"Bearer {key}"}

    def api_process(self) -> int:
        """Return the process number of the API; another one after it was restarted."""
        note = json.loads((self.data_dir / "run" / "platform-api.pid").read_text(encoding="utf-8"))
        return int(note["process"])

    def api_megabytes(self) -> float:
        """Return the resident memory of the API, MB."""
        return usage(self.api_process()).resident_megabytes

    @contextlib.asynccontextmanager
    async def mqtt(self) -> AsyncIterator[aiomqtt.Client]:
        """Keep an MQTT 5 connection to the broker open while the context is."""
        async with aiomqtt.Client(
            self.instance.reachable_mqtt_host,
            self.instance.ports["mqtt5"],
            protocol=aiomqtt.ProtocolVersion.V5,
            timeout=60,
            max_inflight_messages=200,
        ) as client:
            yield client


def find(data_dir: Path) -> Target:
    """Return the instance that runs from a data folder, with its two tenants; they are made where they are missing.

    Raises:
        SensError: None runs there, or its tenants can't be made.
        SystemExit: It listens on an address other than a loopback one.
    """
    instance = find_instance(data_dir, "or name its data folder with --data-dir")
    for host in (instance.host, instance.reachable_mqtt_host):
        if not ipaddress.ip_address(host).is_loopback:
            raise SystemExit(f"abuse: {host} is not a loopback address; only an instance on this machine is abused")
    keys = []
    for tenant in (ATTACKER, BYSTANDER):
        _sens(data_dir, "tenants", "create", "--if-missing", tenant)
        keys.append(_sens(data_dir, "keys", "create", f"--tenant={tenant}", "--name=abuse")["key"])
    return Target(instance, data_dir, *keys)


def _sens(data_dir: Path, *arguments: str) -> Any:
    """Run a command of `sens` on the instance; return its document."""
    command = [sys.executable, "-P", "-m", "sens_cli", *arguments, "--json", "--data-dir", str(data_dir)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise SensError(result.stderr.strip())
    return json.loads(result.stdout)
