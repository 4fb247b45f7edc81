"""The note that ``sens up`` leaves in its data folder, from which the other commands know where the instance is."""

import dataclasses
import json
from pathlib import Path
from typing import Any, Self

from sens_common.errors import UnavailableError


def instance_file(data_dir: Path) -> Path:
    """Return the note's place."""
    return data_dir / "run" / "instance.json"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """A running instance.

    Attributes:
        process: Number of the ``sens up`` process.
        version: Of the product.
        ready: Whether the start-up is complete.
        host: Address of everything that has none of its own.
        mqtt_host: Address the broker listens on.
        api_host: Address the API listens on.
        docs_host: Address the documentation listens on.
        ports: Field names of `sens_cli.up.ports.Ports` and their numbers.
        operations: Component and the base URL of its ``/readyz`` and ``/version``.
        tenant: First tenant.
        key_file: Path of the file with its API key.
    """

    process: int
    version: str
    ready: bool
    host: str
    mqtt_host: str
    api_host: str
    docs_host: str
    ports: dict[str, int]
    operations: dict[str, str]
    tenant: str
    key_file: str

    @property
    def api_url(self) -> str:
        """Base URL of the API."""
        return f"http://{self._reachable(self.api_host)}:{self.ports['api']}"

    @property
    def docs_url(self) -> str:
        """URL of the documentation."""
        return f"http://{self._reachable(self.docs_host)}:{self.ports['docs']}"

    @property
    def reachable_mqtt_host(self) -> str:
        """Address under which this machine reaches the broker."""
        return self._reachable(self.mqtt_host).strip("[]")

    def _reachable(self, host: str) -> str:
        """Return where this machine reaches what listens on a host, as it stands in a URL."""
        if host in {"0.0.0.0", "::", ""}:  # noqa: S104 - compared only
            return self.host
        return f"[{host}]" if ":" in host else host

    def to_json(self) -> dict[str, object]:
        """Return the note's content."""
        return dataclasses.asdict(self)

    @classmethod
    def load(cls, data_dir: Path) -> Self | None:
        """Return the note in a data folder, None when there is none or none that this version can read."""
        try:
            content: dict[str, Any] = json.loads(instance_file(data_dir).read_text(encoding="utf-8"))
            return cls(**content)
        except (OSError, ValueError, TypeError):
            return None


def find_instance(data_dir: Path, otherwise: str) -> Instance:
    """Return the instance that runs from the data folder.

    Raises:
        UnavailableError: None does; the text goes on with what else can be done.
    """
    instance = Instance.load(data_dir)
    if instance is None:
        raise UnavailableError(
            f"no instance runs from {data_dir}: start one with ./scripts/run (or sens up), {otherwise}"
        )
    return instance
